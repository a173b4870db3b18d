"""`make real`: the size that it chooses, and what it shows at its end."""

import json
import os

import pytest

from benchmarks import real
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
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
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


def test_a_run_that_failed_is_not_shown(commands):
    commands.status = 2
    assert real.main(["--trainer.default_root_dir", str(commands.folder)]) == 2
    assert [words[0] for words in commands] == ["fit"]


def test_a_resumed_run_keeps_its_size_and_is_shown(commands, capsys):
    commands.folder.mkdir()
    summary = commands.folder / "summary.json"
    summary.write_text("{}")
    os.utime(summary, (0, 0))
    resume = ["--ckpt_path", str(commands.folder / "checkpoints" / "last.ckpt")]
    assert real.main(resume) == 0
    assert commands == [["fit", *resume], ["show", str(commands.folder), "--compare", "3"]]
    assert not capsys.readouterr().out.startswith("this CPU has ")
