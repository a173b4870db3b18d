"""Checkpoints at the edge of a round: a crash costs at most the rounds since the last one."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lsp_lightning.errors import require_at_least


class RoundCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt`` and, at the end, the adapter for use elsewhere.

    A checkpoint is written beside the old one, flushed to the disk and then put in its place: there
    is a whole one at any time.

    Args:
        every: rounds between two checkpoints; above 1, a run that a validation ends (early stop)
            keeps the last of these, while its adapter is of the last round.
    """

    def __init__(self, every: int = 1) -> None:
        require_at_least(every, 1, "checkpoint.every", "nothing would be kept")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after every ``every``-th round and after the last.

        Not at the end of training: there Lightning's epoch is over, and such a checkpoint could not
        be gone on with when more rounds are asked for.
        """
        played = batch.index + 1
        last = played == trainer.max_steps or trainer.should_stop
        if played % self.every == 0 or last:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the trained adapter (or model) for use elsewhere."""
        if trainer.is_global_zero:
            policy: Any = pl_module.policy
            name = "adapter" if policy.has_adapter else "model"
            policy.save(Path(trainer.default_root_dir) / name)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint in such a way that it is never half there."""
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        partial = path.with_suffix(".ckpt.partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
