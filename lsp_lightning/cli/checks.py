"""Check the run's folder, the checkpoint and the Trainer's settings before anything is loaded."""

import atexit
import contextlib
import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry

from lsp_lightning.cli.trust import leaves_of
from lsp_lightning.datamodule import check_precision
from lsp_lightning.errors import ConfigError, in_one_line, require_one_of
from lsp_lightning.evaluation.exam import HELDOUT_BATCH
from lsp_lightning.runs.checkpoint import read_checkpoint
from lsp_lightning.runs.folder import CLAIM

#: Settings of the Trainer that would stop a run, or cut it short: the values that do not, and why.
_FIXED: dict[str, tuple[tuple[object, ...], str, str]] = {
    "max_epochs": ((1,), "all rounds are one epoch", "leave it out and set trainer.max_steps"),
    "check_val_every_n_epoch": (
        (1,),
        "all rounds are one epoch",
        "leave it out and set trainer.val_check_interval",
    ),
    "limit_train_batches": (
        (1.0,),
        "trainer.max_steps sets the number of rounds",
        "leave it out and set trainer.max_steps",
    ),
    "overfit_batches": (
        (0, 0.0),
        "rounds are played, not read from data",
        "leave it out; a PromptFile in data.queries plays the same queries again",
    ),
}
#: numpy's generators take no larger seed.
_LARGEST_SEED = 2**32 - 1
_SEE_VALUES = "see --help for each key's values"


def claim_run_folder(wanted: Path, checkpoint: str | None) -> Path:
    """The folder of this run: ``wanted``, or ``wanted-2``, ``-3`` ... if that is not empty.

    A file reserves it at once, so that two runs started together get two folders. A run resumed
    from a checkpoint inside ``wanted`` continues there.
    """
    # as Lightning reads it, or a run would write into two folders
    wanted = Path(os.path.normpath(wanted.expanduser()))
    if checkpoint and Path(checkpoint).resolve().is_relative_to(wanted.resolve()):
        return wanted
    folder, number = wanted, 1
    try:
        while True:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                with contextlib.suppress(FileExistsError):
                    (folder / CLAIM).touch(exist_ok=False)
                    atexit.register(_give_up_claim, folder, made)
                    return folder
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
    except (OSError, ValueError) as error:  # a file, no permission, an impossible name
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            "trainer.default_root_dir",
            f"cannot create folder {str(folder)!r} ({why})",
            "give a folder that you can write to",
        ) from error


def _give_up_claim(folder: Path, made: Sequence[Path]) -> None:
    """Remove the reservation, and the folders made for it if the run has written nothing."""
    (folder / CLAIM).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for path in made:
            path.rmdir()


def check_seed(seed: int) -> None:
    """Raise ConfigError unless every random generator takes the seed."""
    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError("seed_everything", f"is {seed}", f"set 0 to {_LARGEST_SEED}")


def check_checkpoint(config: Any) -> None:
    """Raise ConfigError unless a command's checkpoint is one, loaded as weights only."""
    if config.get("weights_only") not in (None, True):
        problem = "is false, but every checkpoint is loaded as weights only: it runs no code"
        raise ConfigError("weights_only", problem, "leave it out")
    if config.get("ckpt_path"):
        read_checkpoint(config.ckpt_path)


def check_trainer(trainer: Any) -> None:
    """Raise ConfigError for settings of the Trainer that cannot work here."""
    if trainer.max_steps < 1:
        raise ConfigError("trainer.max_steps", "is below 1", "set the number of rounds to play")
    for name, (allowed, reason, remedy) in _FIXED.items():
        value = trainer.get(name)
        # not by equality alone: 1 of limit_train_batches is one batch, 1.0 is all of them
        if value is not None and (type(value), value) not in [(type(x), x) for x in allowed]:
            raise ConfigError(f"trainer.{name}", f"is {value}, but {reason}", remedy)
    if trainer.val_check_interval == 0:
        raise ConfigError("trainer.val_check_interval", "is 0", "set a number of rounds")
    accelerators = ("auto", "gpu", *AcceleratorRegistry.available_accelerators())
    if isinstance(trainer.accelerator, str):
        require_one_of(trainer.accelerator, accelerators, "trainer.accelerator")
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator",
            f"is {trainer.accelerator}, but torch {torch.__version__} finds no GPU",
            "fix the driver, install a CUDA build of torch, or set cpu",
        )
    check_precision(trainer.precision)
    if trainer.get("enable_checkpointing") is False:
        raise ConfigError(
            "trainer.enable_checkpointing",
            "is false, so the run could not be resumed",
            "leave it out; checkpoint.every sets how often a checkpoint is written",
        )
    if trainer.get("accumulate_grad_batches", 1) != 1 or trainer.get("gradient_clip_val"):
        raise ConfigError(
            "trainer.accumulate_grad_batches and trainer.gradient_clip_val",
            "have no effect here",
            "use model.micro_batch_tokens and model.max_grad_norm",
        )


def check_limit(trainer: Trainer, kind: str, batches: int) -> None:
    """Raise ConfigError if a share of the held-out tasks is less than one batch.

    Args:
        trainer: has the limit.
        kind: val, test or predict.
        batches: how many there are.
    """
    limit = getattr(trainer, f"limit_{kind}_batches")
    if isinstance(limit, float) and limit > 0 and batches > int(limit * batches) == 0:
        problem = f"is {limit}, which is less than one of {batches} batches"
        remedy = f"set a number of batches of {HELDOUT_BATCH} tasks, or null for all"
        raise ConfigError(f"trainer.limit_{kind}_batches", problem, remedy)


def unusable(error: BaseException, config: Any) -> ConfigError | None:
    """The one-line error if a library refused a setting; None for any other error.

    Args:
        error: what the Trainer or the parser raised while it built the Trainer and its parts.
        config: the parsed config of the command.
    """
    named = re.search(r"given class_path '([\w.]+)':\s+(.*)", str(error))
    if named:
        keys = [k for k, v in leaves_of(config) if v == named[1] and k.endswith(".class_path")]
        key = keys[0].removesuffix(".class_path") if keys else "config"
        missing = re.match(r"Requirement '([\w-]+)|No module named '([\w-]+)", named[2])
        if missing:
            package = missing[1] or missing[2]
            problem = f"{named[1].rpartition('.')[2]} needs {package}, which is not installed"
            return ConfigError(key, problem, f"pip install {package}")
        return ConfigError(key, f"{named[1]} does not work ({named[2]})", "fix its init_args")
    if isinstance(error, MisconfigurationException | ValueError | TypeError):
        text = str(error)
        found = [
            (m.start(), k) for k in vars(config.trainer) if (m := re.search(rf"\b{k}\b", text))
        ]
        if found:
            _, name = min(found)  # the first that the message names
            problem = f"is {config.trainer[name]!r} ({text})"
            return ConfigError(f"trainer.{name}", problem, _SEE_VALUES)
    return _refused_alone(error, config.trainer)


def _refused_alone(error: BaseException, trainer: Any) -> ConfigError | None:
    """The error for the setting that a Trainer refuses with all others at their defaults."""
    defaults = inspect.signature(Trainer.__init__).parameters
    for name, value in vars(trainer).items():
        plain = isinstance(value, str | int | float) and name != "default_root_dir"
        if not plain or name not in defaults or value == defaults[name].default:
            continue
        try:
            Trainer(logger=False, **{name: value})
        except Exception as alone:
            if type(alone) is type(error):
                problem = f"is {value!r} ({in_one_line(str(error))})"
                return ConfigError(f"trainer.{name}", problem, _SEE_VALUES)
    return None
