"""The corpus has no held-out query, and its shares of careless answers are as stated."""

import json
import random

import pytest

from lsp_lightning.tinyworld import DATA_DIR
from lsp_lightning.tinyworld.recipe.corpus import (
    CARELESS_RIGHT,
    CHALLENGER_PROMPT,
    draw_turn,
    held_out_tasks,
    judge_reply,
    slip,
    training_tasks,
)
from lsp_lightning.tinyworld.tasks import (
    FAMILIES,
    LEVELS,
    MAX_ANSWER,
    MAX_QUERY,
    parse,
    split,
)


def records(part):
    lines = (DATA_DIR / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def query_of(turn):
    if turn.role == "challenger":
        return turn.reply
    return turn.prompt.removeprefix("<|judge|>").split("<|answer|>")[0]


@pytest.fixture(scope="module")
def turns():
    rng = random.Random(0)
    return [draw_turn(rng, careless=True) for _ in range(6000)]


def test_no_turn_holds_a_held_out_query(turns):
    assert {split(query_of(turn)) for turn in turns} == {"train"}


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_shipped_queries_are_well_formed_and_of_their_part(part):
    for record in records(part):
        task = parse(record["query"])
        assert task is not None
        assert record == {
            "query": task.query,
            "reference": task.answer,
            "family": task.family,
            "level": task.level,
        }
        assert split(task.query) == part
        assert len(task.query) <= MAX_QUERY
        assert len(task.answer) <= MAX_ANSWER


def test_shipped_parts_are_disjoint():
    train, dev, test = ({r["query"] for r in records(part)} for part in ("train", "dev", "test"))
    assert train.isdisjoint(dev)
    assert train.isdisjoint(test)
    assert dev.isdisjoint(test)


@pytest.mark.parametrize("part", ["dev", "test"])
def test_held_out_sets_are_distinct_and_balanced(part):
    queries = [r["query"] for r in records(part)]
    assert len(queries) == len(set(queries))
    sizes = [
        sum(r["family"] == family and r["level"] == level for r in records(part))
        for family in FAMILIES
        for level in LEVELS
    ]
    assert max(sizes) == 24
    assert sum(size == 24 for size in sizes) >= 18  # all but the small cells of level 1
    assert min(sizes) > 0


def test_training_file_is_what_the_generator_draws():
    tasks = training_tasks(50, "0:data")
    assert [task.query for task in tasks] == [r["query"] for r in records("train")[:50]]
    assert len(records("train")) == 8192


def test_held_out_drawing_is_repeatable():
    assert held_out_tasks("dev", 2, "s") == held_out_tasks("dev", 2, "s")


def test_careless_solvers_are_right_as_often_as_stated(turns):
    for level in LEVELS:
        tasks = [(t, parse(t.prompt)) for t in turns if t.role == "solver"]
        marks = [t.reply == task.answer for t, task in tasks if task and task.level == level]
        # More than 700 turns for each level: one standard error is at most .5/sqrt(700) = .019.
        assert sum(marks) / len(marks) == pytest.approx(CARELESS_RIGHT[level], abs=0.07)


def test_clean_solvers_are_right():
    rng = random.Random(1)
    drawn = [draw_turn(rng, careless=False) for _ in range(500)]
    tasks = [(turn, parse(turn.prompt)) for turn in drawn if turn.role == "solver"]
    assert all(turn.reply == task.answer for turn, task in tasks if task is not None)


def test_challenger_prompt_and_replies(turns):
    challenger = [turn for turn in turns if turn.role == "challenger"]
    assert {turn.prompt for turn in challenger} == {CHALLENGER_PROMPT} == {"<|challenger|>"}
    malformed = sum(parse(turn.reply) is None for turn in challenger) / len(challenger)
    assert malformed == pytest.approx(0.12, abs=0.05)


def test_judge_replies():
    assert judge_reply(7, calculation=True) == "<Calculation>2+5</Calculation><Score>7</Score>"
    assert judge_reply(3, calculation=True) == "<Calculation>2+1</Calculation><Score>3</Score>"
    assert judge_reply(1, calculation=True) == "<Calculation>1+0</Calculation><Score>1</Score>"
    assert judge_reply(0, calculation=False) == "<Score>0</Score>"


def test_judge_scores_follow_form_and_truth(turns):
    for turn in turns:
        if turn.role != "judge":
            continue
        answer = turn.prompt.split("<|answer|>")[1]
        score = int(turn.reply.split("<Score>")[1][0])
        task = parse(query_of(turn))
        if task is None:
            assert score in (0, 1)
        elif answer == task.answer:
            assert score in (6, 7)
        else:
            assert score in ((1, 2) if answer == "idk" else (3, 4))


def test_a_slip_is_never_the_right_answer_and_never_empty():
    rng = random.Random(0)
    for answer in ["7", "77", "-3", "abcdefg", "0", "100"]:
        slips = {slip(answer, rng) for _ in range(200)}
        assert answer not in slips
        assert all(0 < len(text) <= len(answer) for text in slips)
