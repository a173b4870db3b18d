"""`make real`: the size that it chooses, and what it shows at its end."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import real
from lsp_lightning.cli import threads as cli_threads
from lsp_lightning.models import precision


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that it runs; `fit` ends as finished unless a test changes ``status``."""

    class Commands(list):
        status = 0
        folder = tmp_path / "laptop"

        def run(self, words):
            self.append(words)
            if words[0] == "fit" and not self.status:
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / "summary.json").write_text(json.dumps({}))
            return self.status

    made = Commands()
    monkeypatch.setattr(real, "lsp_lightning", made.run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored afterwards, as the next one
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return made


@pytest.mark.parametrize(
    ("fast", "configs"), [(True, [real.PRESET]), (False, [real.PRESET, real.SLOWER])]
)
def test_the_size_follows_from_the_processors_flags(fast, configs, commands, monkeypatch, capsys):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: fast)
    place = f"--trainer.default_root_dir={commands.folder}"
    assert real.main([place]) == 0
    flags = [word for config in configs for word in ("--config", config)]
    assert commands == [["fit", *flags, place], ["show", str(commands.folder), "--compare", "3"]]
    assert capsys.readouterr().out.startswith("this CPU has ")


def test_the_run_that_was_played_is_shown_and_not_an_earlier_one(commands):
    for earlier in ("laptop", "laptop-old"):
        (commands.folder.parent / earlier).mkdir()
        (commands.folder.parent / earlier / "summary.json").write_text("{}")
    given = commands.folder
    commands.folder = given.with_name("laptop-2")  # fit adds a number to a folder in use
    assert real.main(["--trainer.default_root_dir", str(given)]) == 0
    assert commands[-1] == ["show", str(commands.folder), "--compare", "3"]


def test_a_run_that_failed_is_not_shown(commands, capsys):
    commands.status = 2
    assert real.main(["--trainer.default_root_dir", str(commands.folder)]) == 2
    assert [words[0] for words in commands] == ["fit"]
    assert "make real" not in capsys.readouterr().out


def test_a_run_that_was_stopped_says_how_to_go_on(commands, monkeypatch, capsys):
    def stopped(words):
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        return 130

    checkpoint = commands.folder / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(real, "lsp_lightning", stopped)
    assert real.main(["--trainer.default-root-dir", str(commands.folder)]) == 130
    assert f"make real ARGS='--ckpt_path {checkpoint}'" in capsys.readouterr().out


@pytest.mark.parametrize(("cores", "threads"), [(1, "1"), (2, "1"), (3, "3"), (64, "4")])
def test_it_takes_one_thread_on_two_cpus_and_at_most_four(cores, threads, commands, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli_threads, "usable_cores", lambda: cores)
    monkeypatch.setattr(cli_threads, "cgroup_cpus", lambda: None)
    monkeypatch.setattr(real, "usable_cores", lambda: cores)
    assert real.main(["--trainer.default_root_dir", str(commands.folder)]) == 0
    assert os.environ["OMP_NUM_THREADS"] == threads


def test_threads_that_wait_sleep():
    """OpenMP reads this when torch is imported, which choosing a size does."""
    code = (
        "import os; from benchmarks import real; real.lsp_lightning = lambda words: "
        "print(os.environ['OMP_WAIT_POLICY']) or 2; real.main([])"
    )
    environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[-1] == "PASSIVE"


def test_a_resumed_run_keeps_its_size_and_is_shown(commands, capsys):
    commands.folder.mkdir()
    summary = commands.folder / "summary.json"
    summary.write_text("{}")
    os.utime(summary, (0, 0))
    resume = ["--ckpt_path", str(commands.folder / "checkpoints" / "last.ckpt")]
    assert real.main(resume) == 0
    assert commands == [["fit", *resume], ["show", str(commands.folder), "--compare", "3"]]
    assert not capsys.readouterr().out.startswith("this CPU has ")
