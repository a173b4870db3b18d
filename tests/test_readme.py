"""What the README and the pages of docs/ show is there and works: commands, paths, links, code."""

import re
import shlex
import sys
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import pytest
from handmade import playout, scored_round

from lsp_lightning.cli import reproduce
from lsp_lightning.cli.main import COMMANDS, main
from lsp_lightning.reproduce.tiny import tiny_world

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]
)
README, RESULTS, REAL_MODELS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/results.md", "docs/real-models.md")
)
#: Folders that a path in backticks may begin with.
FOLDERS = "configs|tests|notebooks|benchmarks|docs|lsp_lightning"
#: The first line of a Python block that is a file beside the config: "# my_rewards.py".
FILE_NAME = re.compile(r"# (\w+)\.py\n")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.stem}: {self.text.split(chr(10))[0][:40]}"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks_of(page: Path, kind: str) -> list[Block]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(page, found, text) for found, text in fenced if found == kind]


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def shell_of(page: Path) -> list[str]:
    lines = [line for block in blocks_of(page, "bash") for line in block.text.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


SHELL = [line for page in PAGES for line in shell_of(page)]
OURS = sorted({line for line in SHELL if line.startswith("lsp-lightning")})
YAML = [block for page in PAGES for block in blocks_of(page, "yaml")]


def test_there_are_pages_with_commands_and_blocks():
    assert len(PAGES) > 12
    assert {"README.md", "docs/quickstart.md"} <= set(map(named, PAGES))
    assert len(OURS) > 10
    assert len(YAML) > 5


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_shell_line_is_of_a_kind_that_is_checked_here(page):
    kinds = ("lsp-lightning ", "make ", "source .venv/bin/activate", "python -m ")
    assert [line for line in shell_of(page) if not line.startswith(kinds)] == []


@pytest.mark.parametrize("line", OURS)
def test_a_command_names_existing_keys_and_configs(
    line, tmp_path, monkeypatch, capsys, untouched_process
):
    monkeypatch.chdir(ROOT)
    command, *flags = shlex.split(line)[1:]
    assert command in COMMANDS
    if "--help" in flags:
        return
    if command == "list":
        assert main([command, *flags]) == 0
        return
    if command in ("show", "report"):
        monkeypatch.chdir(tmp_path)  # without the run; its flags are read first
        assert main([command, *flags]) == 2
        assert capsys.readouterr().err.startswith("error: run: no folder 'runs/")
        return
    if command == "reproduce":
        typed = reproduce._parser().parse_args(flags)
        assert typed.table or reproduce._arms(typed.arms, reproduce._WORLDS[typed.world]())
        return
    if "--ckpt_path" in flags:  # of a run that was not played here: its config stands for it
        at = flags.index("--ckpt_path")
        flags[at : at + 2] = ["--config", "configs/tiny_lsp.yaml"]
    flags = [flag for flag in flags if flag != "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main([command, *flags, "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err


def test_every_command_is_shown():
    shown = {line.split()[1] for line in OURS}
    assert shown == set(COMMANDS)


def test_every_make_target_is_in_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    shown = {line.split()[1] for line in SHELL if line.startswith("make ")}
    assert shown
    assert shown <= set(targets)


def test_every_module_that_a_shell_line_or_a_page_runs_exists():
    texts = [page.read_text("utf-8") for page in PAGES]
    modules = {name for text in texts for name in re.findall(r"python -m ([\w.]+)", text)}
    assert modules
    assert {m for m in modules if not (ROOT / f"{m.replace('.', '/')}.py").is_file()} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_it_names_exists(page):
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", page.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_inside_of_the_repository_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_name_of_the_package_exists(page):
    import lsp_lightning

    names = re.findall(r"lsp_lightning\.([A-Z]\w+)", page.read_text("utf-8"))
    assert set(names) <= set(lsp_lightning.__all__)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_key_it_names_exists(page):
    from lightning.pytorch import Trainer

    from lsp_lightning import SelfPlayDataModule, SelfPlayModule

    owners = {"model": SelfPlayModule, "data": SelfPlayDataModule, "trainer": Trainer}
    keys = re.findall(r"`(model|data|trainer)\.(\w+)", page.read_text("utf-8"))
    assert [f"{o}.{k}" for o, k in keys if k not in signature(owners[o]).parameters] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_nothing_is_left_to_fill_in(page):
    assert not re.search(r"PLACEHOLDER|TODO|[A-Z]+_OUTPUT|TABLE_", page.read_text("utf-8"))


@pytest.fixture
def beside(tmp_path, monkeypatch, untouched_process):
    """The folder where a reader of a page works, with the files that its Python blocks are."""

    def write(page: Path) -> None:
        for block in blocks_of(page, "python"):
            if name := FILE_NAME.match(block.text):
                (tmp_path / f"{name[1]}.py").write_text(block.text, encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield write
    for name in {path.stem for path in tmp_path.glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks_of(p, "python")], ids=named)
def test_its_python_runs(page, beside):
    beside(page)
    names: dict[str, object] = {}
    for block in blocks_of(page, "python"):
        code = compile(block.text, named(page), "exec")
        if '"runs/' not in block.text:  # of a run that was not played here
            exec(code, names)  # our own page, not a model's text


@pytest.mark.parametrize("block", YAML, ids=str)
def test_its_yaml_lies_over_a_preset(block, beside, tmp_path, capsys):
    beside(block.page)
    (tmp_path / "overlay.yaml").write_text(block.text, encoding="utf-8")
    preset = ROOT / "configs/tiny_lsp.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(preset), "--config", "overlay.yaml", "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err
    printed = capsys.readouterr().out
    for name in re.findall(r"(?:class_path|function|verifier): ([\w.]+)", block.text):
        assert name.split(".")[-1] in printed


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 150


def test_the_readme_leads_to_every_page():
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)}
    assert {named(page) for page in PAGES} - {"README.md"} <= linked


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=named)
def test_a_page_opens_with_what_its_reader_can_do_afterwards(page):
    first = page.read_text("utf-8").split("\n\n")[1]
    assert first.startswith("After this page you "), first


