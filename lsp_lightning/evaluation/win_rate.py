"""Win rates of the policy against its reference, with a control: the reference against itself."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.evaluation.answers import Answer, Contestant, Told
from lsp_lightning.evaluation.exam import Answered, Exam
from lsp_lightning.evaluation.ledger import Ledger
from lsp_lightning.evaluation.result import Evaluation, numbers, share
from lsp_lightning.evaluation.scores import Case, Scorer
from lsp_lightning.functional.evaluation import (
    Interval,
    length_controlled_rate,
    proportion_interval,
    task_means,
)
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.terminal import cut, escaped
from lsp_lightning.text.words import WORD

#: Columns of the name of a subset.
_WIDEST = 24
_COLUMNS = (
    "subset",
    "n",
    "win rate",
    "strict win rate",
    "length-controlled",
    "ties",
    "words",
    "base words",
    "unjudged",
)


@dataclass(frozen=True)
class Match:
    """The answers of a player and of its opponent to the same prompts, and who won."""

    won: Tensor
    """(prompts, draws): 1 for a win, 1/2 for a tie, 0 for a loss; NaN if it was not judged."""
    words: Tensor
    """(prompts, draws): length of the player's answers in words."""
    their_words: Tensor
    """(prompts, draws): length of the opponent's."""

    def of(self, prompts: Sequence[int]) -> "Match":
        """The match on some of the prompts."""
        rows = list(prompts)
        return Match(self.won[rows], self.words[rows], self.their_words[rows])

    @property
    def win_rate(self) -> Interval:
        """Ties count half."""
        return proportion_interval(task_means(self.won))

    @property
    def strict(self) -> Interval:
        """Ties count as losses."""
        return proportion_interval(task_means(torch.where(self.won == 0.5, 0.0, self.won)))

    @property
    def length_controlled(self) -> Interval:
        """See :func:`lsp_lightning.functional.evaluation.length_controlled_rate`."""
        return length_controlled_rate(self.won, self.words - self.their_words)

    @property
    def ties(self) -> float:
        """The share of ties among the judged pairs."""
        known = self.won[~self.won.isnan()]
        return float((known == 0.5).double().mean())

    @property
    def unjudged(self) -> int:
        """Pairs that could not be judged."""
        return int(self.won.isnan().sum())

    @property
    def judged_prompts(self) -> int:
        """Prompts with a judged pair."""
        return int((~self.won.isnan().all(dim=1)).sum())

    def cells(self, name: str) -> list[str]:
        """Its row of the table."""
        ties = "-" if math.isnan(self.ties) else f"{100 * self.ties:.1f} %"
        return [
            cut(escaped(name), _WIDEST),
            str(self.judged_prompts),
            share(self.win_rate),
            share(self.strict),
            share(self.length_controlled),
            ties,
            f"{float(self.words.mean()):.1f}",
            f"{float(self.their_words.mean()):.1f}",
            str(self.unjudged),
        ]

    def numbers(self) -> dict[str, Any]:
        """The numbers of its row."""
        return {
            "n": self.judged_prompts,
            "pairs": self.won.numel(),
            "win_rate": numbers(self.win_rate),
            "strict_win_rate": numbers(self.strict),
            "length_controlled": numbers(self.length_controlled),
            "ties": self.ties,
            "words": float(self.words.mean()),
            "base_words": float(self.their_words.mean()),
            "unjudged": self.unjudged,
        }


@dataclass(frozen=True)
class WinRate:
    """A finished evaluation."""

    evaluation: Evaluation
    """The table and its numbers."""
    policy: tuple[Answer, ...]
    """The policy's first answer to each prompt."""
    base: tuple[Answer, ...]
    """The reference's."""


