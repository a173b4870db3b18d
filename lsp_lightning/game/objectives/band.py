"""The objective Band: solve rates in a range."""

from collections.abc import Sequence

from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional import AdvantageScale, band
from lsp_lightning.game.objectives.base import InvalidQuery, Objective
from lsp_lightning.rewards import Reward, require_unit_range
from lsp_lightning.types import SelfPlayRound


class Band(Objective):
    """Pays 1 for V in [low, high], and less the further V is outside. Needs R in [0, 1].

    R-Zero (arXiv 2508.05004) keeps only queries within a band of solve rates; this objective pays
    for them.

    Args:
        low: lower end of the band, above 0.
        high: upper end of the band, below 1.
        advantage_scale: see :class:`Objective`.
        invalid_query: see :class:`Objective`.
        penalty: see :class:`Objective`.
    """

    def __init__(
        self,
        low: float = 0.25,
        high: float = 0.75,
        advantage_scale: AdvantageScale = "none",
        invalid_query: InvalidQuery = "lowest",
        penalty: float = 0.0,
    ) -> None:
        super().__init__(advantage_scale, invalid_query, penalty)
        if not 0 < low <= high < 1:
            raise ConfigError(
                "model.objective", f"low is {low}, high is {high}", "set 0 < low <= high < 1"
            )
        self.low, self.high = low, high

    def check(self, rewards: Sequence[Reward]) -> None:
        """Raise ConfigError unless R always lies in [0, 1]."""
        require_unit_range(rewards, "model.objective")

    def challenger_rewards(self, played: SelfPlayRound) -> Tensor:
        """1 for V in [low, high], falling linearly to 0 at V = 0 and V = 1. -> (N,)."""
        return band(played.rewards_NG, self.low, self.high)
