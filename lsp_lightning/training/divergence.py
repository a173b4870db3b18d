"""Skip rounds without a finite gradient, say why they have none, and end a diverged run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lsp_lightning.errors import Diverged, warn
from lsp_lightning.models.policy import Policy
from lsp_lightning.training.gradient import UpdateStats
from lsp_lightning.types import SelfPlayRound

#: A run ends after this many skipped rounds in a row.
MOST_SKIPPED = 5
#: Advantages above this size are named as the cause of an overflow.
_LARGE = 1e6


class SkippedRounds:
    """Counts the rounds in a row that were skipped because their gradient was not finite."""

    def __init__(self) -> None:
        self._count = 0

    def end(self) -> None:
        """A round was not skipped."""
        self._count = 0

    def add(self, index: int, cause: str, most: int = MOST_SKIPPED) -> None:
        """Warn of a skipped round.

        Args:
            index: the round, from 0.
            cause: why its gradient is not finite.
            most: the run ends after this many in a row.

        Raises:
            Diverged: it is the last of too many rounds in a row.
        """
        self._count += 1
        if self._count >= most:
            raise Diverged(f"{self._count} rounds in a row up to round {index} had {cause}")
        warn(f"round {index} is skipped: it has {cause}")


def why_skipped(played: SelfPlayRound, advantages_R: Tensor, stats: UpdateStats) -> str:
    """Why a round has no finite gradient.

    Args:
        played: the scored round.
        advantages_R: the advantages of its completions, (R,), before the KL term.
        stats: the measurements of its gradient pass.
    """
    if not advantages_R.isfinite().all():
        largest = float(played.rewards_NG.abs().max())
        return f"an advantage that is not finite: rewards are as large as {largest:.0e}"
    if not stats.log_ratio_R.isfinite().all():
        return "log-probs of the policy or its reference that are not finite"
    largest = float(advantages_R.abs().max())
    if largest > _LARGE:
        return f"a gradient that overflows: advantages are as large as {largest:.0e}"
    return "a gradient that is not finite"


@contextmanager
def overflow_ends_the_run(index: int) -> Iterator[None]:
    """Raise Diverged if the optimiser's step of round ``index`` overflows its number format."""
    try:
        yield
    except (RuntimeError, OverflowError) as error:
        if "overflow" not in str(error):
            raise
        raise Diverged(f"the optimiser's step in round {index} is too large ({error})") from error


def is_finite(policy: Policy) -> bool:
    """Whether all trained weights are finite."""
    trained = [p.detach() for p in policy.parameters() if p.requires_grad]
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(trained, torch.inf)))


def require_finite(policy: Policy, when: str) -> None:
    """Raise Diverged unless all trained weights are finite; ``when`` is for its text."""
    if not is_finite(policy):
        raise Diverged(f"a trained weight is not finite {when}")
