"""The Challenger of some rounds ago, which writes a share of each round's queries."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lsp_lightning.errors import ConfigError, require_at_least, require_number
from lsp_lightning.game.player import Player
from lsp_lightning.generation import Engine
from lsp_lightning.generation.base import Finished, Seed
from lsp_lightning.models.other_weights import Weights, holding, trained_weights
from lsp_lightning.types import Completions, Sampling

_KEY = "data.past"


class PastChallenger:
    """Lets an earlier policy write a share of each round's queries.

    These queries train the Solver alone: it keeps on answering what it was asked before, also after
    the Challenger has moved on. The earlier policy is frozen. Every ``age`` rounds it is replaced
    by a newer one, so it is ``age`` to ``2 * age - 1`` rounds old; before round ``age`` it is the
    policy at the start. Needs LoRA, because two copies of what is trained are kept and saved, and
    rollouts in this process.

    Args:
        share: share of each round's queries that the earlier policy writes.
        age: how many rounds old it is at least.
    """

    def __init__(self, share: float = 0.25, age: int = 50) -> None:
        require_number(share, f"{_KEY}.share", least=0)
        if share >= 1:
            raise ConfigError(f"{_KEY}.share", f"is {share}", "set at least 0 and below 1")
        require_at_least(age, 1, f"{_KEY}.age", "it is a number of rounds")
        self.share, self.age = share, age
        self._weights: Weights | None = None
        self._next: Weights | None = None
        self._policy: nn.Module | None = None

    def queries(self, num_queries: int) -> int:
        """How many of N queries the earlier policy writes."""
        return math.floor(self.share * num_queries + 1e-6)  # 0.29 * 100 is 28.999999999999996

    def prepare(self, index: int, policy: nn.Module) -> None:
        """Renew the earlier policy when it is time; call it before each round.

        Args:
            index: the round, from 0.
            policy: the policy as it is now.
        """
        self._policy = policy
        if self._next is None or index % self.age == 0:
            now = trained_weights(policy)
            self._weights, self._next = self._next or now, now

    def player(self, player: Player) -> Player:
        """The earlier policy as a player; only its weights differ.

        Raises:
            RuntimeError: :meth:`prepare` was not called.
        """
        if self._policy is None or self._weights is None:
            raise RuntimeError("call prepare(index, policy) of PastChallenger before a round")
        return replace(player, engine=_PastEngine(player.engine, self._policy, self._weights))

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        return {"share": self.share, "age": self.age}

    def state_dict(self) -> dict[str, Any]:
        """The weights of the earlier policy, and of the one that will replace it."""
        return {"weights": self._weights, "next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the weights."""
        self._weights, self._next = state["weights"], state["next"]


@dataclass(frozen=True)
class _PastEngine:
    """Samples from a policy with earlier weights."""

    engine: Engine
    policy: nn.Module
    weights: Weights

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None = None,
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`."""
        with holding(self.policy, self.weights):
            return self.engine.generate(prompts, draws, sampling, seed, finished)
