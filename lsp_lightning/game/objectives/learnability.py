"""The objective Learnability: queries that the Solver solves sometimes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_number
from lsp_lightning.functional import AdvantageScale, learnability, uncertainty
from lsp_lightning.game.objectives.base import InvalidQuery, Objective
from lsp_lightning.rewards import Reward, require_limits
from lsp_lightning.types import SelfPlayRound

#: The largest variance of rewards in {0, 1}.
_BINARY = 0.25
#: Solve rates are in single precision.
_ROUNDING = 1e-6
_UNCERTAINTY = "model.objective.init_args.uncertainty"


class Learnability(Objective):
    """Pays the variance of a group's rewards, divided by the largest variance so far in the run.

    Rewards of 0 or 1 are divided by 0.25 instead, so this is ``4 V (1 - V)``: 1 for queries that
    half of the answers solve, and 0 for queries that all or none solve, from which the Solver
    learns nothing. The idea is from Sampling For Learnability, arXiv 2408.15099.

    Args:
        advantage_scale: see :class:`Objective`.
        invalid_query: see :class:`Objective`.
        uncertainty: a way back from rounds in which every answer is right: what the query with the
            least certain answers is paid if all queries are solved; less, the fewer are
            (:func:`lsp_lightning.functional.uncertainty`). A query is solved if all its answers
            have the highest possible R. 0 pays nothing; more needs an R with known limits.
        penalty: see :class:`Objective`.
    """

    def __init__(
        self,
        advantage_scale: AdvantageScale = "none",
        invalid_query: InvalidQuery = "lowest",
        uncertainty: float = 0.0,
        penalty: float = 0.0,
    ) -> None:
        super().__init__(advantage_scale, invalid_query, penalty)
        require_number(uncertainty, _UNCERTAINTY, least=0)
        self.uncertainty = uncertainty
        self._largest = 0.0

    def challenger_rewards(self, played: SelfPlayRound) -> Tensor:
        """The variance within each group, divided by the largest one, in [0, 1]. -> (N,).

        Uncertainty comes on top.
        """
        pay_N = learnability(played.rewards_NG, self._largest_with(played), played.judged_NG)
        if self.uncertainty == 0 or played.solve_rates_N is None:
            return pay_N
        # those that pay the Challenger: others may be much less certain, and would set the scale
        counted_N = played.playout.written_N & played.trained_N & played.judged_N
        if played.malformed_N is not None:
            counted_N = counted_N & ~played.malformed_N
        solved_N = played.solve_rates_N >= 1 - _ROUNDING
        unsure_N = uncertainty(played.surprisal_NG, solved_N, counted_N)
        return pay_N + self.uncertainty * unsure_N

    def check(self, rewards: Sequence[Reward]) -> None:
        """Raise ConfigError if uncertainty is to be paid, but no query can count as solved."""
        if self.uncertainty > 0:
            problem = f"is {self.uncertainty}, which needs task rewards with a highest score"
            require_limits(rewards, _UNCERTAINTY, problem, "set it to 0")

    def check_gate(self, solve_rate: tuple[float, float] | None) -> None:
        """Raise ConfigError if the gate shuts out all queries that uncertainty is paid for."""
        if self.uncertainty > 0 and solve_rate is not None and solve_rate[1] < 1:
            limits = f"[{solve_rate[0]:g}, {solve_rate[1]:g}]"
            problem = f"pays for solved queries, but data.gate.solve_rate {limits} shuts them out"
            remedy = f"set data.gate.solve_rate to [{solve_rate[0]:g}, 1], or uncertainty to 0"
            raise ConfigError(_UNCERTAINTY, problem, remedy)

    def observe(self, played: SelfPlayRound) -> None:
        """Remember the largest variance; queries that the gate shut out do not count."""
        self._largest = self._largest_with(played)

    def _largest_with(self, played: SelfPlayRound) -> float:
        variance_N = learnability(played.rewards_NG, 1.0, played.judged_NG)
        variance = torch.where(played.trained_N, variance_N, 0.0).max()
        largest = max(self._largest, _BINARY if played.binary else 0.0)
        # one overflow must not flatten the rewards of all later rounds
        return max(largest, float(variance)) if torch.isfinite(variance) else largest

    def state_dict(self) -> dict[str, Any]:
        """The largest variance of the run."""
        return {"largest_variance": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self._largest = float(state["largest_variance"])
