"""A run's folder from a stranger runs no code: its config names none, its checkpoint is data."""

import functools
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

from lsp_lightning.callbacks import RunSummary
from lsp_lightning.callbacks.closing import next_line, resume_line
from lsp_lightning.cli import app
from lsp_lightning.cli.main import main
from lsp_lightning.cli.trust import needs_trust
from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "tiny_lsp.yaml"
COMMANDS = ("fit", "pilot", "validate", "test", "predict", "plan", "export", "chat")

pytestmark = pytest.mark.usefixtures("untouched_process")


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Outer:
    class Inner:
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A stranger's run in the working directory, beside a module that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    (tmp_path / "evil_module.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w')\n"
        "from lsp_lightning import Learnability as Objective\n"
        "def score(query, answers, solution):\n    return [0.0 for _ in answers]\n"
    )
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {}, "lsp_lightning": {}}, run / "checkpoints" / "last.ckpt")
    shutil.copy(TINY, run / "config.yaml")
    return run


def stranger_writes(run, **changes):
    """Set keys of the run's config, with ``__`` between their parts."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *groups, last = key.split("__")
        inner = config
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    path.write_text(yaml.safe_dump(config))


def command(name, run, *more):
    return [name, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), *more]


def status(args):
    try:
        return main(args)
    except SystemExit as stop:
        return stop.code or 0


def refused(args, capfd, *words):
    assert status(args) == 2
    shown = capfd.readouterr().err
    assert len(shown.splitlines()) == 1, shown
    for word in words:
        assert word in shown
    assert not Path("imported").exists()


def function(path):
    """A reward that calls a function."""
    return [{"class_path": "lsp_lightning.FunctionReward", "init_args": {"function": path}}]


CODE = {
    "a module here": ({"model__objective": "evil_module.Objective"}, "evil_module.Objective"),
    "a class_path": ({"model__objective": {"class_path": "evil_module.Objective"}}, "evil_module"),
    "a function": ({"model__rewards": function("evil_module.score")}, "evil_module.score"),
    "the standard library": ({"model__rewards": function("shutil.rmtree")}, "shutil.rmtree"),
    "a function of torch": ({"model__rewards": function("torch.hub.load")}, "torch.hub.load"),
    "a function of this package": (
        {"model__rewards": function("lsp_lightning.cli.main.main")},
        "lsp_lightning.cli.main.main",
    ),
    "through a module of this package": (
        {"model__rewards": function("lsp_lightning.cli.main.os.system")},
        "lsp_lightning.cli.main.os.system",
    ),
    "through an allowed module": (
        {"model__rewards": function("torch.optim.optimizer.functools.partial")},
        "functools.partial",
    ),
    "an optimizer": ({"model__optimizer": {"class_path": "evil_module.Adam"}}, "evil_module.Adam"),
    "a schedule": ({"model__lr_scheduler": {"class_path": "evil_module.Rate"}}, "evil_module.Rate"),
    "a function in a schedule": (
        {
            "model__lr_scheduler": {
                "class_path": "torch.optim.lr_scheduler.LambdaLR",
                "init_args": {"lr_lambda": "evil_module.score"},
            }
        },
        "evil_module.score",
    ),
    "a callback": ({"trainer__callbacks": [{"class_path": "evil_module.Call"}]}, "evil_module"),
    "a function in a callback": (
        {
            "trainer__callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                    "init_args": {"setup": "evil_module.score"},
                }
            ]
        },
        "evil_module.score",
    ),
    "a logger": ({"trainer__logger": {"class_path": "evil_module.Log"}}, "evil_module.Log"),
    "queries": ({"data__queries": {"class_path": "evil_module.Queries"}}, "evil_module.Queries"),
    "rollouts": ({"model__rollouts": {"class_path": "evil_module.Served"}}, "evil_module.Served"),
    "a verifier": (
        {
            "model__rewards": [
                {
                    "class_path": "lsp_lightning.VerifiableReward",
                    "init_args": {"verifier": "evil_module.Verifier"},
                }
            ]
        },
        "evil_module.Verifier",
    ),
    "a value of any kind": (
        {"model__chat_template_kwargs": {"x": {"class_path": "evil_module.Objective"}}},
        "",
    ),
    "a plugin": ({"trainer__plugins": [{"class_path": "evil_module.Plug"}]}, "evil_module.Plug"),
}


def some(cases, *fast):
    """All cases, of which only the named ones are fast: each parses a whole config."""
    return [pytest.param(c, marks=[] if c in fast else pytest.mark.slow) for c in cases]


@pytest.mark.parametrize(
    "attack",
    some(CODE, "a function", "a function of this package", "a logger", "a value of any kind"),
)
def test_a_folders_config_runs_no_code(attack, folder, capfd, no_model):
    changes, named = CODE[attack]
    stranger_writes(folder, **changes)
    code = status(command("plan", folder, "--print_config"))
    shown = capfd.readouterr().err
    assert not Path("imported").exists()
    if attack == "a value of any kind":  # stays a mapping
        return
    assert code == 2
    assert len(shown.splitlines()) == 1, shown
    assert named in shown
    assert "the run's config names code from outside this package" in shown
    assert "--trust" in shown


@pytest.mark.parametrize("name", some(COMMANDS, "fit", "chat"))
def test_every_command_refuses_it(name, folder, capfd, no_model):
    stranger_writes(folder, model__objective="evil_module.Objective")
    refused(command(name, folder), capfd, "model.objective", "evil_module.Objective", "--trust")


def test_another_file_that_the_config_names_is_not_trusted_either(folder, capfd, no_model):
    (folder / "more.yaml").write_text("class_path: evil_module.Objective\n")
    stranger_writes(folder, model__objective="./more.yaml")
    refused(command("plan", folder), capfd, "evil_module.Objective")


def test_what_the_user_vouches_for_is_imported(folder, capfd):
    stranger_writes(folder, model__objective="evil_module.Objective")
    config = str(folder / "config.yaml")
    for more in (["--trust"], ["--config", config], ["--model.objective", "evil_module.Objective"]):
        sys.modules.pop("evil_module", None)
        Path("imported").unlink(missing_ok=True)
        assert status(command("plan", folder, *more, "--print_config")) == 0
        assert "evil_module.Objective" in capfd.readouterr().out
        assert Path("imported").exists()


def test_a_typed_class_that_is_defined_elsewhere_is_imported(folder, capfd):
    json = '{"class_path": "evil_module.Objective"}'
    assert status(command("plan", folder, f"--model.objective={json}", "--print_config")) == 0
    assert "evil_module.Objective" in capfd.readouterr().out


def test_the_folders_name_is_not_what_the_user_typed(folder, capfd, no_model):
    named = folder.rename(folder.with_name("evil_module.Objective"))
    stranger_writes(named, model__objective="evil_module.Objective")
    refused(command("plan", named), capfd, "--trust")


def test_trust_is_no_key_of_a_config(folder, capfd, no_model):
    stranger_writes(folder, model__objective="evil_module.Objective", trust=True)
    assert status(command("plan", folder)) == 2
    assert not Path("imported").exists()
    capfd.readouterr()
    refused(command("plan", folder, "--trust=false"), capfd, "--trust: has a value")


HARMLESS = {
    "bitsandbytes": {"model__optimizer": {"class_path": "bitsandbytes.optim.AdamW8bit"}},
    "a schedule": {
        "model__lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.StepLR",
            "init_args": {"step_size": 3},
        }
    },
    "callbacks": {
        "trainer__callbacks": [
            {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
            {"class_path": "EarlyStopping", "init_args": {"monitor": "heldout/greedy"}},
        ]
    },
    "a logger": {
        "trainer__logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": "csv"},
        }
    },
    "classes of this package": {
        "model__objective": {"class_path": "lsp_lightning.game.objectives.Paper"},
        "model__rewards": [
            {
                "class_path": "lsp_lightning.rewards.VerifiableReward",
                "init_args": {
                    "verifier": {"class_path": "lsp_lightning.rewards.verifiers.MathVerifier"}
                },
            },
            {"class_path": "lsp_lightning.rewards.NoveltyReward"},
        ],
        "data__queries": {"class_path": "lsp_lightning.game.challenger.Challenger"},
        "model__rollouts": {"class_path": "lsp_lightning.generation.settings.LocalRollouts"},
    },
}


@pytest.mark.parametrize("case", some(HARMLESS, "classes of this package"))
def test_a_config_of_known_classes_needs_no_trust(case, folder, capfd):
    stranger_writes(folder, **HARMLESS[case])
    assert status(command("plan", folder, "--print_config")) == 0
    printed = capfd.readouterr().out
    # what is printed is taken as well
    (folder / "config.yaml").write_text(printed)
    assert status(command("plan", folder, "--print_config")) == 0
    assert capfd.readouterr().out == printed


JUDGE = {"class_path": "lsp_lightning.JudgeReward", "init_args": {"model": "judge"}}


def judge(**more):
    return [{**JUDGE, "init_args": {**JUDGE["init_args"], **more}}]


REACHES_OUT = {
    "another machine": (
        {"model__rewards": judge(url="http://evil.example/v1")},
        "model.rewards[0].init_args.url",
    ),
    "a key of the user": (
        {"model__rewards": judge(url="http://localhost:1/v1", client={"api_key_env": "HOME"})},
        "api_key_env",
    ),
    "a logger that writes elsewhere": (
        {"trainer__logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "/elsewhere"}}},
        "trainer.logger.init_args.save_dir",
    ),
    "a logger that writes above": (
        {"trainer__logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "a/../.."}}},
        "trainer.logger.init_args.save_dir",
    ),
    "checkpoints elsewhere": (
        {"trainer__callbacks": {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "~/x"}}},
        "dirpath",
    ),
}


@pytest.mark.parametrize("case", some(REACHES_OUT, "another machine", "checkpoints elsewhere"))
def test_a_folders_config_reaches_nothing_outside(case, folder, capfd, no_model):
    changes, key = REACHES_OUT[case]
    stranger_writes(folder, **changes)
    refused(command("plan", folder), capfd, key, "the run's config", "--trust")


LINKS = ("summary.json", "last.ckpt.partial", "checkpoints/last.ckpt.partial", "transcripts")


@pytest.mark.parametrize("name", some((*LINKS, "a pipe"), "summary.json", "a pipe"))
def test_a_link_in_the_folder_is_not_written_through(name, folder, capfd, no_model):
    target = folder.parent / "profile"
    target.write_text("mine")
    os.mkfifo(folder / name) if name == "a pipe" else (folder / name).symlink_to(target)
    refused(
        command("plan", folder), capfd, f"{name}'", "a link out" if name in LINKS else "", "--trust"
    )
    assert target.read_text() == "mine"


@pytest.mark.slow
def test_a_link_inside_the_folder_is_harmless(folder, capfd):
    (folder / "latest").symlink_to("checkpoints")
    assert status(command("plan", folder)) == 0


def test_an_export_goes_where_the_user_says(folder, capfd, no_model):
    stranger_writes(folder, out="/elsewhere")
    refused(command("export", folder), capfd, "out: ", "/elsewhere")


@pytest.mark.parametrize("name", some(COMMANDS, "fit"))
@pytest.mark.parametrize("where", ["folder", "flag"])
def test_a_pickled_checkpoint_runs_nothing(name, where, folder, capfd, no_model):
    checkpoint = folder / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": {}, "lsp_lightning": Evil(Path("imported").absolute())}, checkpoint)
    more = []
    if where == "folder":
        stranger_writes(folder, weights_only=False)
    else:
        more = ["--weights_only", "false", "--trust"]
    refused(command(name, folder, *more), capfd)


CONTENTS = {
    "empty": b"",
    "text": b"hello\n",
    "safetensors": (ROOT / "lsp_lightning/tinyworld/base/model.safetensors").read_bytes(),
    "pickle": pickle.dumps(Evil(Path("imported").absolute())),
    "cut off": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_no_checkpoint_is_refused(content, folder):
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(CONTENTS[content])
    with pytest.raises(ConfigError, match=r"^ckpt_path: .*is (not a|dam).*; give a run's "):
        read_checkpoint(str(checkpoint))
    assert not Path("imported").exists()


@pytest.mark.parametrize("name", some(COMMANDS, "fit"))
def test_a_file_that_is_no_checkpoint_is_one_line(name, folder, capfd, no_model):
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(CONTENTS["safetensors"])
    refused(command(name, folder), capfd, "ckpt_path: ", "is not a", "checkpoints/last.ckpt")
    checkpoint.unlink()
    checkpoint.mkdir()
    refused(command(name, folder), capfd, "ckpt_path: ", "checkpoints/last.ckpt")
    assert not list(folder.parent.glob("run-2"))


def test_an_error_never_advises_to_load_a_pickle(folder):
    checkpoint = folder / "checkpoints" / "last.ckpt"
    torch.save({"x": Evil(Path("imported").absolute())}, checkpoint)
    with pytest.raises(ConfigError) as error:
        read_checkpoint(str(checkpoint))
    assert "weights_only" not in str(error.value)
    assert not Path("imported").exists()


def parsed(**settings):
    """A config as it is after parsing, in part."""
    return Namespace(trainer=Namespace(default_root_dir="run", callbacks=None), **settings)


def test_a_run_says_whether_its_commands_need_trust(folder, monkeypatch):
    assert not needs_trust(parsed(model={"objective": {"class_path": "lsp_lightning.Paper"}}))
    assert not needs_trust(parsed(data={"heldout": "tasks.jsonl", "queries": "torch.optim.Adam"}))
    assert needs_trust(parsed(model={"rewards": [{"class_path": f"{__name__}.Evil"}]}))
    assert needs_trust(parsed(model={"rewards": function("shutil.rmtree")}))
    assert needs_trust(parsed(model={"rewards": judge(url="https://api.example/v1")}))
    # the parser replaces the path of a function by the function
    assert needs_trust(parsed(model={"rewards": function(status)}))
    assert needs_trust(parsed(model={"rewards": function(functools.partial(status))}))
    assert needs_trust(parsed(model={"objective": {"class_path": f"{__name__}.Outer.Inner"}}))
    assert not needs_trust(parsed(model={"optimizer": torch.optim.AdamW}))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert resume_line(checkpoint, trust=True).endswith(f"--ckpt_path {checkpoint} --trust")
    assert next_line(RunFolder(folder), can_test=True, trust=True).endswith("--trust")
    assert resume_line(checkpoint).endswith(str(checkpoint))


REWARD = (
    '{"class_path": "lsp_lightning.FunctionReward", "init_args": {"function": "evil_module.score"}}'
)


@pytest.mark.parametrize(("more", "expected"), [((), False), (("--model.rewards+", REWARD), True)])
def test_a_parsed_function_of_the_users_needs_trust(more, expected, folder, monkeypatch, no_model):
    found = []
    monkeypatch.setattr(app, "RunSummary", lambda trust: found.append(trust) or RunSummary(trust))
    assert status(["plan", "--config", str(TINY), *more]) == 0
    assert found == [expected]
