"""The command line: LightningCLI with one-line errors and a fresh folder for each run."""

import argparse
import atexit
import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lsp_lightning.callbacks import (
    RoundCheckpoint,
    RoundProgress,
    RunCurves,
    RunSummary,
    RunTable,
    Transcripts,
)
from lsp_lightning.cli.commands import SelfPlayTrainer
from lsp_lightning.cli.messages import hidden_config_error
from lsp_lightning.cli.parser import Parser
from lsp_lightning.cli.threads import default_threads
from lsp_lightning.datamodule import SelfPlayDataModule, check_precision
from lsp_lightning.errors import ConfigError, OutOfMemory
from lsp_lightning.generation import EngineError
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.planning import check_model
from lsp_lightning.rewards import RewardError
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.runtime.workers import WorkersError
from lsp_lightning.sandbox import SandboxError

_DEFAULTS: dict[str, Any] = {
    "max_epochs": 1,  # the stream is one epoch of max_steps rounds
    "num_sanity_val_steps": -1,  # all of the held-out tasks, before the first round
    "log_every_n_steps": 1,
    "devices": 1,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "default_root_dir": "runs/lsp",
}

_CLAIM = ".claimed"
_TERMINATED = 143  # what a shell reports of a process ended by SIGTERM
# the module's own default, spelled so that a printed config can be read again
_OPTIMIZER: dict[str, Any] = {
    "class_path": "torch.optim.AdamW",
    "init_args": {"lr": 1e-5, "betas": [0.9, 0.95], "weight_decay": 0.0},
}


class SaveRunConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder once the run has really begun.

    Not before: a checkpoint that is refused must leave the folder as it was.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config without its checkpoint, so that it is the recipe of a new run."""
        if trainer.is_global_zero:
            config = self.config.clone()
            config["ckpt_path"] = None
            path = Path(trainer.default_root_dir) / "config.yaml"
            self.parser.save(config, path, skip_none=False, overwrite=True, multifile=False)


class SelfPlayCLI(LightningCLI):
    """Lightning's own commands and those of :mod:`lsp_lightning.cli.app.commands`."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, each with the arguments that are no flags of its own."""
        shared = {"model", "datamodule"}
        own = dict.fromkeys(("plan", "export", "chat"), shared)
        return {**LightningCLI.subcommands(), **own}

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            SelfPlayModule,
            SelfPlayDataModule,
            trainer_class=SelfPlayTrainer,
            parser_class=Parser,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=dict(_DEFAULTS),
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "lsp-lightning"},
            args=list(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's own callbacks, each with its key."""
        parser.add_lightning_class_args(RoundCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Transcripts, "transcripts")
        parser.set_defaults({"model.optimizer": _OPTIMIZER})

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Let every command take a run's config.yaml, which has keys of ``fit``."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        known = {action.dest for action in parser._actions}
        for key in {"ckpt_path", "weights_only"} - known:
            parser.add_argument(f"--{key}", default=None, help=argparse.SUPPRESS)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's settings do not go over what was typed."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder and fit the validation interval into short runs."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if self.subcommand in ("plan", "export", "chat"):  # not tied to the machine of the run
            config.trainer.accelerator = "auto"
        _check_trainer(config.trainer)
        if self.subcommand == "fit":
            wanted = Path(config.trainer.default_root_dir or _DEFAULTS["default_root_dir"])
            folder = claim_run_folder(wanted, config.get("ckpt_path"))
            config.trainer.default_root_dir = str(folder)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the run's table, curves, progress and summary."""
        assert self.subcommand is not None
        config = self.config[self.subcommand].trainer
        folder = config.default_root_dir
        fitting = self.subcommand == "fit"
        asked = self._get(self.config_init, "trainer")
        own = [RunCurves(folder)] if config.logger in (None, True) else _as_list(asked.logger or [])
        kwargs["logger"] = [RunTable(folder), *own] if fitting else False
        interval, rounds = config.val_check_interval, config.max_steps
        if isinstance(interval, int) and interval > rounds > 0:  # a short run of a long preset
            kwargs["val_check_interval"] = rounds
        callbacks = _as_list(asked.callbacks or [])
        if config.enable_progress_bar is not False:
            callbacks.append(RoundProgress())
        if fitting:
            callbacks.append(RunSummary())
        return super().instantiate_trainer(**kwargs, callbacks=callbacks)

    def before_fit(self) -> None:
        """Ask for the rounds and the context before a model is loaded and a file written."""
        self.datamodule.check_rounds(self.trainer)
        check_model(self.model, self.datamodule)

    def before_test(self) -> None:
        """Ask for the tasks before a model is loaded."""
        self.datamodule.test_dataloader()

    def before_predict(self) -> None:
        """Ask for the queries before a model is loaded."""
        self.datamodule.predict_dataloader()

    def after_test(self) -> None:
        """Print the result of the tasks kept for reporting."""
        self._print_scores()

    def after_validate(self) -> None:
        """Print the result of the tasks for choosing settings."""
        self._print_scores()

    def predict(self, model: SelfPlayModule, **kwargs: Any) -> None:
        """Answer the queries and write them as JSON lines."""
        answered = self.trainer.predict(model, **kwargs) or []
        path = Path(self.trainer.default_root_dir) / "predictions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in (row for batch in answered for row in batch):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"answers written to {path}")

    def _print_scores(self) -> None:
        scores = {k: float(v) for k, v in self.trainer.callback_metrics.items() if "heldout" in k}
        if not scores:
            print(
                "nothing to score: give data.heldout (or data.test), and a task reward of 0 or 1 "
                "or one that can compare two answers, such as PreferenceReward"
            )
            return
        kind = {"kind": self.model.heldout.kind}
        print(json.dumps({"tasks": int(scores.pop("heldout/tasks")), **kind, **scores}))


def run_command(args: Sequence[str]) -> int:
    """Run one command of the command line. Returns the exit status."""
    _quiet()
    threads = default_threads(torch.get_num_threads())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    try:
        SelfPlayCLI(args)
    except SIGTERMException:  # Lightning's own way out has status 0, which reads as success
        return _TERMINATED
    except RewardError as error:
        cause: BaseException | None = error
        while isinstance(cause, (RewardError, SandboxError, WorkersError, OutOfMemory)):
            cause = cause.__cause__
        if cause is not None:  # a fault in the user's own code: show where
            traceback.print_exception(cause)
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OutOfMemory, EngineError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        hidden = hidden_config_error(error)
        if hidden is None and is_out_of_memory(error):  # of weights or the optimiser: all or none
            told = " ".join(str(error).split())
            print(f"error: out of memory ({told}); ask `plan` what to change", file=sys.stderr)
            return 1
        raise (hidden or error) from None
    return 0


def claim_run_folder(wanted: Path, checkpoint: str | None) -> Path:
    """The folder of this run: ``wanted``, or ``wanted-2``, ``-3`` ... where that is not empty.

    It is claimed at once, so that two runs started together get two folders. A run that resumes
    from a checkpoint inside ``wanted`` goes on there.
    """
    if checkpoint and Path(checkpoint).resolve().is_relative_to(wanted.resolve()):
        return wanted
    folder, number = wanted, 1
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            with contextlib.suppress(FileExistsError):
                (folder / _CLAIM).touch(exist_ok=False)
                atexit.register(_give_up_claim, folder)
                return folder
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")


def _give_up_claim(folder: Path) -> None:
    """Take the claim away; a run that never began leaves no folder behind."""
    (folder / _CLAIM).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_trainer(trainer: Any) -> None:
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator",
            f"is {trainer.accelerator}, and torch {torch.__version__} finds no GPU",
            "mend the driver, install a CUDA build of torch, or set cpu",
        )
    check_precision(trainer.precision)
    if trainer.get("enable_checkpointing") is False:
        raise ConfigError(
            "trainer.enable_checkpointing",
            "is false, and a run could not be gone on with",
            "leave it out; checkpoint.every says how often",
        )
    if trainer.get("accumulate_grad_batches", 1) != 1 or trainer.get("gradient_clip_val"):
        raise ConfigError(
            "trainer.accumulate_grad_batches and trainer.gradient_clip_val",
            "do nothing here",
            "use model.micro_batch_tokens and model.max_grad_norm",
        )


def _quiet() -> None:
    """Nothing on the screen but what the user can use."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|transformers|peft)\..*")
