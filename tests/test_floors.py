"""The layout of the house: imports go down only, and no file or function grows too long."""

import ast
import sys
from pathlib import Path

import pytest

import lsp_lightning

ROOT = Path(lsp_lightning.__file__).parent
#: Every room and the floor it is on: a room imports from lower floors only, so that rooms of one
#: floor do not know one another. A new room gets its floor here.
FLOORS = {
    **dict.fromkeys(["functional", "errors", "seeding"], 0),
    **dict.fromkeys(["paths", "runtime"], 1),
    "text": 2,
    **dict.fromkeys(["types", "sandbox", "prefix"], 3),
    **dict.fromkeys(["checks", "models"], 4),
    **dict.fromkeys(["generation", "rewards"], 5),
    "game": 6,
    **dict.fromkeys(["evaluation", "runs", "training"], 7),
    **dict.fromkeys(["datamodule", "planning"], 8),
    **dict.fromkeys(["callbacks", "diagnosis"], 9),
    "module": 10,
    **dict.fromkeys(["export", "reporting", "reproduce", "tinyworld"], 11),
    "cli": 12,
    "__main__": 13,
}
FILES = {str(file.relative_to(ROOT)): file for file in sorted(ROOT.rglob("*.py"))}
MODULES = {name: file for name, file in FILES.items() if name != "__init__.py"}


def home(name: str) -> str:
    """The top-level name that a file belongs to: ``rewards/base.py`` is ``rewards``."""
    return name.split("/")[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Full names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} line {node.lineno}: imports are absolute"
            found |= (
                {f"lsp_lightning.{alias.name}" for alias in node.names}
                if node.module == "lsp_lightning"
                else {str(node.module)}
            )
    return found


def own_imports(file: Path) -> set[str]:
    """Top-level names of this package that a file imports."""
    parts = [name.split(".") for name in imports(file)]
    return {p[1] for p in parts if p[0] == "lsp_lightning" and p[1] != "__version__"}


def test_the_walk_sees_imports():
    # plain, inside of a function, and of the package's own modules
    assert {"torch", "peft"} <= imports(ROOT / "models" / "policy.py")
    assert {"text", "types"} <= own_imports(ROOT / "models" / "policy.py")


@pytest.mark.parametrize("name", MODULES)
def test_every_file_has_a_floor_and_imports_from_lower_ones_only(name):
    assert home(name) in FLOORS, f"{home(name)} has no floor yet"
    floor = FLOORS[home(name)]
    others = own_imports(MODULES[name]) - {home(name)}
    above = {other for other in others if FLOORS.get(other, 0) >= floor}
    assert not above, f"{name} is on floor {floor} and imports {sorted(above)}"


def test_few_files_stand_outside_of_rooms():
    assert len(list(ROOT.glob("*.py"))) <= 8


def test_tests_live_in_the_same_rooms():
    rooms = {folder.name for folder in Path(__file__).parent.iterdir() if folder.is_dir()}
    assert rooms - {"support", "__pycache__"} <= set(FLOORS)


@pytest.mark.parametrize("name", [name for name in MODULES if home(name) == "functional"])
def test_the_maths_needs_torch_and_nothing_else(name):
    allowed = {"torch", *sys.stdlib_module_names}
    assert {full.split(".")[0] for full in imports(MODULES[name])} <= {*allowed, "lsp_lightning"}
    assert own_imports(MODULES[name]) <= {"functional"}


def test_nouns_and_prompts_need_no_training_library():
    nouns = [name for name in MODULES if home(name) in ("text", "types", "sandbox")]
    assert len(nouns) >= 7
    for name in nouns:
        used = {full.split(".")[0] for full in imports(MODULES[name])}
        assert not used & {"lightning", "transformers", "peft", "torchmetrics"}, name


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_longer_than_300_lines(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 300


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From ``def`` to the last line, without the docstring."""
    text = ast.get_docstring(function, clean=False)
    docstring = 0 if text is None else text.count("\n") + 1
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("name", FILES)
def test_no_function_is_longer_than_50_lines(name):
    lengths = {
        node.name: lines_of_code(node)
        for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {function: lines for function, lines in lengths.items() if lines > 50} == {}


def test_lines_are_counted_without_the_docstring():
    (function,) = ast.parse('def f(\n    x,\n):\n    """One.\n\n    Two."""\n    return x').body
    assert lines_of_code(function) == 4


def test_nothing_is_called_utils():
    parts = {part.removesuffix(".py") for name in FILES for part in name.split("/")}
    assert not parts & {"utils", "util", "helpers", "common", "misc"}
