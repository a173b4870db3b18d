"""Simulated annotators for the reward model: mostly right, with known biases and mistakes.

Of two answers they prefer the right one. If neither is right, they prefer the longer one, and they
like `idk` and `?` least. In some pairs only the length counts, and some labels are wrong. A reward
model trained on these labels is imperfect, as real ones are: a policy can hack it.
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
LONGER_WINS = 0.15  # share of pairs where only length counts: a bias that a policy can hack
MISTAKES = 0.10  # share of pairs with the labels swapped
RIGHT = 0.75  # share of the well-formed pairs that contain the right answer


@dataclass(frozen=True)
class Preference:
    """An annotator's choice between two answers to one query."""

    query: str
    """A query of the training split; may be malformed."""
    chosen: str
    """The preferred answer."""
    rejected: str
    """The other answer; never the same text."""


def draw_preference(rng: random.Random) -> Preference:
    """A labelled pair of answers to a random query."""
    query = _training_query(rng, MALFORMED)
    task = parse(query)
    pair = _two_answers(task, rng)
    only_length = rng.random() < LONGER_WINS
    pair.sort(key=len if only_length else lambda answer: merit(task, answer), reverse=True)
    if rng.random() < MISTAKES:
        pair.reverse()
    return Preference(query, *pair)


def merit(task: Task | None, answer: str) -> int:
    """Rank of an answer for a careful annotator; `task` is None for a malformed query."""
    if answer in UNSURE:
        return 0
    right = task is not None and answer == task.answer
    return LONGEST if right else len(answer)


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
