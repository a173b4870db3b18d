"""Checkpoints between two rounds: a crash costs at most the rounds since the last one."""

import os
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lsp_lightning.errors import require_at_least
from lsp_lightning.runs import RunFolder


class RoundCheckpoint(Checkpoint):
    """Saves ``checkpoints/last.ckpt`` and, at the end, the trained adapter.

    A new checkpoint is written beside the old one, flushed to the disk, and then renamed over it,
    so a whole checkpoint is there at any time.

    Args:
        every: rounds between two checkpoints. If it is more than 1 and validation stops the run
            early, the saved adapter can be newer than the last checkpoint.
    """

    def __init__(self, every: int = 1) -> None:
        require_at_least(every, 1, "checkpoint.every", "the run could not be resumed")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after every ``every``-th round and after the last.

        Not in ``on_train_end``: Lightning's epoch is over by then, and a run resumed from such a
        checkpoint could not play more rounds.
        """
        played = batch.index + 1
        last = played == trainer.max_steps or trainer.should_stop
        if played % self.every == 0 or last:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the trained adapter (or model) for use elsewhere."""
        save_weights(trainer, pl_module)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint to a partial file and rename it."""
        path = RunFolder(trainer.default_root_dir).checkpoint_path
        partial = path.with_suffix(".ckpt.partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)


def save_weights(trainer: Trainer, pl_module: LightningModule) -> None:
    """Write the trained adapter (or model) into the run's folder."""
    if trainer.is_global_zero:
        policy: Any = pl_module.policy
        policy.save(RunFolder(trainer.default_root_dir).weights_path(policy.has_adapter))
