"""The layout of the house: imports go down only, and no file or function grows too long."""

import ast
import sys
from pathlib import Path

import pytest

import lsp_lightning

ROOT = Path(lsp_lightning.__file__).parent
#: Everything at the package's top level and the floor it is on. A new name gets its floor here.
FLOORS = {
    "functional": 0,
    **dict.fromkeys(["errors", "types", "paths", "seeding", "chat", "prompts", "inference"], 1),
    **dict.fromkeys(
        ["fitting", "sandbox", "workers", "checks", "tree", "foresight", "threads", "asking"], 1
    ),
    **dict.fromkeys(["pretrained", "quantization", "logits"], 2),
    **dict.fromkeys(["attention", "tree_attention", "kv_cache", "sharing", "folding"], 2),
    **dict.fromkeys(["policy", "generation", "rewards"], 2),
    **dict.fromkeys(["player", "queries", "selfplay", "collate", "memory", "metrics", "update"], 3),
    **dict.fromkeys(["heldout", "resume", "sampled"], 3),
    **dict.fromkeys(["datamodule", "module", "callbacks", "planning"], 4),
    **dict.fromkeys(["cli", "cli_errors", "main", "__main__", "commands", "export", "talk"], 5),
    **dict.fromkeys(["evaluation", "tinyworld"], 5),
}
#: They meet in the game, on floor 3.
STRANGERS = {"policy", "generation", "rewards"}
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
    assert {"torch", "peft"} <= imports(ROOT / "policy.py")
    assert {"chat", "logits"} <= own_imports(ROOT / "policy.py")


@pytest.mark.parametrize("name", MODULES)
def test_every_file_has_a_floor_and_imports_from_no_higher_one(name):
    assert home(name) in FLOORS, f"{home(name)} has no floor yet"
    floor = FLOORS[home(name)]
    above = {other for other in own_imports(MODULES[name]) if FLOORS.get(other, 0) > floor}
    assert not above, f"{name} is on floor {floor} and imports {sorted(above)}"


@pytest.mark.parametrize("name", [name for name in MODULES if home(name) in STRANGERS])
def test_policy_generation_and_rewards_do_not_know_one_another(name):
    assert not own_imports(MODULES[name]) & (STRANGERS - {home(name)})


@pytest.mark.parametrize("name", [name for name in MODULES if home(name) == "functional"])
def test_the_maths_needs_torch_and_nothing_else(name):
    allowed = {"torch", *sys.stdlib_module_names}
    assert {full.split(".")[0] for full in imports(MODULES[name])} <= {*allowed, "lsp_lightning"}
    assert own_imports(MODULES[name]) <= {"functional"}


def test_nouns_and_prompts_need_no_training_library():
    nouns = [name for name in MODULES if FLOORS.get(home(name)) == 1]
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
