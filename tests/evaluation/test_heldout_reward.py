"""Which reward scores held-out tasks, and what its scores are."""

import json
import math
from pathlib import Path

import pytest
import torch
from small_game import Checksum, make_policy

from lsp_lightning import (
    ConfigError,
    FunctionReward,
    NoveltyReward,
    Reward,
    Sampling,
    SelfReward,
    VerifiableReward,
)
from lsp_lightning.cli.main import main
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.heldout import HeldOutBoard, heldout_reward
from lsp_lightning.game.known_queries import Query
from lsp_lightning.game.player import FrozenPlayer, Player

ROOT = Path(__file__).parents[2]


def length(query, answers, solution):
    """The number of characters."""
    return [len(answer) for answer in answers]


class Graded(Reward):
    """Scores that can be compared."""

    comparable = True


class Ranked(Reward):
    """Scores of an answer against the others of its group."""

    needs_group = True


# -- the choice ------------------------------------------------------------------------------------

PLAIN = FunctionReward(length)
PROOF = VerifiableReward(Checksum(), weight=0.0, name="proof")
GRADED, RANKED = Graded(name="graded"), Ranked(name="ranked")
QUALITY = SelfReward()
NOVEL = NoveltyReward()


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([PLAIN, GRADED, PROOF], (PROOF, "solved")),
        ([PLAIN, GRADED], (GRADED, "win_rate")),
        ([RANKED, PLAIN, QUALITY], (PLAIN, "mean")),
        ([NOVEL, QUALITY, RANKED], None),
        ([], None),
    ],
)
def test_by_default_a_binary_task_reward_goes_first_then_a_comparable_one(rewards, expected):
    assert heldout_reward(rewards) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("length", (PLAIN, "mean")),
        ("proof", (PROOF, "solved")),
        ("graded", (GRADED, "win_rate")),
        ("self_reward", (QUALITY, "mean")),
    ],
)
def test_a_name_chooses_whatever_the_order_the_weight_and_the_kind(name, expected):
    rewards = [PLAIN, GRADED, QUALITY, PROOF]
    for order in (rewards, rewards[::-1]):
        assert heldout_reward(order, name) == expected


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("truth", "no reward is named 'truth'"),
        ("novelty", "'novelty' scores queries, not answers"),
        (
            "ranked",
            "'ranked' compares the answers of a group, so it cannot score a single answer",
        ),
    ],
)
def test_a_name_that_cannot_score_answers_is_an_error_that_lists_the_choices(name, problem):
    with pytest.raises(ConfigError) as error:
        heldout_reward([PLAIN, RANKED, NOVEL, PROOF], name)
    assert str(error.value) == f"data.heldout_reward: {problem}; set one of length, proof"


def test_without_any_choice_the_error_says_what_to_add():
    with pytest.raises(ConfigError, match=r"; add a reward that scores answers$"):
        heldout_reward([RANKED], "ranked")


# -- the mean of a function's numbers --------------------------------------------------------------


def test_a_functions_held_out_score_is_the_mean_of_its_numbers(brief_folder):
    policy = make_policy(brief_folder)
    player, tasks = Player.local(policy), [Query(f"question {i}") for i in range(3)]
    given = []

    def mine(query, answers, solution):
        given.append(answers)
        return [None if query == "question 1" else float(len(answer)) for answer in answers]

    sampling = Sampling(max_new_tokens=8)
    exam = Exam.of(player.codec, tasks, FunctionReward(mine), sampling, "{query}", 4, 0)
    board = HeldOutBoard()
    board.score(player, exam, "mean", FrozenPlayer(policy))
    board.close()
    assert board.kind == "mean"
    names = {"heldout/sampled", "heldout/greedy"}
    assert set(board.scores) == names | {f"{name}_se" for name in names} | {"heldout/tasks"}
    assert board.scores["heldout/tasks"] == 2  # one could not be judged
    judged = [torch.tensor([len(a) for a in g]).float() for g in (given[0], given[2])]
    assert math.isclose(board.scores["heldout/sampled"], torch.cat(judged).mean(), rel_tol=1e-6)


@pytest.mark.usefixtures("untouched_process")
def test_a_run_with_a_function_alone_ends_with_its_mean(tmp_path, brief_folder, capfd):
    (tmp_path / "tasks.jsonl").write_text('{"query": "one"}\n{"query": "two"}\n')
    function = {"function": f"{__name__}.length"}
    rewards = [{"class_path": "lsp_lightning.FunctionReward", "init_args": function}]
    arguments = [
        *("fit", "--config", str(ROOT / "configs/tiny_lsp.yaml")),
        *("--model.base", str(brief_folder), "--model.rewards", json.dumps(rewards)),
        *("--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_steps", "1"),
        *("--data.num_queries", "2", "--data.group_size", "2", "--data.gate", "null"),
        *("--data.heldout", str(tmp_path / "tasks.jsonl"), "--data.pool", "null"),
    ]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_after"]["kind"] == "mean"
    assert "mean held-out reward of sampled answers: " in capfd.readouterr().out


@pytest.mark.usefixtures("untouched_process", "no_model")
def test_a_run_says_before_loading_a_model_that_there_is_no_such_reward(tmp_path, capsys):
    arguments = [
        *("fit", "--config", str(ROOT / "configs/tiny_lsp.yaml")),
        *("--trainer.default_root_dir", str(tmp_path), "--data.heldout_reward", "truth"),
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "error: data.heldout_reward: no reward is named 'truth'; set one of verifiable, self_reward"
    )
