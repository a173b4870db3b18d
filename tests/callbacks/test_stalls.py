"""A run that learns nothing says why, once, and what it says to change helps."""

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from handmade import FixedReward, playout, rollouts, scored_round
from small_game import Checksum

from lsp_lightning import (
    Challenger,
    FunctionReward,
    Player,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    VerifiableReward,
    errors,
    play_round,
)
from lsp_lightning.callbacks.stalls import StallWatch, stalls
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.models.policy import Policy
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier
from lsp_lightning.types import Written

NAN = float("nan")
WORLD = "pkg:lsp_lightning/tinyworld"


def judged_by(*rewards, scores, **round_):
    """A round of 2 queries x 3 answers with the scores of these rewards."""
    parts = {r.name: torch.tensor(s) for r, s in zip(rewards, scores, strict=True)}
    task = next(parts[r.name] for r in rewards if r.enters == "task")
    played = scored_round(task.nan_to_num().tolist(), judged=(~task.isnan()).tolist(), **round_)
    return replace(played, components=parts)


def reward(name="r", binary=True, span=None, **kwargs):
    made = FixedReward(None, name=name, **kwargs)
    made.binary, made.span = binary, span
    return made


def causes(played, *rewards, data=None):
    return [stall.cause for stall in stalls(played, rewards, data)]


MIXED = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("scores", "cause"),
    [
        (MIXED, []),
        ([[0.0] * 3] * 2, ["all wrong"]),
        ([[1.0] * 3] * 2, ["all right"]),
        ([[1.0] * 3, [0.0] * 3], ["R constant"]),
        ([[NAN] * 3] * 2, ["unjudged"]),
        ([[NAN, 0.0, NAN], [0.0] * 3], ["all wrong"]),
        ([[NAN] * 3, [0.0, 1.0, 0.0]], []),
    ],
)
def test_a_constant_R_is_told_by_its_value(scores, cause):
    right = reward()
    assert causes(judged_by(right, scores=[scores]), right) == cause


@pytest.mark.parametrize(
    ("quality", "found"),
    [
        ([[0.513, 0.560, 0.53], [0.54, 0.55, 0.52]], True),
        ([[0.5] * 3] * 2, True),
        ([[0.2, 0.2, 0.2], [0.7, 0.7, 0.7]], False),  # it tells queries apart
        ([[0.4, 0.5, 0.6], [0.5, 0.4, 0.6]], False),
        ([[0.5, NAN, 0.51], [NAN] * 3], True),
    ],
)
def test_a_quality_score_that_hardly_differs_is_named(quality, found):
    right, good = reward(), reward("good", binary=False, span=(0.0, 1.0), enters="quality")
    played = judged_by(right, good, scores=[MIXED, quality])
    assert causes(played, right, good) == (["Q constant: 'good'"] if found else [])


def test_a_span_is_what_scores_are_compared_with():
    right, good = reward(), reward("good", binary=False, span=(0.0, 10.0), enters="quality")
    played = judged_by(right, good, scores=[MIXED, [[0.4, 0.5, 0.6], [0.5, 0.4, 0.6]]])
    assert causes(played, right, good) == ["Q constant: 'good'"]


def test_a_reward_without_a_span_is_constant_only_up_to_rounding():
    right, model = reward(), reward("model", binary=False, enters="quality")
    near = [[3.0, 3.001, 3.0], [3.0, 3.0, 3.001]]
    assert causes(judged_by(right, model, scores=[MIXED, near]), right, model) == []
    same = [[3.0] * 3] * 2
    assert causes(judged_by(right, model, scores=[MIXED, same]), right, model) == [
        "Q constant: 'model'"
    ]
    weightless = reward("model", binary=False, enters="quality", weight=0.0)
    assert causes(judged_by(right, weightless, scores=[MIXED, same]), right, weightless) == []


def test_a_judge_as_task_reward_is_judged_by_its_span():
    judge = reward("judge", binary=False, span=(0.0, 1.0))
    weak = [[0.513, 0.560, 0.53], [0.54, 0.55, 0.52]]
    assert causes(judged_by(judge, scores=[weak]), judge) == ["R constant: 'judge'"]
    assert causes(judged_by(judge, scores=[[[0.0] * 3] * 2]), judge) == ["all wrong"]


def test_a_function_that_returns_one_number_is_told_to_tell_answers_apart():
    made = FunctionReward(lambda q, a, s: [0.5 for _ in a], name="mine")
    [stall] = stalls(judged_by(made, scores=[[[0.5] * 3] * 2]), [made], None)
    assert stall.fact.startswith("the function of 'mine' returned nearly the same number for all")
    assert stall.remedy.startswith("let it tell answers apart (model.rewards)")


