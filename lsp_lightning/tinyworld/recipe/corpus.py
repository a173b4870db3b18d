"""The training corpus of the base model, and the query sets that are shipped.

Turns of the Challenger, the Solver and the judge are drawn without end. Solver turns are clean
first and careless later, so the model knows most answers but often gives wrong ones. Self-play
closes this gap. All turns use queries of the training split (`tasks.split`) only.
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

# Shares of the three roles, first while answers are clean, then while they are careless.
CLEAN_SHARES = {"challenger": 0.05, "solver": 0.70, "judge": 0.25}
CARELESS_SHARES = {"challenger": 0.15, "solver": 0.45, "judge": 0.40}
# Share of malformed queries within each role.
CHALLENGER_MALFORMED, SOLVER_MALFORMED, JUDGE_MALFORMED = 0.12, 0.04, 0.45
CHALLENGER_LEVELS = (0.6, 0.3, 0.1)  # weights of levels 1..3: the base writes easy queries
# Weights of families and levels in the Solver's and judge's turns; harder ones come more often.
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
CARELESS_IDK = 0.25  # share of `idk` among wrong answers; the rest are slips


@dataclass(frozen=True)
class Turn:
    """A training example: one user turn and the assistant's reply, without the chat template."""

    role: str
    """challenger, solver or judge."""
    prompt: str
    """Content of the user turn."""
    reply: str
    """Content of the assistant turn, without the end token."""


def draw_turn(rng: random.Random, careless: bool) -> Turn:
    """A turn of a random role; with `careless`, the Solver often answers wrongly."""
    shares = CARELESS_SHARES if careless else CLEAN_SHARES
    role = rng.choices(list(shares), weights=list(shares.values()))[0]
    if role == "challenger":
        return Turn(role, CHALLENGER_PROMPT, _challenger_query(rng))
    if role == "solver":
        return Turn(role, *_solver_turn(rng, careless))
    return _judge_turn(rng)


def turns(rng: random.Random, careless: bool) -> Iterator[Turn]:
    """Draw turns without end."""
    while True:
        yield draw_turn(rng, careless)


def render_judge(query: str, answer: str) -> str:
    """The judge's user turn for a query and its answer."""
    return JUDGE_PROMPT.format(instruction=query, response=answer)


def _training_query(draw: Callable[[], str]) -> str:
    """Draw texts until one belongs to the training split."""
    while split(query := draw()) != "train":
        pass
    return query


def _training_task(family: str, level: int, rng: random.Random) -> Task:
    task = parse(_training_query(lambda: make_query(family, level, rng)))
    assert task is not None  # generators write well-formed queries only
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
    """The answer with a typing mistake: a character lost, two swapped, or one replaced."""
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
    """A judgement: up to 2 points for the query and 5 for the answer, with some label noise."""
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
    """The judge's reply for a score of 0..7; with `calculation`, the sum comes before the score."""
    for_query = min(score, 2)
    working = f"<Calculation>{for_query}+{score - for_query}</Calculation>" if calculation else ""
    return f"{working}<Score>{score}</Score>"


def _any_answer(rng: random.Random) -> str:
    """An answer for a malformed query: `?`, `idk`, or an answer to some other query."""
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

    A family and level with fewer distinct tasks gives fewer: drawing stops after 20,000 queries.
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
    """`count` tasks of the training split for the GRPO baseline, uniform in family and level."""
    rng = random.Random(f"{seed}:train")
    return [_training_task(rng.choice(FAMILIES), rng.choice(LEVELS), rng) for _ in range(count)]


def task_record(task: Task) -> dict[str, str | int]:
    """A line of the shipped files: query, reference (the answer), family, level."""
    record = asdict(task)
    return {
        "query": record["query"],
        "reference": record["answer"],
        "family": record["family"],
        "level": record["level"],
    }
