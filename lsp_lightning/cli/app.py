"""The command line: LightningCLI with one-line errors and a new folder for each run."""

import argparse
import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lsp_lightning.callbacks import (
    Examples,
    FirstRound,
    RoundCheckpoint,
    RoundProgress,
    RunCurves,
    RunSummary,
    RunTable,
    Transcripts,
)
from lsp_lightning.cli.checks import (
    check_checkpoint,
    check_limit,
    check_seed,
    check_trainer,
    claim_run_folder,
    unusable,
)
from lsp_lightning.cli.commands import SelfPlayTrainer
from lsp_lightning.cli.loggers import check_loggers, prepare_loggers, with_logger_class
from lsp_lightning.cli.messages import hidden_config_error, storage_line
from lsp_lightning.cli.output import INTERRUPTED, complain, show_traceback
from lsp_lightning.cli.parser import Parser
from lsp_lightning.cli.quiet import one_line_warnings, silence_known
from lsp_lightning.cli.results import print_scores, write_predictions
from lsp_lightning.cli.run_config import SaveRunConfig
from lsp_lightning.cli.settings import OPTIMIZER
from lsp_lightning.cli.threads import default_threads
from lsp_lightning.cli.trust import Permissions, needs_trust
from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError, Diverged, OutOfMemory, WriteError, in_one_line
from lsp_lightning.generation import EngineError
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.planning import check_model
from lsp_lightning.rewards import RewardError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.runtime.workers import WorkersError
from lsp_lightning.sandbox import SandboxError
from lsp_lightning.training.resume import check_optimizer

_DEFAULTS: dict[str, Any] = {
    "max_epochs": 1,  # the stream is one epoch of max_steps rounds
    "num_sanity_val_steps": -1,  # all held-out tasks are scored before the first round
    "devices": 1,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "default_root_dir": "runs/lsp",
}

#: The commands that Lightning does not have.
_OWN = ("pilot", "plan", "export", "evaluate", "crossplay", "chat")
_TERMINATED = 143  # the status that a shell gives a process ended by SIGTERM
# the module's default objective, written so that a printed config contains it
_OBJECTIVE: dict[str, Any] = {"class_path": "lsp_lightning.Learnability"}


def _seed(seed_everything: bool | int) -> int:
    """The seed of all that is sampled; true and false are 0, as in Lightning."""
    return 0 if isinstance(seed_everything, bool) else seed_everything


