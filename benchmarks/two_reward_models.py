"""Rewards and callbacks of benchmarks.reward_model_hacking, named in its command lines."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning import PreferenceReward, Reward
from lsp_lightning.rewards import judge_playout
from lsp_lightning.rewards.scale import RunningScale
from lsp_lightning.types import Playout, Reference, SelfPlayRound

#: The adapter after so many rounds is in this folder of a run.
ADAPTERS = "adapters"


class MinimumReward(Reward):
    """The lower of two reward models' scores; each is standardised over the rounds so far.

    Args:
        models: folders of the reward models.
        weight: factor in R.
    """

    comparable = True

    def __init__(self, models: list[str], weight: float = 1.0) -> None:
        super().__init__(weight, "minimum", standardize=True)
        self.members = [PreferenceReward(model) for model in models]
        self.scales = [RunningScale() for _ in models]

    def connect(self, reference: Reference) -> None:
        """Load the reward models."""
        for member in self.members:
            member.connect(reference)

    def score(self, playout: Playout) -> Tensor:
        """(N, G) The lower one of the standardised scores."""
        scaled = [
            scale.with_scores(scores).apply(scores)
            for scale, scores in zip(self.scales, self._scores(playout), strict=True)
        ]
        return torch.stack(scaled).amin(dim=0)

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the scores of a round in the scale of each reward model."""
        super().observe(played)
        self.scales = [
            scale.with_scores(scores)
            for scale, scores in zip(self.scales, self._scores(played.playout), strict=True)
        ]

    def _scores(self, playout: Playout) -> list[Tensor]:
        return [judge_playout(member, playout).scores for member in self.members]


class KeepAdapters(Callback):
    """Keeps the adapter of every ``every``-th round, to be scored after the run."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the adapter, if it is due."""
        played = batch.index + 1
        if played % self.every == 0:
            policy: Any = pl_module.policy
            policy.save(adapter_after(Path(trainer.default_root_dir), played))


def adapter_after(run: Path, played: int) -> Path:
    """The folder of the adapter after ``played`` rounds."""
    return run / ADAPTERS / f"{played:04d}"