def test_the_best_score_of_a_penalty_is_its_lowest():
    rude = reward("rude", weight=-1.0)
    assert causes(judged_by(rude, scores=[[[0.0] * 3] * 2]), rude) == ["all right"]
    assert causes(judged_by(rude, scores=[[[1.0] * 3] * 2]), rude) == ["all wrong"]


@pytest.mark.parametrize("texts", [["", " ", "\n"], ["<think>a", "<think>b", "<think>c"], "abc"])
def test_a_judge_is_not_blamed_where_it_has_nothing_to_judge(texts):
    right, good = reward(), reward("good", binary=False, span=(0.0, 1.0), enters="quality")
    played = judged_by(right, good, scores=[[[0.0] * 3] * 2, [[0.5] * 3] * 2])
    played = replace(played, playout=playout(["q", "p"], [list(texts)] * 2))
    found = causes(played, right, good)
    assert ("Q constant: 'good'" in found) == (texts == "abc")
    assert len(found) == (2 if texts == "abc" else 1)


def test_a_judge_is_not_blamed_where_no_query_is_well_formed():
    right, good = reward(), reward("good", binary=False, span=(0.0, 1.0), enters="quality")
    played = judged_by(right, good, scores=[[[0.0] * 3] * 2, [[0.5] * 3] * 2])
    played = replace(played, query_info={"r/malformed": (True, True)})
    assert causes(played, right, good) == ["malformed"]


def test_answers_that_do_not_agree_need_solutions():
    vote = reward("maths")
    played = judged_by(vote, scores=[[[NAN] * 3] * 2])
    played = replace(played, query_info={"maths/agreement": (0.2, 0.1)})
    [stall] = stalls(played, [vote], None)
    assert stall.cause == "unjudged"
    assert stall.remedy.startswith("give solutions (data.queries)")


def written(texts, truncated, valid):
    rows = rollouts(texts, truncated=truncated)
    return Written.all_answered(rows, valid)


@pytest.mark.parametrize(
    ("texts", "truncated", "cause"),
    [
        (["a", "b"], [True, True], "queries cut off"),
        (["", " "], [False, False], "queries empty"),
        (["a", ""], [True, False], "queries invalid"),
    ],
)
def test_queries_come_before_what_follows_from_them(texts, truncated, cause):
    right = reward()
    played = judged_by(right, scores=[[[0.0] * 3] * 2])
    played = replace(
        played,
        query_info={"r/malformed": (True, True)},
        playout=replace(played.playout, written=written(texts, truncated, [False, False])),
    )
    assert causes(played, right) == [cause]
    half = replace(played.playout, written=written(texts, truncated, [True, False]))
    assert causes(replace(played, playout=half), right) == ["malformed"]


@pytest.mark.parametrize(
    ("texts", "cut", "cause"),
    [
        (["<think>a", "<think>b", "<think>c"], True, "thoughts unclosed"),
        (["<think>a", "<think>b", "<think>c"], False, "thoughts unclosed"),
        (["", " ", "\n"], False, "answers empty"),
        (["a", "b", "c"], True, "answers cut off"),
        (["a", "a", "a"], False, "answers identical"),
        (["a", "b", "c"], False, "all wrong"),
    ],
)
def test_unfinished_answers_come_before_their_scores(texts, cut, cause):
    right = reward()
    played = judged_by(right, scores=[[[0.0] * 3] * 2])
    game = playout(["q", "p"], [texts, texts])
    game = replace(game, answers=rollouts(texts * 2, truncated=[cut] * 6))
    assert causes(replace(played, playout=game), right) == [cause]


# -- when it is said -------------------------------------------------------------------------------


def said(*found_per_round, rounds_of_run=100):
    """The rounds in which a warning comes, for the causes that each round has."""
    watch, rounds = StallWatch(), []
    watch.on_train_start(SimpleNamespace(max_steps=rounds_of_run), None)
    right = reward()
    errors._warned.clear()
    for index, bad in enumerate(found_per_round):
        played = judged_by(right, scores=[[[0.0] * 3] * 2 if bad else MIXED])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.observe(replace(played, index=index), list(stalls(played, [right], None)))
        assert all(w.category is SelfPlayWarning for w in caught)
        rounds += [index + 1] * len(caught)
    return rounds


def test_it_is_said_once_after_five_rounds_in_a_row():
    assert said(*[True] * 20) == [5]
    assert said(*[True] * 4, False, *[True] * 4) == []


def test_in_a_run_of_three_rounds_it_is_said_in_the_last():
    assert said(*[True] * 3, rounds_of_run=3) == [3]
    assert said(*[True] * 4, rounds_of_run=4) == [4]
    assert said(*[True] * 4, rounds_of_run=100) == []
    assert said(True, True, rounds_of_run=2) == []


