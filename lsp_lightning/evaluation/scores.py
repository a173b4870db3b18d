"""Scores of kept answers by a reward, kept in a ledger batch by batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.evaluation.answers import Answer, Told, rollouts_of
from lsp_lightning.evaluation.ledger import Ledger, digest
from lsp_lightning.game.known_queries import Query
from lsp_lightning.rewards import Judgement, Reward, RewardError, judge_playout
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Playout

#: Most answers that a reward is given at once.
_BATCH = 64


@dataclass(frozen=True)
class Case:
    """A query with a group of answers to score together."""

    query: Query
    """The query."""
    prompt: tuple[int, ...]
    """Its prompt in tokens."""
    answers: tuple[Answer, ...]
    """The answers; all cases that are scored together have the same number."""


@dataclass(frozen=True)
class Scorer:
    """A reward that scores kept answers."""

    reward: Reward
    """The reward, connected to the reference."""
    identity: str
    """Checksum of all that decides its scores, besides query, solution and answers."""
    codec: ChatCodec
    """Tells thinking from text."""
    pad_id: int
    """Fills up shorter rows."""
    temperature: float
    """At which the answers were sampled."""

    def scores(self, cases: Sequence[Case], ledger: Ledger, told: Told) -> Tensor:
        """A score for each answer, (cases, G); NaN for one that could not be judged.

        Scores in the ledger are taken from there. Cases with an answer that could not be judged
        are not kept, and so tried again next time, unless NaN is a finding of the reward.

        Raises:
            RewardError: the reward raised, or could judge nothing.
        """
        if not cases:
            return torch.empty(0, 0)
        keys = [self._key(case) for case in cases]
        found = {
            key: kept
            for key, case in zip(keys, cases, strict=True)
            if (kept := _kept(ledger.get(key), len(case.answers))) is not None
        }
        by_key = dict(zip(keys, cases, strict=True))
        missing = [key for key in by_key if key not in found]
        size, undecided = max(1, _BATCH // len(cases[0].answers)), bool(found)
        what = "judgements"
        for start in range(0, len(missing), size):
            told(what, len(by_key) - len(missing) + start, len(by_key))
            batch = missing[start : start + size]
            judgement = self._judged([by_key[key] for key in batch])
            undecided |= judgement.undecided
            new = dict(zip(batch, judgement.scores.tolist(), strict=True))
            found |= new
            ledger.add(
                {
                    key: [None if math.isnan(score) else score for score in row]
                    for key, row in new.items()
                    if judgement.undecided or not any(map(math.isnan, row))
                }
            )
        if missing:
            told(what, len(by_key), len(by_key))
        scores = torch.tensor([found[key] for key in keys])
        if scores.isnan().all() and not undecided:
            raise RewardError(
                f"reward {self.reward.name!r} could not judge any answer; check its warnings"
            )
        return scores

    def _key(self, case: Case) -> str:
        query = case.query
        answers = [answer.entry for answer in case.answers]
        return digest(self.identity, query.text, repr(query.solution), answers)

    def _judged(self, cases: Sequence[Case]) -> Judgement:
        groups = [case.answers for case in cases]
        prompts = [case.prompt for case in cases]
        solutions = tuple(case.query.solution for case in cases)
        playout = Playout(
            query_texts=tuple(case.query.text for case in cases),
            answers=rollouts_of(prompts, groups, self.codec, self.pad_id, self.temperature),
            group_size=len(groups[0]),
            solutions=None if all(s is None for s in solutions) else solutions,
        )
        return judge_playout(self.reward, playout)


def _kept(entry: Any, count: int) -> list[float] | None:
    """The scores in a ledger's entry; None if there are none."""
    if not isinstance(entry, list) or len(entry) != count:
        return None
    if not all(score is None or type(score) in (int, float) for score in entry):
        return None
    return [math.nan if score is None else float(score) for score in entry]