def win_rate(
    exam: Exam,
    policy: Contestant,
    base: Contestant,
    scorer: Scorer,
    answers: Ledger,
    judgements: Ledger,
    told: Told,
    judge: str,
    opponent: str,
) -> WinRate:
    """Compare the policy's answers with the reference's, and the reference's with its own.

    All three sets of answers are drawn from different seeds, so the pairs are independent.

    Args:
        exam: the prompts, and how they are answered.
        policy: the policy.
        base: the reference.
        scorer: the judge.
        answers: keeps answers.
        judgements: keeps judgements.
        told: is told what is done.
        judge: the judge's name, for the title.
        opponent: the reference's name, for the title.

    Raises:
        RewardError: the judge failed.
    """
    mine = policy.answers(exam.drawn_from("policy"), answers, told)
    theirs = base.answers(exam.drawn_from("base"), answers, told)
    again = base.answers(exam.drawn_from("control"), answers, told)
    match = _match(exam, mine, theirs, scorer, judgements, told)
    control = _match(exam, again, theirs, scorer, judgements, told)
    parts = {name: match.of(rows) for name, rows in _subsets(exam).items()}
    rows = [("all", match), *parts.items(), ("base vs base", control)]
    evaluation = Evaluation(
        kind="win_rate",
        title=f"Win rate against {opponent}, judged by {escaped(judge)}",
        note=_note(control, opponent),
        columns=_COLUMNS,
        rows=[found.cells(name) for name, found in rows],
        results={
            "all": match.numbers(),
            "subsets": {name: part.numbers() for name, part in parts.items()},
            "control": control.numbers(),
        },
    )
    return WinRate(evaluation, tuple(row[0] for row in mine), tuple(row[0] for row in theirs))


def _note(control: Match, opponent: str) -> str:
    even = control.win_rate
    fair = math.isnan(even.value) or even.low <= 0.5 <= even.high
    return (
        "50 % is even. Ties count half, in the strict win rate as losses; length-controlled: the "
        "win rate if both answers were equally long. [95 % intervals over prompts.] In the last "
        f"row {opponent} plays against itself: "
        + (
            "its interval contains 50 %, as it should."
            if fair
            else "its interval should contain 50 % and does not, so do not trust this judge "
            "(by chance this happens in one of twenty evaluations)."
        )
    )


def _subsets(exam: Exam) -> Mapping[str, list[int]]:
    """The prompts of each subset that the file names, in the order of the file."""
    found: dict[str, list[int]] = {}
    for i, task in enumerate(exam.tasks):
        if task.subset is not None:
            found.setdefault(task.subset, []).append(i)
    return found


def _match(
    exam: Exam,
    mine: Sequence[tuple[Answer, ...]],
    theirs: Sequence[tuple[Answer, ...]],
    scorer: Scorer,
    judgements: Ledger,
    told: Told,
) -> Match:
    """Judge the pairs of answers, draw by draw; equal texts tie without a judge."""
    shape = len(exam.tasks), exam.draws
    places, cases = [], []
    for i, j in _pairs(exam):
        a, b = mine[i][j], theirs[i][j]
        if a.spoken != b.spoken:
            places.append((i, j))
            pair = (b, a) if _swapped(exam, i, j) else (a, b)
            cases.append(Case(exam.tasks[i], exam.prompts[i], pair))
    scores = torch.zeros(*shape, 2)
    for (i, j), pair in zip(places, scorer.scores(cases, judgements, told), strict=True):
        scores[i, j] = pair.flip(0) if _swapped(exam, i, j) else pair
    ours, others = (
        Answered(tuple(tuple(a.spoken for a in row) for row in rows), scores[..., k])
        for k, rows in enumerate((mine, theirs))
    )
    return Match(ours.wins_against(others), _words(mine), _words(theirs))


def _pairs(exam: Exam) -> Iterator[tuple[int, int]]:
    """Prompt and draw of each pair."""
    return ((i, j) for i in range(len(exam.tasks)) for j in range(exam.draws))


def _swapped(exam: Exam, i: int, j: int) -> bool:
    """Whether the judge sees the opponent's answer first: in every other draw, from a coin for the
    first one. So a judge that prefers a place gains the policy nothing."""
    return (derive_seed(0, "order", exam.tasks[i].text) + j) % 2 == 1


def _words(groups: Sequence[tuple[Answer, ...]]) -> Tensor:
    return torch.tensor([[float(len(WORD.findall(a.spoken))) for a in row] for row in groups])