def test_it_is_said_again_only_after_it_was_gone_for_long():
    assert said(*[True] * 6, False, *[True] * 20) == [5]  # one good round is no change
    assert said(*[True] * 6, *[False] * 5, *[True] * 6) == [5, 16]


def test_others_can_ask_what_lasts_and_what_was_named_also_after_a_resume():
    watch, right = StallWatch(), reward()
    bad = judged_by(right, scores=[[[0.0] * 3] * 2])
    for index in range(5):
        assert watch.causes == ({"all wrong": False} if index else {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            watch.observe(replace(bad, index=index), list(stalls(bad, [right], None)))
    assert watch.causes == {"all wrong": True}
    resumed = StallWatch()
    resumed.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    assert resumed.causes == watch.causes
    with warnings.catch_warnings():  # it is not named again
        warnings.simplefilter("error")
        resumed.observe(replace(bad, index=5), list(stalls(bad, [right], None)))


def test_the_line_names_the_cause_and_a_key():
    watch, right = StallWatch(), reward()
    played = judged_by(right, scores=[[[0.0] * 3] * 2])
    trainer = SimpleNamespace(datamodule=SelfPlayDataModule())
    module = SimpleNamespace(rewards=[right])
    for _ in range(4):
        watch.on_train_batch_end(trainer, module, None, played, 0)
    with pytest.warns(SelfPlayWarning) as caught:
        watch.on_train_batch_end(trainer, module, None, played, 0)
    assert [str(w.message) for w in caught] == [
        "for 5 rounds in a row, every answer was wrong, so R taught nothing; "
        "ask for easier queries (data.queries.init_args.prompt)"
    ]


# -- what it says to change helps: each cause is played, and then its remedy -----------------------


@pytest.fixture(scope="module")
def world():
    """The tiny world's model."""
    return Policy(f"{WORLD}/base")


def game(policy, rewards, *, prompt=None, path=None, written=28, sampling=None, n=4, g=4):
    """The causes in a round that ``policy`` really plays, and the lines about them."""
    queries = (
        PromptFile(str(path))
        if path
        else Challenger(prompt=prompt, sampling=Sampling(max_new_tokens=written))
    )
    solver = Sampling(**{"max_new_tokens": 8, **(sampling or {})})
    data = SelfPlayDataModule(queries, num_queries=n, group_size=g, solver=solver)
    player = Player.local(policy)
    played = play_round(
        player, queries, rewards, num_queries=n, group_size=g, sampling=solver, seed=0
    )
    return {stall.cause: stall.remedy for stall in stalls(played, rewards, data)}


def in_world(world, rewards=None, **kwargs):
    kwargs.setdefault("prompt", f"{WORLD}/prompts/challenger.txt")
    return game(world, rewards or [VerifiableReward(TinyWorldVerifier())], n=8, g=8, **kwargs)


def test_a_healthy_round_of_the_tiny_world_has_no_stall(world):
    assert in_world(world) == {}


def test_more_tokens_help_queries_that_are_cut_off(world):
    [(cause, remedy)] = in_world(world, written=1).items()
    assert cause == "queries cut off"
    assert remedy.startswith("raise data.queries.init_args.sampling.max_new_tokens, or end")


def test_another_prompt_helps_malformed_queries(world, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Say anything.")
    [(cause, remedy)] = in_world(world, prompt=str(prompt)).items()
    assert cause == "malformed"
    assert "another prompt (data.queries.init_args.prompt)" in remedy


def test_more_tokens_help_answers_that_are_cut_off(world):
    found = in_world(world, sampling={"max_new_tokens": 1})
    assert found == {"answers cut off": "raise data.solver.max_new_tokens"}


def test_a_higher_temperature_helps_identical_answers(world):
    cold = in_world(world, sampling={"temperature": 1e-4})
    assert cold["answers identical"].startswith("raise data.solver.temperature (now 0.0001)")


def tasks_of(tmp_path, rows):
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_other_queries_help_where_all_are_too_hard_or_too_easy(world, tmp_path):
    hard = tasks_of(tmp_path, [{"query": "max 88 82 31", "solution": "1"}] * 8)
    rewards = [VerifiableReward(Never())]
    found = game(world, rewards, path=hard, n=8, g=8)
    assert found == {"all wrong": "ask for easier queries (data.queries.init_args.path)"}
    medium = tasks_of(tmp_path, [{"query": "max 88 82 31"}] * 8)
    assert game(world, [VerifiableReward(TinyWorldVerifier())], path=medium, n=8, g=8) == {}


class Never(Checksum):
    def check(self, query, answers, solution):
        return [0.0] * len(answers)
