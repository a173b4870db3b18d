"""The objective of the paper."""

from torch import Tensor

from lsp_lightning.game.objectives.base import Objective
from lsp_lightning.types import SelfPlayRound


class Paper(Objective):
    """Pays ``-V``: the worse the answers, the better the query. With quality rewards ``-V + VQ``.

    Language Self-Play, arXiv 2509.07414, eq. 3 and Algorithm 1. In long runs the Challenger ends up
    with queries that the Solver cannot answer at all.
    """

    def challenger_rewards(self, played: SelfPlayRound) -> Tensor:
        """``-V`` of each query. -> (N,)."""
        return -played.values_N