class SelfPlayCLI(LightningCLI):
    """Lightning's commands and those of :mod:`lsp_lightning.cli.commands`."""

    #: The exit status of the command, if it does not fail.
    status = 0

    def __init__(self, args: Sequence[str], permissions: Permissions | None = None) -> None:
        self._typed = args[0]
        self._permissions = permissions
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
            args=with_logger_class(args),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # a staticmethod there
        """The typed command, with the arguments of its method that do not become flags.

        Only this one, because building the parsers of all commands takes half of the startup time.
        """
        more = {name: {"model", "datamodule"} for name in _OWN}
        return {self._typed: {**LightningCLI.subcommands(), **more}[self._typed]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of the three callbacks that every run has."""
        parser.add_lightning_class_args(RoundCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Transcripts, "transcripts")
        parser.add_lightning_class_args(Examples, "examples")
        parser.set_defaults({"model.optimizer": OPTIMIZER, "model.objective": _OBJECTIVE})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Let every command accept a run's config.yaml, which contains keys of ``fit``."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        known = {action.dest for action in parser._actions}
        if "verbose" in known:  # Lightning's table would repeat the scores, which follow as JSON
            parser.set_defaults({"verbose": False})
        for key in {"ckpt_path", "weights_only"} - known:
            parser.add_argument(f"--{key}", default=None, help=argparse.SUPPRESS)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``; Lightning would also warn about ``sys.argv``."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: a checkpoint's settings do not override the flags."""

    def before_instantiate_classes(self) -> None:
        """Check the Trainer's settings and choose the run's folder."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        if self._permissions is not None:
            self._permissions.check(config)
        check_checkpoint(config)
        if self.subcommand in ("plan", "export", "chat"):  # the run may come from another machine
            config.trainer.accelerator = "auto"
        check_trainer(config.trainer)
        if self.subcommand == "fit":
            check_loggers(config.trainer.logger)
            wanted = Path(config.trainer.default_root_dir or _DEFAULTS["default_root_dir"])
            folder = claim_run_folder(wanted, config.get("ckpt_path"))
            config.trainer.default_root_dir = str(folder)
            self._logger = copy.deepcopy(config.trainer.logger)
            prepare_loggers(config.trainer.logger, folder)

    def _set_seed(self) -> None:
        """Seed all random generators."""
        check_seed(_seed(self._get(self.config, "seed_everything")))
        super()._set_seed()

    def instantiate_classes(self) -> None:
        """Build Trainer, module and data; a setting that a library refuses is one line."""
        try:
            super().instantiate_classes()
        except Exception as error:
            line = unusable(error, self.config[self.subcommand])
            if hidden_config_error(error) or line is None:
                raise
            raise line from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with metrics table, curves, progress line and summary."""
        assert self.subcommand is not None
        whole = self.config[self.subcommand]
        config, folder = whole.trainer, whole.trainer.default_root_dir
        asked = self._get(self.config_init, "trainer")
        default = config.logger in (None, True)
        more = [RunCurves(folder)] if default else _as_list(asked.logger or [])
        kwargs["logger"] = [RunTable(folder), *more] if self.subcommand == "fit" else False
        if self.subcommand == "fit":
            config.logger = self._logger  # the saved config says what was typed, to be used again
        interval, rounds = config.val_check_interval, config.max_steps
        if isinstance(interval, int) and interval > rounds > 0:  # fewer rounds than in a preset
            kwargs["val_check_interval"] = rounds
        # every command that loads a checkpoint needs the callbacks whose state is in it
        callbacks = [*_as_list(asked.callbacks or []), RunSummary(needs_trust(whole))]
        if self.subcommand == "fit":
            callbacks.append(FirstRound())
        if config.enable_progress_bar is not False:
            callbacks.append(RoundProgress())
        return super().instantiate_trainer(**kwargs, callbacks=callbacks)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """The arguments of the command's method; checkpoints are always loaded as weights only."""
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | ({"weights_only": True} if "weights_only" in kwargs else {})

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command; a setting that Lightning refuses only now is one line."""
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise (unusable(error, self.config[subcommand]) or error) from error

    def before_fit(self) -> None:
        """Check rounds and context length before a model is loaded or a file is written."""
        self.datamodule.check_rounds(self.trainer)
        check_limit(self.trainer, "val", len(self.datamodule.val_dataloader()))
        check_model(self.model, self.datamodule)
        check_optimizer(self.model.optimizer)

    def before_pilot(self) -> None:
        """Check what ``fit`` checks, and that no run is given: a pilot comes before one."""
        if self.config.pilot.get("ckpt_path"):
            problem = "is set, but a pilot plays the first round of a new run"
            raise ConfigError("ckpt_path", problem, "give the config alone, by --config FILE")
        self.before_fit()

    def before_validate(self) -> None:
        """Check that there are tasks before a model is loaded."""
        if not self.datamodule.heldout:
            raise ConfigError("data.heldout", "is not set", "give a file of held-out tasks")
        check_limit(self.trainer, "val", len(self.datamodule.val_dataloader()))

    def before_test(self) -> None:
        """Check that there are tasks before a model is loaded."""
        check_limit(self.trainer, "test", len(self.datamodule.test_dataloader()))

    def before_predict(self) -> None:
        """Check that there are queries before a model is loaded."""
        check_limit(self.trainer, "predict", len(self.datamodule.predict_dataloader()))

    def after_test(self) -> None:
        """Print the scores of the tasks for reporting."""
        print_scores(self.model, self.trainer)

    def after_validate(self) -> None:
        """Print the scores of the tasks for choosing settings."""
        print_scores(self.model, self.trainer)

    def pilot(self, **kwargs: Any) -> None:
        """Judge one round, and keep the verdict as the exit status."""
        assert isinstance(self.trainer, SelfPlayTrainer)
        self.status = 0 if self.trainer.pilot(**kwargs) else 1

    def predict(self, model: SelfPlayModule, **kwargs: Any) -> None:
        """Answer the queries and write queries and answers as JSON lines."""
        answered = self.trainer.predict(model, **kwargs) or []
        write_predictions(RunFolder(self.trainer.default_root_dir), answered)


def run_command(args: Sequence[str], permissions: Permissions | None = None) -> int:
    """Run one command.

    Args:
        args: the command and its flags.
        permissions: what its config may do; None for a config that the user vouches for.

    Returns:
        The exit status.
    """
    silence_known()
    threads = default_threads(torch.get_num_threads())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    try:
        allowed = permissions.imports() if permissions else contextlib.nullcontext()
        with one_line_warnings(), allowed:
            return SelfPlayCLI(args, permissions).status
    except SIGTERMException:  # a SystemExit with status 0, as if the run had succeeded
        return _TERMINATED
    except SystemExit as error:
        # Lightning ends a run after Ctrl-C with status 1
        if isinstance(error.__context__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    except RewardError as error:
        cause: BaseException | None = error
        while isinstance(cause, (RewardError, SandboxError, WorkersError, OutOfMemory)):
            cause = cause.__cause__
        if cause is not None:  # an error in the user's code: show where
            show_traceback(cause)
        complain(error)
        return 1
    except (OutOfMemory, EngineError, Diverged, WriteError) as error:
        complain(error)
        return 1
    except Exception as error:
        hidden = hidden_config_error(error)
        if hidden is None and is_out_of_memory(error):  # weights or optimiser: cannot be split
            reason = in_one_line(str(error))
            complain(f"out of memory ({reason}); run `lsp-lightning plan` to see what to change")
            return 1
        full = None if hidden else storage_line(error)
        if full is not None:
            complain(full)
            return 1
        raise (hidden or error) from None


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
