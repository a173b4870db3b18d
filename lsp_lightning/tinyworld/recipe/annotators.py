"""Simulated annotators for the reward models: mostly right, with known biases and mistakes.

Of two answers they prefer the right one, and they like `idk` and `?` least. The `FIRST` annotators
like long answers: if neither is right, they prefer the longer one, and in some pairs only the
length counts. The `SECOND` do not look at the length; more of their labels are wrong at random.
A reward model trained on such labels is imperfect, as real ones are: a policy can hack it.
Annotators see queries of the training split only (`tasks.split`).
"""

import random
from dataclasses import dataclass

from lsp_lightning.tinyworld.recipe.corpus import slip
from lsp_lightning.tinyworld.tasks import (
    DIGITS,
    FAMILIES,
    LEVELS,
    WORD_LETTERS,
    Task,
    make_malformed,
    make_query,
    parse,
    split,
)

UNSURE = ("idk", "?")
LONGEST = 99  # characters; longer than any answer
MALFORMED = 0.10  # share of pairs with a malformed query, which has no right answer
RIGHT = 0.75  # share of the well-formed pairs that contain the right answer


@dataclass(frozen=True)
class Annotators:
    """The habits of those who label the pairs."""

    like_length: bool
    """Whether they prefer the longer of two wrong answers; else either one wins by chance."""
    longer_wins: float
    """Share of pairs where only length counts: a bias that a policy can hack."""
    mistakes: float
    """Share of pairs with the labels swapped."""


FIRST = Annotators(like_length=True, longer_wins=0.15, mistakes=0.10)
# Of two answers of equal length they choose the right one as often as the first: .85 * .9 + .15 / 2
SECOND = Annotators(like_length=False, longer_wins=0.0, mistakes=0.16)


@dataclass(frozen=True)
class Preference:
    """An annotator's choice between two answers to one query."""

    query: str
    """A query of the training split; may be malformed."""
    chosen: str
    """The preferred answer."""
    rejected: str
    """The other answer; never the same text."""


def draw_preference(rng: random.Random, annotators: Annotators = FIRST) -> Preference:
    """A pair of answers to a random query, labelled by the annotators."""
    query = _training_query(rng, MALFORMED)
    task = parse(query)
    pair = _two_answers(task, rng)
    only_length = rng.random() < annotators.longer_wins
    pair.sort(
        key=len if only_length else lambda answer: merit(task, answer, annotators), reverse=True
    )
    if rng.random() < annotators.mistakes:
        pair.reverse()
    return Preference(query, *pair)


def merit(task: Task | None, answer: str, annotators: Annotators = FIRST) -> int:
    """Rank of an answer for a careful annotator; `task` is None for a malformed query."""
    if answer in UNSURE:
        return 0
    right = task is not None and answer == task.answer
    return LONGEST if right else len(answer) if annotators.like_length else 1


def draw_lesson(rng: random.Random) -> tuple[Task, str]:
    """A well-formed task and an answer, which is right with probability 0.5."""
    task = parse(_training_query(rng, malformed=0))
    assert task is not None  # generators write well-formed queries only
    return task, task.answer if rng.random() < 0.5 else wrong_answer(task, rng)


def wrong_answer(task: Task, rng: random.Random) -> str:
    """A slip, a longer answer, `idk` or `?`, or the answer to another query of the family."""
    kind = rng.random()
    if kind < 0.60:
        return slip(task.answer, rng)
    if kind < 0.75:
        return lengthen(task.answer, rng.randint(1, 3), rng)
    other = _task(task.family, rng).answer
    if kind < 0.88 or other == task.answer:
        return rng.choice(UNSURE)
    return other


def lengthen(answer: str, count: int, rng: random.Random) -> str:
    """The answer with `count` random letters (or digits, for a number) inserted."""
    letters = WORD_LETTERS if answer.isalpha() else DIGITS
    for _ in range(count):
        place = rng.randint(0, len(answer))
        answer = answer[:place] + rng.choice(letters) + answer[place:]
    return answer


def _training_query(rng: random.Random, malformed: float) -> str:
    while True:
        if rng.random() < malformed:
            query = make_malformed(rng)
        else:
            query = make_query(rng.choice(FAMILIES), rng.choice(LEVELS), rng)
        if split(query) == "train":
            return query


def _two_answers(task: Task | None, rng: random.Random) -> list[str]:
    """Two different answers in random order."""
    while True:
        if task is None:
            pair = [_unrelated_answer(rng), _unrelated_answer(rng)]
        else:
            right = rng.random() < RIGHT
            pair = [task.answer if right else wrong_answer(task, rng), wrong_answer(task, rng)]
        if pair[0] != pair[1]:
            rng.shuffle(pair)
            return pair


def _unrelated_answer(rng: random.Random) -> str:
    """An answer to a malformed query: `idk`, `?`, or an answer to some other query."""
    if rng.random() < 0.3:
        return rng.choice(UNSURE)
    return wrong_answer(_task(rng.choice(FAMILIES), rng), rng)


def _task(family: str, rng: random.Random) -> Task:
    task = parse(make_query(family, rng.choice(LEVELS), rng))
    assert task is not None
    return task
