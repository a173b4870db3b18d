"""The annotators of the reward model: right mostly, with tastes and mistakes of their own.

Of two answers they prefer the right one. Where none is right, as beside a malformed query, they
like the longer one and nothing less than doubt. Sometimes only length counts for them, and
sometimes they err. What learns from them is imperfect as real reward models are: it can be hacked.
They see queries of the training part only (`tasks.split`).
"""

import random
from dataclasses import dataclass

from lsp_lightning.tinyworld.corpus import slip
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
LONGEST = 99  # more characters than any answer here has
MALFORMED = 0.10  # share of pairs whose query has no right answer
LONGER_WINS = 0.15  # share of pairs where only length counts: a bias that can be hacked
MISTAKES = 0.10  # share of pairs labelled the wrong way round
RIGHT = 0.75  # share of the well-formed pairs that hold the right answer


@dataclass(frozen=True)
class Preference:
    """What an annotator says of two answers to one query."""

    query: str
    """Of the training part; may be malformed."""
    chosen: str
    """The answer that was preferred."""
    rejected: str
    """The other one; never the same text."""


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
    """How good an answer looks to a careful annotator; `task` is None where none can be right."""
    if answer in UNSURE:
        return 0
    right = task is not None and answer == task.answer
    return LONGEST if right else len(answer)


def draw_lesson(rng: random.Random) -> tuple[Task, str]:
    """A well-formed task with an answer to it, which is right half of the time."""
    task = parse(_training_query(rng, malformed=0))
    assert task is not None  # generators are well-formed by construction
    return task, task.answer if rng.random() < 0.5 else wrong_answer(task, rng)


def wrong_answer(task: Task, rng: random.Random) -> str:
    """A slip, something longer, an unsure answer, or what another query of the family asks for."""
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
    """The answer with `count` more characters of its kind somewhere in it."""
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
            pair = [_beside_the_point(rng), _beside_the_point(rng)]
        else:
            right = rng.random() < RIGHT
            pair = [task.answer if right else wrong_answer(task, rng), wrong_answer(task, rng)]
        if pair[0] != pair[1]:
            rng.shuffle(pair)
            return pair


def _beside_the_point(rng: random.Random) -> str:
    """What stands beside a malformed query: an unsure answer, or an answer to anything else."""
    if rng.random() < 0.3:
        return rng.choice(UNSURE)
    return wrong_answer(_task(rng.choice(FAMILIES), rng), rng)


def _task(family: str, rng: random.Random) -> Task:
    task = parse(make_query(family, rng.choice(LEVELS), rng))
    assert task is not None
    return task
