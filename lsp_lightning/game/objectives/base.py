"""The base class of all objectives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_number, require_one_of, warn
from lsp_lightning.functional import (
    AdvantageScale,
    challenger_advantages,
    challenger_rewards,
    solver_advantages,
)
from lsp_lightning.rewards import Reward
from lsp_lightning.types import SelfPlayRound, Written

InvalidQuery = Literal["lowest", "malformed_lowest", "as_scored"]


@dataclass(frozen=True)
class Advantages:
    """The advantages of a round's completions, before the KL term."""

    solver_NG: Tensor
    """(N, G)."""
    challenger_C: Tensor | None
    """(C,), or None if the Challenger wrote nothing."""

    def rows(self) -> Tensor:
        """All advantages in the order of the round's rows. -> (R,)."""
        flat = self.solver_NG.flatten()
        return flat if self.challenger_C is None else torch.cat([self.challenger_C, flat])


class Objective(ABC):
    """Defines the Challenger's reward, and how the advantages of both players are scaled.

    For an objective of your own, override :meth:`challenger_rewards`. VQ (the mean quality reward
    of the answers) and the rewards that enter for the Challenger are added to its result.

    Args:
        advantage_scale: none as in the paper; std also divides by the standard deviation, as GRPO
            does (over G and N, not G - 1 and N - 1).
        invalid_query: the reward of a query that breaks the form rules: lowest is the lowest reward
            of the round; malformed_lowest is the same, also for a query that a verifier found
            malformed; as_scored treats it like any other query.
        penalty: how much less than this lowest reward such a query pays, and one that a check of
            the gate refused. Without answers there is no VQ, whose low value would punish it.
    """

    # defaults for a subclass that does not call this __init__
    advantage_scale: AdvantageScale = "none"
    invalid_query: InvalidQuery = "lowest"
    penalty: float = 0.0

    def __init__(
        self,
        advantage_scale: AdvantageScale = "none",
        invalid_query: InvalidQuery = "lowest",
        penalty: float = 0.0,
    ) -> None:
        key = "model.objective.init_args"
        require_one_of(advantage_scale, get_args(AdvantageScale), f"{key}.advantage_scale")
        require_one_of(invalid_query, get_args(InvalidQuery), f"{key}.invalid_query")
        self.advantage_scale = advantage_scale
        require_number(penalty, f"{key}.penalty", least=0)
        self.invalid_query = invalid_query
        self.penalty = penalty

    @abstractmethod
    def challenger_rewards(self, played: SelfPlayRound) -> Tensor:
        """The Challenger's reward for each query, without VQ. -> (N,)."""

    def check(self, rewards: Sequence[Reward]) -> None:  # noqa: B027 - optional
        """Raise ConfigError if it cannot use these rewards; called before a model is loaded."""

    def check_gate(self, solve_rate: tuple[float, float] | None) -> None:  # noqa: B027 - optional
        """Raise ConfigError if it cannot work with the range of solve rates of ``data.gate``."""

    def observe(self, played: SelfPlayRound) -> None:  # noqa: B027 - optional
        """Update the state after a round; called once per round, after :meth:`advantages`."""

    def state_dict(self) -> dict[str, Any]:
        """The state to save in a checkpoint, as plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Continue from a checkpoint's state."""

    def advantages(self, played: SelfPlayRound) -> Advantages:
        """The advantages of a round (steps 3 and 4 of Algorithm 1, arXiv 2509.07414)."""
        written = played.playout.written
        return Advantages(
            self.solver_advantages(played),
            None if written is None else self.challenger_advantages(played, written),
        )

    def solver_advantages(self, played: SelfPlayRound) -> Tensor:
        """``R + Q`` minus the group's mean, scaled; 0 for unjudged answers. -> (N, G).

        Also 0 for answers to queries that the gate did not admit.
        """
        judged_NG = played.judged_NG & played.trained_N.unsqueeze(1)
        return solver_advantages(
            played.rewards_NG, played.quality_NG, self.advantage_scale, judged_NG
        )

    def challenger_advantages(self, played: SelfPlayRound, written: Written) -> Tensor:
        """The reward of each written query minus the mean of its baseline group. -> (C,).

        A query that was not answered, or that the gate did not admit, has the lowest reward of the
        round. So has one that breaks the form rules or that a check refused, less the penalty. A
        query whose answers could not be judged gets advantage 0 and does not affect the others.
        """
        rewards_N = challenger_rewards(
            self._checked_rewards(played), played.quality_NG, played.challenger_N
        )
        answered_C = written.answered_C >= 0
        judged_C = answered_C & played.judged_N[written.answered_C]
        advantages_C = torch.zeros(len(judged_C), dtype=rewards_N.dtype)
        if not judged_C.any():
            return advantages_C
        rewards_C = rewards_N[written.answered_C]
        admitted_C = answered_C & played.trained_N[written.answered_C]
        bad = torch.zeros_like(admitted_C)
        bad[list(written.refused)] = True
        if self.invalid_query != "as_scored":
            bad = bad | ~written.valid_C
        if self.invalid_query == "malformed_lowest" and played.malformed_N is not None:
            bad = bad | (answered_C & played.malformed_N[written.answered_C])
        # an own objective may be undefined where the gate shuts queries out
        known_C = judged_C & (admitted_C | rewards_C.isfinite())
        if not known_C.any():
            return advantages_C
        lowest = rewards_C[known_C].min()
        rewards_C = torch.where(bad | ~admitted_C, lowest, rewards_C) - self.penalty * bad
        counted_C = judged_C | ~answered_C
        for baseline in set(written.baseline_C[counted_C].tolist()):
            rows = counted_C & (written.baseline_C == baseline)
            advantages_C[rows] = challenger_advantages(rewards_C[rows], self.advantage_scale)
        return advantages_C

    def _checked_rewards(self, played: SelfPlayRound) -> Tensor:
        """The result of :meth:`challenger_rewards` in fp32; warn if it has NaN or infinity.

        Raises:
            ConfigError: the result is not a tensor of shape (N,).
        """
        name, rewards_N = type(self).__name__, self.challenger_rewards(played)
        shape = (len(played.playout.query_texts),)
        if not isinstance(rewards_N, Tensor) or tuple(rewards_N.shape) != shape:
            is_tensor = isinstance(rewards_N, Tensor)
            got = tuple(rewards_N.shape) if is_tensor else type(rewards_N).__name__
            raise ConfigError(
                "model.objective",
                f"challenger_rewards of {name} returned {got}",
                f"return a tensor of shape {shape}, a number for each query",
            )
        rewards_N = rewards_N.detach().float().cpu()
        if not rewards_N[played.judged_N & played.trained_N].isfinite().all():
            warn(
                f"model.objective: challenger_rewards of {name} returned NaN or infinity in round "
                f"{played.index}; return finite numbers",
                kind=f"not finite: {name}",
            )
        return rewards_N
