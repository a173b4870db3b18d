"""The gate: which queries enter training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.game.gate.asking import asked
from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.types import Reference, SelfPlayRound

_KEY = "data.gate"
#: The reason of a query that breaks the form rules.
INVALID = "invalid"
#: What the other metrics of the gate count.
_COUNTED = {"admitted", "drawn", "passed", "played"}


class Gate:
    """Decides which queries enter training.

    Before they are answered, queries must follow the form rules and pass all checks. Those that do
    not are drawn again. After they are answered, a range of solve rates can leave further ones out;
    these are not drawn again. A query that is shut out pays the Challenger the lowest reward of the
    round, less the objective's penalty if it was refused, and the Solver learns nothing from it.

    Args:
        checks: the checks, in order; each sees what those before it accepted.
        redraws: how often refused queries are drawn again. A round plays fewer than N queries if
            some are still refused then, and a pool has none to put in their place.
        solve_rate: lowest and highest solve rate that enters training: the mean R as a share of its
            range; null takes all. Needs an R with known limits.
    """

    def __init__(
        self,
        checks: list[QueryCheck] | None = None,
        redraws: int = 3,
        solve_rate: tuple[float, float] | None = None,
    ) -> None:
        require_at_least(redraws, 0, f"{_KEY}.redraws", "it is a number of draws")
        if not isinstance(checks, list | tuple | None):
            raise ConfigError(f"{_KEY}.checks", f"is {checks!r}", "pass a list of checks")
        self.checks = list(checks or [])
        for check in self.checks:
            if not isinstance(check, QueryCheck):
                problem = f"{check!r} is not a QueryCheck"
                raise ConfigError(f"{_KEY}.checks", problem, "pass one, such as Novel()")
            _require_reason(check)
        self.redraws = redraws
        self.solve_rate = checked_range(solve_rate, f"{_KEY}.solve_rate")

    @property
    def reasons(self) -> list[str]:
        """Why it can refuse a query."""
        return list(dict.fromkeys([INVALID, *(check.reason for check in self.checks)]))

    def prepare(self) -> None:
        """Raise ConfigError unless all checks can work; called before a model is loaded."""
        for check in self.checks:
            check.prepare()

    def connect(self, reference: Reference) -> None:
        """Give the checks the frozen reference."""
        for check in self.checks:
            check.connect(reference)

    def refusals(
        self, texts: Sequence[str], valid: Sequence[bool], taken: Sequence[str]
    ) -> list[str | None]:
        """Why each query is refused; None for one that passes.

        Args:
            texts: queries.
            valid: whether each follows the form rules.
            taken: queries that the round already has.

        Raises:
            ConfigError: a check returned something other than a bool for each query.
        """
        found: list[str | None] = [None if ok else INVALID for ok in valid]
        for check in self.checks:
            left = [i for i, reason in enumerate(found) if reason is None]
            verdicts = asked(check, [texts[i] for i in left], taken) if left else []
            for i, reason in zip(left, verdicts, strict=True):
                found[i] = reason
        return found

    def admits(self, solve_rates_N: Tensor | None, judged_N: Tensor) -> Tensor:
        """Whether each query's solve rate is in the range; True if it is unknown. -> (N,) bool."""
        if self.solve_rate is None or solve_rates_N is None:
            return torch.ones_like(judged_N)
        return ~judged_N | in_range(solve_rates_N, self.solve_rate)

    def observe(self, played: SelfPlayRound) -> None:
        """Let the checks update their state; called once per round, after the policy's update."""
        for check in self.checks:
            check.observe(played)

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        return {
            "checks": {_place(i, check): check.describe() for i, check in enumerate(self.checks)},
            "redraws": self.redraws,
            "solve_rate": None if self.solve_rate is None else list(self.solve_rate),
        }

    def state_dict(self) -> dict[str, Any]:
        """The state of the checks, by place and class."""
        return {_place(i, check): check.state_dict() for i, check in enumerate(self.checks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the checks; one that was not there before starts without a state."""
        for i, check in enumerate(self.checks):
            if found := state.get(_place(i, check)):
                check.load_state_dict(found)

    def close(self) -> None:
        """Stop the processes of the checks."""
        for check in self.checks:
            check.close()


def _require_reason(check: QueryCheck) -> None:
    """Raise ConfigError unless a check's reason can be the name of a metric of its own."""
    reason: object = check.reason
    if not isinstance(reason, str) or not reason.isidentifier() or reason in _COUNTED:
        raise ConfigError(
            f"{_KEY}.checks",
            f"the reason of {type(check).__name__} is {reason!r}",
            f"set one word other than {', '.join(sorted(_COUNTED))}",
        )


def _place(i: int, check: QueryCheck) -> str:
    return f"{i} {type(check).__name__}"


def in_range(rates: Tensor, limits: tuple[float, float]) -> Tensor:
    """Whether each rate lies between the limits, both included. -> bool."""
    low, high = limits
    rounding = 1e-6
    return (rates >= low - rounding) & (rates <= high + rounding)


def checked_range(limits: tuple[float, float] | None, key: str) -> tuple[float, float] | None:
    """The limits, or None; raise ConfigError unless they are two rates in order."""
    if limits is None:
        return None
    two = isinstance(limits, Sequence) and len(limits) == 2
    if not two or not all(isinstance(limit, int | float) for limit in limits):
        raise ConfigError(key, f"is {limits!r}", "set two numbers, such as [0.1, 0.9]")
    if not 0 <= limits[0] <= limits[1] <= 1:
        remedy = "set two numbers between 0 and 1, in order, such as [0.1, 0.9]"
        raise ConfigError(key, f"is {list(limits)}", remedy)
    return (float(limits[0]), float(limits[1]))
