"""The running mean and variance that standardise a reward."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RunningScale:
    """Mean and variance of all scores seen so far, merged batch by batch.

    The update is that of Chan, Golub and LeVeque (1979), in Python's double precision.
    """

    count: int = 0
    """How many scores."""
    mean: float = 0.0
    """Their mean."""
    squares: float = 0.0
    """Sum of their squared distances from the mean."""

    def with_scores(self, scores: Tensor) -> "RunningScale":
        """The scale with more scores seen; NaN does not count."""
        known = scores[~scores.isnan()].double()
        if known.numel() == 0:
            return self
        total = self.count + known.numel()
        mean = float(known.mean())
        shift = mean - self.mean
        squares = float(((known - mean) ** 2).sum())
        between = shift**2 * self.count * known.numel() / total
        return RunningScale(
            total, self.mean + shift * known.numel() / total, self.squares + squares + between
        )

    @property
    def std(self) -> float:
        """Standard deviation of the scores seen; 0 before there are two different ones."""
        return float((self.squares / self.count) ** 0.5) if self.count else 0.0

    def apply(self, scores: Tensor) -> Tensor:
        """Scores less the mean, over the standard deviation; 0 where they have none."""
        if self.std == 0:
            return torch.where(scores.isnan(), scores, 0.0)
        return (scores - self.mean) / self.std
