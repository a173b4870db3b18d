"""The gate, the pool and the earlier policy of a run: checked, remembered and logged together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.gate import Gate
from lsp_lightning.game.past import PastChallenger
from lsp_lightning.game.pool import Pool
from lsp_lightning.game.queries import QuerySource
from lsp_lightning.rewards import Reward, require_limits
from lsp_lightning.types import SelfPlayRound


@dataclass(frozen=True)
class Selection:
    """Which queries of a run enter training, and which are played again."""

    gate: Gate | None
    """The gate, or None."""
    pool: Pool | None
    """The pool, or None."""
    past: PastChallenger | None = None
    """The earlier policy, or None."""

    def check(self, source: QuerySource, num_queries: int) -> None:
        """Raise ConfigError unless the parts fit to the source of N queries."""
        parts: dict[str, tuple[object, type]] = {
            "data.gate": (self.gate, Gate),
            "data.pool": (self.pool, Pool),
            "data.past": (self.past, PastChallenger),
        }
        for key, (part, kind) in parts.items():
            if part is not None and not isinstance(part, kind):
                raise ConfigError(key, f"is {part!r}", f"pass a {kind.__name__}, or null for none")
            if part is not None and not source.selfplay:
                problem = "is for queries that the Challenger writes, but they come from a file"
                raise ConfigError(key, problem, "set it to null")
        if self.pool is None and getattr(source, "examples_from_pool", False):
            key = "data.queries.init_args.examples_from_pool"
            raise ConfigError(key, "is true, but data.pool is null", "set data.pool, or false")
        taken = [] if self.pool is None else [("pool", self.pool.share, self.pool.most_replays)]
        if self.past is not None:
            taken.append(("past", self.past.share, self.past.queries))
        if taken and num_queries - sum(most(num_queries) for *_, most in taken) < 2:
            key, share, _ = max(taken, key=lambda part: part[2](num_queries))
            problem = f"is {share}, which leaves the Challenger fewer than 2 new queries a round"
            raise ConfigError(f"data.{key}.share", problem, "lower it, or raise data.num_queries")

    def check_rewards(self, rewards: Sequence[Reward]) -> None:
        """Raise ConfigError if a solve rate is asked for, but R has no known limits."""
        by_rate = {"data.gate.solve_rate": self.gate and self.gate.solve_rate}
        for key, asked in {**by_rate, "data.pool": self.pool}.items():
            if asked is not None:
                problem = "needs task rewards with a lowest and a highest score"
                require_limits(rewards, key, problem, f"set {key} to null")

    def check_policy(self, has_adapter: bool, served: bool) -> None:
        """Raise ConfigError if an earlier policy is asked for, but its weights cannot be used.

        Args:
            has_adapter: whether an adapter is trained.
            served: whether a server samples.
        """
        if self.past is None:
            return
        if not has_adapter:
            problem = "keeps copies of what is trained, which is the whole model"
            raise ConfigError("data.past", problem, "set model.lora, or leave data.past out")
        if served:
            problem = "needs the weights of an earlier round, which the server does not have"
            raise ConfigError(
                "data.past", problem, "leave it out, or sample in this process (LocalRollouts)"
            )

    def metrics(self, played: SelfPlayRound) -> dict[str, Tensor | float]:
        """The pool's size and how many queries came from elsewhere; 0 for what refused none."""
        reasons = [] if self.gate is None else self.gate.reasons
        found: dict[str, Tensor | float] = {f"gate/{reason}": 0.0 for reason in reasons}
        if self.pool is not None:
            found["pool/size"] = float(len(self.pool))
            found["pool/replayed"] = float(played.playout.replayed_N.sum())
        if self.past is not None:
            found["past/queries"] = float(len(played.playout.past))
        return found

    def observe(self, played: SelfPlayRound) -> None:
        """Remember a round; called once, after its update."""
        for part in (self.gate, self.pool):
            if part is not None:  # an empty pool is a part too
                part.observe(played)

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        found = {name: part.describe() for name, part in self._parts().items()}
        return {"gate": None, "pool": None, "past": None, **found}

    def state_dict(self) -> dict[str, Any]:
        """The state to save in a checkpoint."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; a part that was not there before starts without one."""
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def close(self) -> None:
        """Stop the gate's processes."""
        if self.gate is not None:
            self.gate.close()

    def _parts(self) -> dict[str, Gate | Pool | PastChallenger]:
        """The parts that there are; an empty pool is one too."""
        parts = {"gate": self.gate, "pool": self.pool, "past": self.past}
        return {name: part for name, part in parts.items() if part is not None}
