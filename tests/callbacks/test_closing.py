"""The lines at the end of a run name commands that a shell can run as they stand."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lsp_lightning.callbacks import closing
from lsp_lightning.runs import RunFolder

SCRIPT = Path(sys.executable).with_name("lsp-lightning")


@pytest.fixture
def run(tmp_path):
    """A run's folder with a space and a quote in its path."""
    folder = RunFolder(tmp_path / "a run's")
    folder.checkpoint_path.parent.mkdir(parents=True)
    for path in (folder.checkpoint_path, folder.config_path):
        path.touch()
    return folder


def started_as(monkeypatch, argv0, path=()):
    monkeypatch.setattr(sys, "argv", [str(argv0)])
    monkeypatch.setenv("PATH", ":".join([*map(str, path), "/usr/bin", "/bin"]))


@pytest.mark.parametrize(
    ("argv0", "path", "expected"),
    [
        (SCRIPT, [SCRIPT.parent], "lsp-lightning"),
        (SCRIPT, [], str(SCRIPT)),
        ("/x/lsp_lightning/__main__.py", [SCRIPT.parent], "python -m lsp_lightning"),
        ("/x/lsp_lightning/__main__.py", [], f"{sys.executable} -m lsp_lightning"),
        ("a_notebook.py", [], str(SCRIPT)),
    ],
)
def test_a_command_is_named_as_a_shell_finds_it(monkeypatch, argv0, path, expected):
    started_as(monkeypatch, argv0, path)
    command = closing.command_line()
    assert command == shlex.quote(expected) or command == expected
    done = subprocess.run(f"{command} --version", shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("lsp-lightning"), done.stderr


def test_another_environments_program_on_the_path_is_not_named(monkeypatch, tmp_path):
    other = tmp_path / "lsp-lightning"
    other.write_text("#!/bin/sh\necho other\n")
    other.chmod(0o755)
    started_as(monkeypatch, SCRIPT, [tmp_path])
    assert closing.command_line() == str(SCRIPT)


def test_a_path_as_it_was_typed_stays(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lsp-lightning").symlink_to(SCRIPT)
    monkeypatch.chdir(tmp_path)
    started_as(monkeypatch, "bin/lsp-lightning")
    assert closing.command_line() == "bin/lsp-lightning"


def test_the_next_command_exists_and_its_path_is_one_word(run):
    for can_test, command in ((True, "test"), (False, "chat")):
        words = shlex.split(closing.next_line(run, can_test).removeprefix("next: "))
        assert words[-3:] == [command, "--ckpt_path", str(run.checkpoint_path)]
    assert shlex.split(closing.resume_line(run.checkpoint_path))[-1] == str(run.checkpoint_path)


def test_nothing_comes_next_without_a_checkpoint_or_a_config(run):
    run.config_path.unlink()
    assert closing.next_line(run, True) is None


def test_curves_are_named_if_there_are_events_and_a_tensorboard(run, monkeypatch):
    assert closing.curves_line(run) is None
    (run.path / "events.out.tfevents.1").touch()
    words = shlex.split(closing.curves_line(run).removeprefix("curves: "))
    assert words[-2:] == ["--logdir", str(run.path)]
    monkeypatch.setattr(closing, "find_spec", lambda name: None)
    assert closing.curves_line(run) is None


@pytest.mark.parametrize("installed", [True, False])
def test_the_tensorboard_that_is_named_is_this_pythons(run, monkeypatch, installed):
    (run.path / "events.out.tfevents.1").touch()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if not installed:
        monkeypatch.setattr(closing, "_script_of_this_python", lambda name: None)
    command = closing.curves_line(run).removeprefix("curves: ").partition(" --logdir")[0]
    expected = [str(Path(sys.executable).with_name("tensorboard"))]
    assert shlex.split(command) == (
        expected if installed else [sys.executable, "-m", "tensorboard.main"]
    )


def test_a_score_that_could_not_be_judged_is_not_a_percentage():
    nan = float("nan")
    before = {"sampled": 0.5, "greedy": nan, "n": 4, "kind": "solved"}
    after = {"sampled": nan, "greedy": 0.25, "n": 4, "kind": "solved"}
    line = closing.heldout_line("sampled", before, after, "the base")
    assert line.endswith("answers: 50.0% -> not judged  (4 tasks)")
    means = [{**scores, "kind": "mean"} for scores in (before, after)]
    assert "not judged -> 0.250" in closing.heldout_line("greedy", *means, "the base")
    assert closing.without_nan({"a": {"b": nan, "c": 1}}) == {"a": {"b": None, "c": 1}}
