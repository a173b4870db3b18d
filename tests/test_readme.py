"""What the README shows is there and works: its commands, targets, configs and code."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from handmade import playout

from lsp_lightning.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SHELL = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    if line.strip()
]
OURS = [line for line in SHELL if line.startswith("lsp-lightning")]


def test_every_shell_line_is_of_a_kind_that_is_checked_here():
    kinds = ("lsp-lightning ", "make ", "source .venv/bin/activate", "python -m ")
    assert SHELL
    assert [line for line in SHELL if not line.startswith(kinds)] == []


@pytest.mark.parametrize("line", OURS)
def test_a_command_names_existing_keys_and_configs(line, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command, *flags = shlex.split(line)[1:]
    assert command in COMMANDS
    if "--help" in flags:
        return
    if "--ckpt_path" in flags:  # of a run that was not played here: its config stands for it
        at = flags.index("--ckpt_path")
        flags[at : at + 2] = ["--config", "configs/tiny_lsp.yaml"]
    flags = [flag for flag in flags if flag != "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main([command, *flags, "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err


def test_every_make_target_is_in_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = {line.split()[1] for line in SHELL if line.startswith("make ")}
    assert named
    assert named <= set(targets)


def test_every_path_it_names_exists():
    paths = re.findall(r"`((?:configs|tests|notebooks|benchmarks)/[\w./]+)`", README)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_nothing_is_left_to_fill_in():
    assert "PLACEHOLDER" not in README


def test_every_file_of_its_tree_exists_and_no_module_is_left_out():
    tree = next(
        text
        for kind, text in re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
        if "lsp_lightning/\n" in text
    )
    shown = set(re.findall(r"^  (?:[\w.]+, )?([\w/.]+?)/? {2,}", tree, flags=re.MULTILINE))
    package = {p.name for p in (ROOT / "lsp_lightning").iterdir()}
    assert shown
    assert {name for name in shown if name not in package} == set()
    named = {
        name for line in tree.splitlines() for name in re.findall(r"[\w.]+\.py|\w+(?=/)", line)
    }
    hidden = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert package - named - hidden == set()


def test_its_reward_works_as_written():
    code = next(text for kind, text in BLOCKS if kind == "python")
    names: dict[str, object] = {}
    exec(code, names)  # our own README, not a model's text
    reward = names["Short"]()
    played = playout(["q"], [["a b", " ".join("x" * 11)]])
    assert torch.equal(reward.score(played), torch.tensor([[1.0, 0.0]]))


def test_its_error_message_is_the_one_printed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["fit", "--config", "configs/tiny_lsp.yaml", "--model.betta", "1"]) == 2
    assert capsys.readouterr().err.strip() in README
