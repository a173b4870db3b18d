"""W&B and other loggers: settings in the run, files in its folder, one run for all resumes."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from lightning.pytorch.loggers import wandb as lightning_wandb
from test_cli import fit_args

from lsp_lightning.cli import loggers
from lsp_lightning.cli.main import main

pytestmark = pytest.mark.usefixtures("untouched_process")


class Run:
    """A run at W&B that notes what it is given."""

    def __init__(self, settings):
        self.settings, self.id, self.rows = settings, settings["id"], []
        self.seen = {}
        self.config = SimpleNamespace(update=lambda params, **_: self.seen.update(params))
        self.name = settings["name"]

    def log(self, row, **_):
        self.rows.append(row)

    def define_metric(self, *args, **kwargs):
        pass

    def watch(self, *args, **kwargs):
        pass


@pytest.fixture
def runs(monkeypatch):
    """A package ``wandb`` that only notes; all runs that were started with it."""
    started = []

    def init(**settings):
        started.append(Run(settings))
        return started[-1]

    parts = {
        "wandb": {"init": init, "run": None, "require": lambda *_: None},
        "wandb.sdk": {},
        "wandb.sdk.lib": {"RunDisabled": Run},
        "wandb.wandb_run": {"Run": Run},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", True)
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    return started


def test_the_short_name_does_all_and_a_resume_is_the_same_run(runs, tmp_path):
    folder = tmp_path / "run"
    args = fit_args(folder, "null", "--data.test", "null", "--trainer.logger", "wandb")
    assert main(args) == 0
    [first] = runs
    assert first.settings["dir"] == str(folder)
    assert first.settings["resume"] == "allow"
    assert (first.settings["project"], first.name) == ("lsp-lightning", "run")
    assert first.seen["data"]["num_queries"] == 3
    assert first.seen["model"]["optimizer"]["init_args"]["lr"] == 1e-3
    assert any("learning_rate" in row for row in first.rows)
    assert (folder / "wandb_id").read_text().strip() == first.id
    # the saved config can start another run: it does not name this one
    saved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["logger"]
    assert saved["init_args"]["id"] is None
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    assert main(["fit", "--ckpt_path", checkpoint, "--trainer.max_steps", "3"]) == 0
    assert [run.id for run in runs] == [first.id, first.id]


@pytest.mark.parametrize("name", ["WandbLogger", "TensorBoardLogger"])
def test_a_package_that_is_missing_is_one_line_and_no_folder(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    more = ["--trainer.logger", f"lightning.pytorch.loggers.{name}"]
    if name == "TensorBoardLogger":
        more += ["--trainer.logger.save_dir", str(tmp_path)]
    assert main(fit_args(tmp_path / "run", "null", *more)) == 2
    [line] = [x for x in capfd.readouterr().err.splitlines() if x.startswith("error")]
    assert line.startswith(f"error: trainer.logger: {name} needs the package ")
    assert "pip install" in line
    assert not (tmp_path / "run").exists()
