"""What the command line checks before anything is loaded: the run's folder and the Trainer."""

import atexit
import contextlib
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from lsp_lightning.datamodule import check_precision
from lsp_lightning.errors import ConfigError, require_one_of
from lsp_lightning.runs.folder import CLAIM


def claim_run_folder(wanted: Path, checkpoint: str | None) -> Path:
    """The folder of this run: ``wanted``, or ``wanted-2``, ``-3`` ... if that is not empty.

    A file reserves it at once, so that two runs started together get two folders. A run resumed
    from a checkpoint inside ``wanted`` continues there.
    """
    if checkpoint and Path(checkpoint).resolve().is_relative_to(wanted.resolve()):
        return wanted
    folder, number = wanted, 1
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            with contextlib.suppress(FileExistsError):
                (folder / CLAIM).touch(exist_ok=False)
                atexit.register(_give_up_claim, folder)
                return folder
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")


def _give_up_claim(folder: Path) -> None:
    """Remove the reservation, and the folder if the run wrote nothing."""
    (folder / CLAIM).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def check_trainer(trainer: Any) -> None:
    """Raise ConfigError for settings of the Trainer that cannot work here."""
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
