"""The gate and the pool of a run: what is checked, remembered and logged of both together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.gate import Gate
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

    def check(self, source: QuerySource, num_queries: int) -> None:
        """Raise ConfigError unless the gate and the pool fit to the source of N queries."""
        parts = {"data.gate": (self.gate, Gate), "data.pool": (self.pool, Pool)}
        for key, (part, kind) in parts.items():
            if part is not None and not isinstance(part, kind):
                raise ConfigError(key, f"is {part!r}", f"pass a {kind.__name__}, or null for none")
            if part is not None and not source.selfplay:
                problem = "is for queries that the Challenger writes, but they come from a file"
                raise ConfigError(key, problem, "leave it out")
        if self.pool is None:
            if getattr(source, "examples_from_pool", False):
                key = "data.queries.init_args.examples_from_pool"
                raise ConfigError(key, "is true, but data.pool is null", "set data.pool, or false")
        elif num_queries - self.pool.most_replays(num_queries) < 2:
            problem = f"is {self.pool.share}, which leaves the Challenger fewer than 2 queries"
            raise ConfigError("data.pool.share", problem, "lower it, or raise data.num_queries")

    def check_rewards(self, rewards: Sequence[Reward]) -> None:
        """Raise ConfigError if a solve rate is asked for, but R has no known limits."""
        by_rate = {"data.gate.solve_rate": self.gate and self.gate.solve_rate}
        for key, asked in {**by_rate, "data.pool": self.pool}.items():
            if asked is not None:
                problem = "needs task rewards with a lowest and a highest score"
                require_limits(rewards, key, problem, "set it to null")

    def metrics(self, played: SelfPlayRound) -> dict[str, Tensor | float]:
        """The pool's size and how many of its queries the round played; 0 for what refused none."""
        reasons = [] if self.gate is None else self.gate.reasons
        found: dict[str, Tensor | float] = {f"gate/{reason}": 0.0 for reason in reasons}
        if self.pool is not None:
            found["pool/size"] = float(len(self.pool))
            found["pool/replayed"] = float((~played.playout.written_N).sum())
        return found

    def observe(self, played: SelfPlayRound) -> None:
        """Remember a round; called once, after its update."""
        for part in self._parts().values():
            part.observe(played)

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        found = {name: part.describe() for name, part in self._parts().items()}
        return {"gate": None, "pool": None, **found}

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

    def _parts(self) -> dict[str, Gate | Pool]:
        """The parts that there are; an empty pool is one too."""
        parts = {"gate": self.gate, "pool": self.pool}
        return {name: part for name, part in parts.items() if part is not None}
