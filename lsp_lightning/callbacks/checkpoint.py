"""Checkpoints between two rounds: a crash costs at most the rounds since the last one."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lsp_lightning.callbacks.table import RunTable
from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint
from lsp_lightning.runs.writing import put_in_place, writing
from lsp_lightning.training.divergence import require_finite


class RoundCheckpoint(Checkpoint):
    """Saves ``checkpoints/last.ckpt`` and, at the end, the trained adapter.

    A new checkpoint is written beside the old one, flushed to the disk, and then renamed, so there
    is a complete checkpoint at any time. The one before it is kept as ``previous.ckpt``.

    Args:
        every: rounds between two checkpoints. If it is more than 1 and validation stops the run
            early, the saved adapter can be newer than the last checkpoint.
        snapshots: rounds between two adapters that are kept for good, as snapshots/round-00100 in
            the run's folder, to play them against each other later; 0 keeps none.
    """

    def __init__(self, every: int = 1, snapshots: int = 0) -> None:
        require_at_least(every, 1, "checkpoint.every", "the run could not be resumed")
        require_at_least(snapshots, 0, "checkpoint.snapshots", "it is a number of rounds")
        self.every, self.snapshots = every, snapshots
        self._whole: Path | None = None  # the last checkpoint, once it is known to be whole

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over the files from Lightning, unless the Trainer has a plugin for them.

        Raises:
            ConfigError: snapshots are asked for, but the run trains no adapter.
        """
        settings = getattr(pl_module, "policy_settings", None)
        if self.snapshots and settings and settings.lora is None and settings.init_adapter is None:
            problem = f"is {self.snapshots}, but without LoRA each snapshot would be a whole model"
            raise ConfigError("checkpoint.snapshots", problem, "set 0, or set model.lora")
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = RunCheckpointIO()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember that this file is whole."""
        if trainer.ckpt_path is not None:
            self._whole = Path(trainer.ckpt_path).resolve()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after every ``every``-th round and after the last.

        Not in ``on_train_end``: Lightning's epoch is over by then, and a run resumed from such a
        checkpoint could not play more rounds.
        """
        played = batch.index + 1
        if self.snapshots and played % self.snapshots == 0:
            save_snapshot(trainer, pl_module, played)
        last = played == trainer.max_steps or trainer.should_stop
        if played % self.every == 0 or last:
            _log_ahead(trainer, pl_module, batch.index)
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the trained adapter (or model) for use elsewhere."""
        save_weights(trainer, pl_module)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint, and keep the one before it.

        Raises:
            WriteError: it could not be written (a full disk). The last checkpoint is kept.
        """
        run = RunFolder(trainer.default_root_dir)
        path = run.checkpoint_path
        partial = path.with_suffix(".ckpt.partial")
        try:
            with writing(path):
                trainer.save_checkpoint(partial)
                if trainer.is_global_zero:
                    # previous.ckpt stays if last.ckpt may be damaged (not checked yet) or may hold
                    # weights that the last step has spoiled (this round was skipped)
                    skipped = float(trainer.callback_metrics.get("skipped", 0.0))
                    known = self._whole == path.resolve() and not skipped
                    put_in_place(partial, path, run.previous_checkpoint_path if known else None)
                    self._whole = path.resolve()
        finally:
            if trainer.is_global_zero:
                partial.unlink(missing_ok=True)  # only part of it is there if writing failed


def _log_ahead(trainer: Trainer, pl_module: Any, index: int) -> None:
    """Write the round's row before its checkpoint: a run killed in between repeats the round."""
    for table in trainer.loggers:
        if isinstance(table, RunTable):
            table.log_ahead({**pl_module.logged, "epoch": trainer.current_epoch}, index)


def save_snapshot(trainer: Trainer, pl_module: LightningModule, rounds: int) -> None:
    """Write the adapter as it is after so many rounds.

    Raises:
        Diverged: a trained weight is not finite.
    """
    if trainer.is_global_zero:
        policy: Any = pl_module.policy
        require_finite(policy, "in the snapshot")
        path = RunFolder(trainer.default_root_dir).snapshot_path(rounds)
        partial = path.with_name(f"{path.name}.partial")
        with writing(path):
            shutil.rmtree(partial, ignore_errors=True)
            policy.save_adapter(partial)
            shutil.rmtree(path, ignore_errors=True)  # of a round that is played again
            partial.replace(path)


def save_weights(trainer: Trainer, pl_module: LightningModule) -> None:
    """Write the trained adapter (or model) into the run's folder.

    Raises:
        Diverged: a trained weight is not finite.
    """
    if trainer.is_global_zero:
        policy: Any = pl_module.policy
        require_finite(policy, "at the end of the run")
        path = RunFolder(trainer.default_root_dir).weights_path(policy.has_adapter)
        with writing(path):
            policy.save(path)


class RunCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint in its folder, and reads it only if it is whole and of plain types."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the file. Lightning would copy it in memory and through a temporary folder."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the file, always as weights only: a pickle could run any code.

        Raises:
            ConfigError: it is damaged, or is not a checkpoint of this package.
        """
        return read_checkpoint(str(path), mmap=False)
