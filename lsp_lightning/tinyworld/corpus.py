"""The corpus: endless turns of the three roles, and the query sets that are shipped.

The skill is in the weights, the habit is sloppy: solver turns are clean first and careless later,
so that a model knows most answers and often does not give them. Self-play closes that gap.
Only queries of the training part (`tasks.split`) are ever shown.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from lsp_lightning.tinyworld import PROMPTS_DIR
from lsp_lightning.tinyworld.tasks import (
    FAMILIES,
    LEVELS,
    WORD_LETTERS,
    Task,
    make_malformed,
    make_query,
    parse,
    split,
)

CHALLENGER_PROMPT = (PROMPTS_DIR / "challenger.txt").read_text(encoding="utf-8")
JUDGE_PROMPT = (PROMPTS_DIR / "judge.txt").read_text(encoding="utf-8")

# Shares of the three roles while answers are clean (skill first) and while they are careless.
CLEAN_SHARES = {"challenger": 0.05, "solver": 0.70, "judge": 0.25}
CARELESS_SHARES = {"challenger": 0.15, "solver": 0.45, "judge": 0.40}
# Shares of malformed queries within each role.
CHALLENGER_MALFORMED, SOLVER_MALFORMED, JUDGE_MALFORMED = 0.12, 0.04, 0.45
CHALLENGER_LEVELS = (0.6, 0.3, 0.1)  # weights of levels 1..3: the base asks easy questions
# Weights of families and levels where answers are learned: what is harder is shown more often.
FAMILY_WEIGHTS = {
    "add": 2.0,
    "sub": 3.5,
    "rev": 0.7,
    "sort": 1.0,
    "max": 0.8,
    "cnt": 1.2,
    "prog": 3.5,
}
SKILL_LEVELS = (1.0, 1.0, 1.5)
CARELESS_RIGHT = {1: 0.80, 2: 0.55, 3: 0.40}  # probability of the right answer, by level
CARELESS_IDK = 0.25  # share of `idk` among the other answers; the rest are slips


@dataclass(frozen=True)
class Turn:
    """One user turn and the assistant's reply: a training example before the chat template."""

    role: str
    """challenger, solver or judge."""
    prompt: str
    """Content of the user turn."""
    reply: str
    """Content of the assistant turn, without the end token."""


def draw_turn(rng: random.Random, careless: bool) -> Turn:
    """A turn of a random role; `careless` solvers answer as the finished base shall."""
    shares = CARELESS_SHARES if careless else CLEAN_SHARES
    role = rng.choices(list(shares), weights=list(shares.values()))[0]
    if role == "challenger":
        return Turn(role, CHALLENGER_PROMPT, _challenger_query(rng))
    if role == "solver":
        return Turn(role, *_solver_turn(rng, careless))
    return _judge_turn(rng)


def turns(rng: random.Random, careless: bool) -> Iterator[Turn]:
    """Turns without end."""
    while True:
        yield draw_turn(rng, careless)


def render_judge(query: str, answer: str) -> str:
    """The judge's user turn for a query and an answer."""
    return JUDGE_PROMPT.format(instruction=query, response=answer)


def _training_query(draw: Callable[[], str]) -> str:
    """The first drawn text of the training part."""
    while split(query := draw()) != "train":
        pass
    return query


def _training_task(family: str, level: int, rng: random.Random) -> Task:
    task = parse(_training_query(lambda: make_query(family, level, rng)))
    assert task is not None  # generators are well-formed by construction
    return task


def _training_malformed(rng: random.Random) -> str:
    return _training_query(lambda: make_malformed(rng))


def _challenger_query(rng: random.Random) -> str:
    if rng.random() < CHALLENGER_MALFORMED:
        return _training_malformed(rng)
    level = rng.choices(LEVELS, weights=CHALLENGER_LEVELS)[0]
    return _training_task(rng.choice(FAMILIES), level, rng).query


def _skill_task(rng: random.Random) -> Task:
    family = rng.choices(list(FAMILY_WEIGHTS), weights=list(FAMILY_WEIGHTS.values()))[0]
    return _training_task(family, rng.choices(LEVELS, weights=SKILL_LEVELS)[0], rng)


