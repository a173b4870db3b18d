"""What to change in a config when a round teaches nothing: the setting by its key, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.gate import Gate, Judged, Matches, Novel, WellFormed
from lsp_lightning.game.gate.well_formed import tells_form
from lsp_lightning.game.queries import PromptFile
from lsp_lightning.rewards import Reward, VerifiableReward
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
        rewards: the rewards of the run.
    """

    def __init__(self, data: Any, rewards: Sequence[Reward] = ()) -> None:
        source = getattr(data, "queries", None)
        self._challenger = source if isinstance(source, Challenger) else None
        self._queries = "data.queries"
        if self._challenger:
            self._queries = f"{_CHALLENGER}.prompt"
        elif isinstance(source, PromptFile):
            self._queries = f"{_CHALLENGER}.path"
        self._solver: Sampling | None = getattr(data, "solver", None)
        self.gate: Gate | None = getattr(data, "gate", None)
        self._two_verifiers = _two_verifiers(self.gate, rewards)

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
        source, of_pool = self._challenger, self._examples_of_pool
        examples = "" if of_pool else f"examples ({_CHALLENGER}.examples), "
        if source.examples:
            examples = f"more examples ({_CHALLENGER}.num_examples), "
        opening = "" if source.opening else f"an opening ({_CHALLENGER}.opening), "
        return (
            f"{self._two_verifiers}{of_pool}for the form that the verifier reads, give {examples}"
            f"{opening}another prompt ({self._queries}) or a lower "
            f"temperature ({_CHALLENGER}.sampling.temperature, now {source.sampling.temperature:g})"
        )

    @property
    def _examples_of_pool(self) -> str:
        """Where queries of the pool are shown, that they may be the cause; else empty."""
        source = self._challenger
        if source is None or not source.examples_from_pool or not source.pool:
            return ""
        without = f"set {_CHALLENGER}.examples_from_pool to false"
        return f"{without}; " if source.examples else f"{without}, or give a file of examples; "

    def admitted_queries(self, reason: str) -> str:
        """For queries that the gate refuses for this reason; those that are invalid have others."""
        of_pool = self._examples_of_pool
        change = {
            WellFormed.reason: f"{self.queries_in_form}; or leave WellFormed out",
            Novel.reason: f"{of_pool}ask for more varied queries ({self._queries}), or raise near "
            "or lower memory of Novel",
            Judged.reason: f"{of_pool}change {self._queries}, or lower least of Judged",
            Matches.reason: f"{of_pool}change {self._queries}, or pattern of Matches",
        }.get(reason, f"{of_pool}change {self._queries}, or what refuses them as {reason!r}")
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


def _two_verifiers(gate: Gate | None, rewards: Sequence[Reward]) -> str:
    """That WellFormed has another verifier than the rewards, if so; a remedy begins with it."""
    checking = {
        type(reward.verifier): reward.name
        for reward in rewards
        if isinstance(reward, VerifiableReward) and reward.weight and tells_form(reward.verifier)
    }
    names = {verifier.__qualname__: name for verifier, name in checking.items()}
    for check in [] if gate is None else gate.checks:
        if isinstance(check, WellFormed) and names:
            reading = check.describe()["verifier"]
            if reading not in names:
                verifier, name = next(iter(names.items()))
                return (
                    f"WellFormed reads queries by {reading}, but reward {name!r} checks by "
                    f"{verifier}: use one verifier; "
                )
    return ""


def _limit(sampling: Sampling | None) -> str:
    if sampling is None:
        return ""
    return f" at {sampling.max_new_tokens} token{'s' if sampling.max_new_tokens != 1 else ''}"
