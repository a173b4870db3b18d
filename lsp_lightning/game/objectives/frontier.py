"""The objective Frontier: queries that are hard but not impossible."""

from collections.abc import Sequence

from torch import Tensor

from lsp_lightning.functional import frontier
from lsp_lightning.game.objectives.base import Objective
from lsp_lightning.rewards import Reward, require_unit_range
from lsp_lightning.types import SelfPlayRound


class Frontier(Objective):
    """Pays ``1 - V`` if at least one answer has a reward above 0, else 0. Needs R in [0, 1].

    The proposer's reward of Absolute Zero, arXiv 2505.03335, eq. 4.
    """

    def check(self, rewards: Sequence[Reward]) -> None:
        """Raise ConfigError unless R always lies in [0, 1]."""
        require_unit_range(rewards, "model.objective")

    def challenger_rewards(self, played: SelfPlayRound) -> Tensor:
        """``1 - V`` where V > 0. -> (N,)."""
        return frontier(played.rewards_NG)