def test_figures_of_the_readme_are_those_of_the_pages():
    figures = re.findall(r"\d\.\d+ \[\d\.\d+, \d\.\d+\]", README)
    assert figures
    assert {figure for figure in figures if figure not in RESULTS} == set()
    rows = re.findall(r"^\|.*`(configs/gpu\w[\w.]*)`.*\| ([\d.]+) \|$", README, flags=re.MULTILINE)
    assert rows
    for preset, gib in rows:
        (row,) = [line for line in REAL_MODELS.splitlines() if preset in line and line[0] == "|"]
        assert f"| {gib} |" in row


def test_the_families_of_models_are_counted():
    from architectures import ARCHITECTURES

    speed = (ROOT / "docs/speed.md").read_text("utf-8")
    assert f"Of the {len(ARCHITECTURES)} families" in speed


def test_the_arms_of_the_page_are_those_that_are_played():
    page = (ROOT / "docs/reproduce.md").read_text("utf-8")
    for arm in tiny_world().arms:
        name, other = f"`{arm.name}`", arm.changes or arm.control
        cells = [name, arm.label, arm.about, f"`{other}`" if other else "-"]
        assert f"| {' | '.join(cells)} |" in page


def test_its_error_message_is_the_one_printed(capsys, monkeypatch, untouched_process):
    monkeypatch.chdir(ROOT)
    assert main(["fit", "--config", "configs/tiny_lsp.yaml", "--model.betta", "1"]) == 2
    assert capsys.readouterr().err.strip() in (ROOT / "docs/quickstart.md").read_text("utf-8")


def test_rewards_of_the_pages_score_what_they_say(beside):
    beside(ROOT / "docs/rewards.md")
    from my_rewards import short
    from my_rewards_class import Short

    ten, eleven = " ".join("x" * 10), " ".join("x" * 11)
    assert short("q", (ten, eleven), None) == [1.0, 0.0]
    assert Short().score(playout(["q"], [[ten, eleven]])).tolist() == [[1.0, 0.0]]


def test_the_objective_of_its_page_is_short_and_pays_what_it_says(beside):
    beside(ROOT / "docs/objectives.md")
    from my_objectives import Target

    (block,) = blocks_of(ROOT / "docs/objectives.md", "python")
    assert len(block.text.splitlines()) <= 20
    paid = Target(rate=0.5).challenger_rewards(scored_round([[1.0, 0.0], [1.0, 1.0]]))
    assert paid.tolist() == [1.0, 0.5]


def test_sources_of_queries_repeat_a_round(beside, tiny_policy):
    from lsp_lightning import Player, Sampling

    beside(ROOT / "docs/queries.md")
    from my_queries import Sums
    from my_themes import Themes

    player = Player.local(tiny_policy)
    for source in (Sums(), Themes(["a", "b"], Sampling(max_new_tokens=5))):
        once, again, other = (source.draw(player, 3, index, 7) for index in (0, 0, 1))
        assert len(once.texts) == 3
        assert once.texts == again.texts
        assert once.texts != other.texts
    assert all(eval(t.removesuffix(" = ?")) == int(s) for t, s in zip(*_sums(Sums()), strict=True))


def test_themes_take_turns_also_if_a_pool_takes_some_places(beside, tiny_policy):
    from lsp_lightning import Player, Sampling

    beside(ROOT / "docs/queries.md")
    from my_themes import Themes

    player, names = Player.local(tiny_policy), ["owls", "bees", "cats", "dogs"]
    source, seen = Themes(names, Sampling(max_new_tokens=2)), []
    for index, count in enumerate([4, 2, 4, 2]):
        rollouts = source.draw(player, count, index, 0).written.rollouts
        prompts = map(player.codec.decode, rollouts.prompt_ids.tolist())
        seen += [name for prompt in prompts for name in names if name in prompt]
    assert sorted(seen) == sorted(names * 3)


def _sums(source) -> tuple[tuple[str, ...], tuple[object, ...]]:
    drawn = source.draw(None, 4, 0, 0)
    return drawn.texts, drawn.solutions


def test_the_tree_of_contributing_has_every_room_on_its_floor():
    from test_floors import FLOORS

    (tree,) = (block.text for block in blocks_of(ROOT / "CONTRIBUTING.md", ""))
    shown = {
        name.removesuffix(".py"): int(floor)
        for name, floor in re.findall(r"^  ([\w.]+?)/? +(\d+)  ", tree, flags=re.MULTILINE)
    }
    package = {path.stem for path in (ROOT / "lsp_lightning").iterdir()}
    rooms = package - {"__init__", "__main__", "py", "data", "__pycache__"}
    assert shown == {room: FLOORS[room] for room in rooms}
    outside = re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE)
    assert outside
    assert all((ROOT / folder).is_dir() for folder in outside)
