"""What to change in a config when a round teaches nothing: the setting by its key, in words."""

from dataclasses import dataclass
from typing import Any

from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.gate import Gate, Judged, Matches, Novel, WellFormed
from lsp_lightning.game.queries import PromptFile
from lsp_lightning.types import Sampling

_CHALLENGER = "data.queries.init_args"


@dataclass(frozen=True)
class Stall:
    """A reason why a round teaches nothing."""

    cause: str
    """The name of the cause; a run warns of each cause once until it is gone."""
    fact: str
    """What was seen, as in "for 5 rounds in a row, every answer was cut off"."""
    remedy: str
    """What to change, with its config key."""


class Remedies:
    """The remedy for each symptom of a round.

    Args:
        data: the run's DataModule, for the keys and values that a remedy names; None if unknown.
    """

    def __init__(self, data: Any) -> None:
        source = getattr(data, "queries", None)
        self._challenger = source if isinstance(source, Challenger) else None
        self._queries = "data.queries"
        if self._challenger:
            self._queries = f"{_CHALLENGER}.prompt"
        elif isinstance(source, PromptFile):
            self._queries = f"{_CHALLENGER}.path"
        self._solver: Sampling | None = getattr(data, "solver", None)
        self.gate: Gate | None = getattr(data, "gate", None)

    @property
    def at_query_limit(self) -> str:
        """Where a query is cut off, as in " at 28 tokens"; empty if unknown."""
        return _limit(self._challenger.sampling) if self._challenger else ""

    @property
    def at_answer_limit(self) -> str:
        """Where an answer is cut off, as in " at 28 tokens"; empty if unknown."""
        return _limit(self._solver)

    @property
    def longer_queries(self) -> str:
        """For queries that are cut off."""
        if self._challenger is None:
            return "raise max_new_tokens of the queries (data.queries)"
        longer = f"raise {_CHALLENGER}.sampling.max_new_tokens"
        if self._challenger.sampling.stop:
            return longer
        return f"{longer}, or end queries at a text ({_CHALLENGER}.sampling.stop)"

    @property
    def other_queries(self) -> str:
        """For queries that are empty."""
        if self._challenger and self._challenger.opening:
            return f"shorten the opening ({_CHALLENGER}.opening), or change {self._queries}"
        return f"change {self._queries}"

    @property
    def queries_alone(self) -> str:
        """For queries that break the form rules."""
        return f"change {self._queries} so that the Challenger replies with the query alone"

    @property
    def queries_in_form(self) -> str:
        """For queries without a right answer by the verifier."""
        if self._challenger is None:
            return (
                f"change {self._queries}, so that the queries have the form that the verifier reads"
            )
        source = self._challenger
        examples = f"examples ({_CHALLENGER}.examples)"
        if source.examples:
            examples = f"more examples ({_CHALLENGER}.num_examples)"
        opening = "" if source.opening else f"an opening ({_CHALLENGER}.opening), "
        return (
            f"for the form that the verifier reads, give {examples}, "
            f"{opening}another prompt ({self._queries}) or a lower "
            f"temperature ({_CHALLENGER}.sampling.temperature, now {source.sampling.temperature:g})"
        )

    def admitted_queries(self, reason: str) -> str:
        """For queries that the gate refuses for this reason; those that are invalid have others."""
        change = {
            WellFormed.reason: f"{self.queries_in_form}; or leave WellFormed out",
            Novel.reason: f"ask for more varied queries ({self._queries}), or raise near or lower "
            "memory of Novel",
            Judged.reason: f"change {self._queries}, or lower least of Judged",
            Matches.reason: f"change {self._queries}, or pattern of Matches",
        }.get(reason, f"change {self._queries}, or what refuses them as {reason!r}")
        return f"{change} (data.gate.checks)"

    @property
    def wider_range(self) -> str:
        """For solve rates outside of the gate's range, where R is not the same for all answers."""
        return "widen data.gate.solve_rate"

    @property
    def easier_queries(self) -> str:
        """For answers that are all wrong."""
        return f"ask for easier queries ({self._queries})"

    @property
    def harder_queries(self) -> str:
        """For answers that are all right."""
        return f"ask for harder queries ({self._queries})"

    @property
    def medium_queries(self) -> str:
        """For answers to a query that are all right or all wrong."""
        return f"raise data.group_size, or ask for queries of medium difficulty ({self._queries})"

    @property
    def varied_answers(self) -> str:
        """For answers that are all the same text."""
        now = f" (now {self._solver.temperature:g})" if self._solver else ""
        return f"raise data.solver.temperature{now}, or {self.harder_queries}"

    @property
    def longer_answers(self) -> str:
        """For answers that are cut off."""
        return "raise data.solver.max_new_tokens"


def _limit(sampling: Sampling | None) -> str:
    if sampling is None:
        return ""
    return f" at {sampling.max_new_tokens} token{'s' if sampling.max_new_tokens != 1 else ''}"
