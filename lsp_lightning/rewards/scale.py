"""Running mean and variance, to standardise a reward."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RunningScale:
    """Mean and variance of all scores seen so far, updated batch by batch.

    The update is by Chan, Golub and LeVeque (1979), in double precision.
    """

    count: int = 0
    """Number of scores."""
    mean: float = 0.0
    """Their mean."""
    squares: float = 0.0
    """Sum of their squared distances from the mean."""

    def with_scores(self, scores: Tensor) -> "RunningScale":
        """The scale with more scores included; NaN is ignored."""
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
        """Standard deviation of the scores; 0 unless two of them differ."""
        return float((self.squares / self.count) ** 0.5) if self.count else 0.0

    def apply(self, scores: Tensor) -> Tensor:
        """(scores - mean) / std, or 0 if the standard deviation is 0; NaN stays NaN."""
        if self.std == 0:
            return torch.where(scores.isnan(), scores, 0.0)
        return (scores - self.mean) / self.std