def slip(answer: str, rng: random.Random) -> str:
    """A wrong answer as a hasty hand writes it: a character lost, two swapped, or one replaced."""
    while True:
        place, kind = rng.randrange(len(answer)), rng.random()
        if kind < 0.20:
            wrong = answer[:place] + answer[place + 1 :]
        elif kind < 0.35:
            wrong = answer[:place] + answer[place : place + 2][::-1] + answer[place + 2 :]
        else:
            letters = WORD_LETTERS if answer[place].isalpha() else "0123456789"
            wrong = answer[:place] + rng.choice(letters) + answer[place + 1 :]
        if wrong and wrong != answer:
            return wrong


def _solver_turn(rng: random.Random, careless: bool) -> tuple[str, str]:
    if rng.random() < SOLVER_MALFORMED:
        return _training_malformed(rng), rng.choice(["?", "idk", "0", "a"])
    task = _skill_task(rng)
    if not careless or rng.random() < CARELESS_RIGHT[task.level]:
        return task.query, task.answer
    return task.query, "idk" if rng.random() < CARELESS_IDK else slip(task.answer, rng)


def _judge_turn(rng: random.Random) -> Turn:
    """A judgement: 2 of the 7 points are the query's, 5 the answer's, with a little label noise."""
    if rng.random() < JUDGE_MALFORMED:
        query, answer = _training_malformed(rng), _any_answer(rng)
        score = rng.choices([0, 1], weights=[4, 1])[0]
    else:
        task, kind = _skill_task(rng), rng.random()
        query = task.query
        if kind < 0.5:
            answer, score = task.answer, rng.choices([7, 6], weights=[4, 1])[0]
        elif kind < 0.6:
            answer, score = "idk", rng.choice([2, 1])
        else:
            answer, score = slip(task.answer, rng), rng.choices([3, 4], weights=[7, 3])[0]
    return Turn("judge", render_judge(query, answer), judge_reply(score, rng.random() < 0.5))


def judge_reply(score: int, calculation: bool) -> str:
    """The judge's reply for a score of 0..7: the tagged score, with its sum before it or not."""
    for_query = min(score, 2)
    working = f"<Calculation>{for_query}+{score - for_query}</Calculation>" if calculation else ""
    return f"{working}<Score>{score}</Score>"


def _any_answer(rng: random.Random) -> str:
    """An answer to some other query: beside a malformed one anything may stand."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(["?", "idk", "0", "a"])
    answer = _skill_task(rng).answer
    return answer if kind < 0.8 else slip(answer, rng)


# -- shipped query sets --------------------------------------------------------------------------


def held_out_tasks(
    part: str, per_cell: int, seed: str, families: Sequence[str] = FAMILIES
) -> list[Task]:
    """Up to `per_cell` distinct tasks of each family and level that belong to `part`.

    Small cells give as many as they hold: drawing stops when nothing new has come for long.
    """
    tasks: list[Task] = []
    for family in families:
        for level in LEVELS:
            rng = random.Random(f"{seed}:{part}:{family}:{level}")
            cell: dict[str, Task] = {}
            for _ in range(20_000):
                query = make_query(family, level, rng)
                if split(query) == part and (task := parse(query)) is not None:
                    cell[query] = task
                if len(cell) == per_cell:
                    break
            tasks.extend(cell.values())
    return tasks


def training_tasks(count: int, seed: str) -> list[Task]:
    """`count` tasks of the training part, families and levels uniform, for the GRPO baseline."""
    rng = random.Random(f"{seed}:train")
    return [_training_task(rng.choice(FAMILIES), rng.choice(LEVELS), rng) for _ in range(count)]


def task_record(task: Task) -> dict[str, str | int]:
    """A line of the shipped files: query, reference, family, level."""
    record = asdict(task)
    return {
        "query": record["query"],
        "reference": record["answer"],
        "family": record["family"],
        "level": record["level"],
    }
