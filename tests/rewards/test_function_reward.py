"""A function of a query and its answers is a reward, by its path in a config or in Python."""

import functools
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from handmade import playout
from lightning.pytorch import Trainer

from lsp_lightning import ConfigError, FunctionReward, LengthReward
from lsp_lightning.cli.main import main
from lsp_lightning.rewards import (
    RewardError,
    check_rewards,
    in_unit_range,
    is_binary,
    require_limits,
    require_unit_range,
    score_all,
)

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).stem
PLAYED = playout(["q", "longer"], [["a", "bc"], ["", "<think>aaaa</think> d"]], solutions=[1, 2])


def length_score(query, answers, solution):
    """How long each answer is."""
    return [len(answer) for answer in answers]


def two_arguments(query, answers):
    """Not what is called."""
    return [0.0] * len(answers)


class Scorer:
    """A function with a memory."""

    def __init__(self):
        self.seen = []

    def __call__(self, query, answers, solution):
        self.seen.append((query, answers, solution))
        return [1.0] * len(answers)


# -- what it is given and gives --------------------------------------------------------------------


def test_each_query_is_scored_with_its_answers_and_its_solution():
    scorer = Scorer()
    assert FunctionReward(scorer).score(PLAYED).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    # the second answer to the second query is what was said, not what was thought
    assert scorer.seen == [("q", ("a", "bc"), 1), ("longer", ("", "d"), 2)]


def test_without_solutions_it_gets_none():
    scorer = Scorer()
    FunctionReward(scorer).score(playout(["q"], [["a", "b"]]))
    assert scorer.seen == [("q", ("a", "b"), None)]


@pytest.mark.parametrize("kind", [list, tuple, iter, torch.tensor])
def test_any_sequence_of_numbers_will_do(kind):
    def mine(query, answers, solution):
        return kind([float(len(answer)) for answer in answers])

    scores = FunctionReward(mine).score(PLAYED)
    assert scores.tolist() == [[1.0, 2.0], [0.0, 1.0]]
    assert scores.dtype == torch.float32


def test_none_means_unjudged_and_contributes_no_gradient():
    reward = FunctionReward(lambda q, answers, r: [None if not a else len(a) for a in answers])
    scored = score_all([reward], PLAYED)
    assert scored.components["<lambda>"].isnan().tolist() == [[False, False], [True, False]]
    assert scored.rewards_NG.tolist() == [[1.0, 2.0], [1.0, 1.0]]
    assert scored.judged_NG.tolist() == [[True, True], [False, True]]


def test_none_for_everything_ends_the_round():
    reward = FunctionReward(lambda q, answers, r: [None] * len(answers), name="mine")
    message = "'mine' could judge nothing in this round: every score is NaN or None"
    with pytest.raises(RewardError, match=message):
        score_all([reward], PLAYED)


def test_a_function_that_ends_the_process_is_one_line():
    def mine(query, answers, solution):
        sys.exit(3)

    with pytest.raises(
        RewardError, match=r"'mine' failed: it ended the process \(SystemExit: 3\);"
    ):
        score_all([FunctionReward(mine)], PLAYED)


def test_an_async_function_is_refused_before_the_run():
    async def mine(query, answers, solution):
        return [0.0 for _ in answers]

    with pytest.raises(ConfigError, match=r"function: 'mine' is async; write it without async"):
        FunctionReward(mine)


@pytest.mark.parametrize(("scores", "count"), [([], 0), ([1.0], 1), ([1.0] * 3, 3)])
def test_where_it_returns_another_count_than_of_answers_the_query_is_unjudged(scores, count):
    reward = FunctionReward(lambda q, a, r: [0.0] * 2 if q == "q" else scores, name="mine")
    message = rf"could not judge 1 of 2: {count} scores for 2 answers, at "
    with pytest.warns(UserWarning, match=message):
        scored = score_all([reward], PLAYED)
    assert scored.judged_NG.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("returned", [None, 1.0, ["high", "low"], [[1.0], [2.0, 3.0]]])
def test_what_is_never_a_number_ends_the_round(returned):
    reward = FunctionReward(lambda q, a, r: returned, name="mine")
    with pytest.raises(RewardError, match=r"^reward 'mine' failed: .* returned ") as error:
        score_all([reward], PLAYED)
    cause = error.value
    while cause is not None:  # another cause would be shown with a traceback
        assert isinstance(cause, RewardError)
        cause = cause.__cause__


def test_its_own_fault_surfaces_with_its_cause():
    def mine(query, answers, solution):
        raise KeyError("no such table")

    message = r"'mine' failed: KeyError: 'no such table', at 'q'"
    with pytest.raises(RewardError, match=message) as error:
        score_all([FunctionReward(mine)], PLAYED)
    cause = error.value.__cause__.__cause__
    assert isinstance(cause, KeyError)
    assert cause.__traceback__ is not None
    frames = []
    traceback = cause.__traceback__
    while traceback:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "mine"  # the user is shown the place in their own code


def test_an_infinite_score_is_no_judgement():
    first = iter([float("inf"), 1.0, -float("inf"), 0.5])
    reward = FunctionReward(lambda q, a, r: [next(first) for _ in a], name="mine")
    scored = score_all([reward], PLAYED)
    assert scored.judged_NG.tolist() == [[False, True], [False, True]]
    reward = FunctionReward(lambda q, a, r: [float("inf")] * len(a), name="mine")
    with pytest.raises(
        RewardError, match=r"'mine' could judge nothing .*: every score is infinite"
    ):
        score_all([reward], PLAYED)


# -- its settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (length_score, "length_score"),
        (lambda q, a, r: [], "<lambda>"),
        (functools.partial(length_score), "partial"),
        (Scorer(), "Scorer"),
    ],
)
def test_it_is_named_after_its_function(function, name):
    assert FunctionReward(function).name == name
    assert FunctionReward(function, name="mine").name == "mine"
    assert FunctionReward(function).state_key == f"FunctionReward[{name}]"


def test_two_functions_without_names_must_be_named():
    pair = [FunctionReward(lambda q, a, r: [0.0] * 2) for _ in range(2)]
    with pytest.raises(ConfigError, match=r"two rewards are named '<lambda>'; set "):
        check_rewards(pair)


@pytest.mark.parametrize(
    "function",
    [
        two_arguments,
        lambda: [],
        lambda query, answers, solution, more: [],
        lambda *, query, answers, solution: [],
        functools.partial(length_score, solution=1),
        len,
        max,  # has no signature that could be looked at
    ],
)
def test_a_function_of_other_arguments_is_refused_in_one_line(function):
    with pytest.raises(ConfigError) as error:
        FunctionReward(function)
    message = str(error.value)
    assert message.startswith("model.rewards.FunctionReward.function: ")
    assert "(query, answers, solution)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "function",
    [
        lambda query, answers, solution=None: [1.0] * len(answers),
        lambda *args: [1.0] * len(args[1]),
        lambda *args, **kwargs: [1.0] * len(args[1]),
        functools.partial(lambda more, q, a, r: [1.0] * len(a), 7),
    ],
)
def test_a_function_that_takes_the_three_is_taken(function):
    assert FunctionReward(function).score(PLAYED).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_its_range_is_what_its_span_says():
    assert not in_unit_range([FunctionReward(length_score)])
    assert in_unit_range([FunctionReward(length_score, span=(0.0, 1.0))])
    assert not is_binary([FunctionReward(length_score, span=(0.0, 1.0))])
    with pytest.raises(ConfigError, match=r"^model\.objective: "):
        require_unit_range([FunctionReward(length_score, span=(0.0, 2.0))], "model.objective")


def test_binary_and_comparable_are_arguments():
    plain = FunctionReward(length_score)
    assert (plain.binary, plain.comparable, plain.span) == (False, False, None)
    assert FunctionReward(length_score, comparable=True).comparable
    binary = FunctionReward(length_score, binary=True)
    assert is_binary([binary])
    assert in_unit_range([binary])
    with pytest.raises(RewardError, match="'length_score' has binary = True, but returned"):
        score_all([binary], PLAYED)


def test_it_enters_for_answers_only():
    assert FunctionReward(length_score, enters="quality").enters == "quality"
    with pytest.raises(ConfigError, match="'length_score' scores answers, so it cannot enter"):
        FunctionReward(length_score, enters="challenger")


# -- in a config -----------------------------------------------------------------------------------


def made_from(tmp_path, monkeypatch, **init_args):
    """The exit status, and the rewards of the module that a config with this reward makes."""
    config = yaml.safe_load((ROOT / "configs" / "tiny_lsp.yaml").read_text())
    config["model"]["rewards"] = [
        {"class_path": "lsp_lightning.FunctionReward", "init_args": init_args}
    ]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    made = []
    fit = Trainer.fit

    @functools.wraps(fit)
    def nothing(self, model, *args, **kwargs):
        made.extend(model.rewards)

    monkeypatch.setattr(Trainer, "fit", nothing)
    args = ["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path / "run")]
    return main(args), made


@pytest.mark.usefixtures("untouched_process")
def test_a_config_names_a_function_by_its_path(tmp_path, monkeypatch):
    status, [reward] = made_from(
        tmp_path,
        monkeypatch,
        function=f"{HERE}.length_score",
        span=[0, 9],
        weight=0.5,
        standardize=True,
    )
    assert status == 0
    assert reward.name == "length_score"
    assert reward.span == (0, 9)
    assert reward.weight == 0.5
    assert reward.scale is not None
    assert reward.score(PLAYED).tolist() == [[1.0, 2.0], [0.0, 1.0]]


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (f"{HERE}.two_arguments", "'two_arguments' cannot be called with (query, answers, sol"),
        (f"{HERE}.no_such_function", "no_such_function"),
        ("no_such_package.score", "no_such_package"),
        (3, "3"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(tmp_path, monkeypatch, capsys, function, shown):
    status, made = made_from(tmp_path, monkeypatch, function=function)
    assert (status, made) == (2, [])
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.match(r"error: [\w.]*function: ", line)
    assert shown in line


@pytest.mark.usefixtures("untouched_process")
def test_a_printed_config_with_a_function_can_be_read_again(tmp_path, capsys):
    config = yaml.safe_load((ROOT / "configs" / "tiny_lsp.yaml").read_text())
    function = {"class_path": "lsp_lightning.FunctionReward"}
    function["init_args"] = {"function": f"{HERE}.length_score", "span": [0, 9]}
    config["model"]["rewards"] = [function, {"class_path": "lsp_lightning.NoveltyReward"}]
    shown = [yaml.safe_dump(config)]
    for name in ("first.yaml", "second.yaml"):
        (tmp_path / name).write_text(shown[-1])
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(tmp_path / name), "--print_config"])
        shown.append(capsys.readouterr().out)
    assert shown[1] == shown[2]
    first, second = yaml.safe_load(shown[2])["model"]["rewards"]
    assert first["init_args"]["function"] == f"{HERE}.length_score"
    assert second["class_path"] == "lsp_lightning.NoveltyReward"


# -- what it returns by mistake --------------------------------------------------------------------


def forgot_to_return(query, answers, solution):
    [float(len(answer)) for answer in answers]


class Table:
    def __call__(self, query, answers, solution):
        return dict.fromkeys(answers, 0.0)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (forgot_to_return, "forgot_to_return returned None"),
        (lambda q, a, s: 1.0, "<lambda> returned a float"),
        (Table(), "Table returned a dict"),
        (lambda q, a, s: "42", "<lambda> returned a str"),
        (lambda q, a, s: [[0.0, 1.0]] * len(a), "<lambda> returned a list with a list"),
        (lambda q, a, s: torch.zeros(len(a), 2), "<lambda> returned a list with a Tensor"),
        (lambda q, a, s: [{"score": 1.0}] * len(a), "<lambda> returned a list with a dict"),
    ],
)
def test_a_result_of_another_form_is_one_line_that_names_the_function(function, line):
    with pytest.raises(RewardError) as error:
        score_all([FunctionReward(function, name="mine")], PLAYED)
    said = str(error.value)
    assert said.startswith(f"reward 'mine' failed: {__name__}.")
    assert f"{line}; return a list of 2 numbers, one for each answer, at 'q'" in said
    assert "\n" not in said


def test_a_coroutine_and_a_wrong_count_name_the_function_too():
    async def scores():
        return [0.0]

    coroutine = scores()
    with pytest.raises(RewardError, match=r"<lambda> returned a coroutine; return a list of 2"):
        score_all([FunctionReward(lambda q, a, s: coroutine)], PLAYED)
    coroutine.close()
    short = FunctionReward(lambda q, a, s: [0.0], name="mine")
    with pytest.raises(RewardError, match=r"1 scores for 2 answers, at \S+<lambda>; return a list"):
        score_all([short], PLAYED)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "needs limits, but reward 'half' has none; set its span or binary, or stop"),
        (
            {"span": (0, 2), "standardize": True},
            "needs limits, but reward 'half' has none while it is standardized; set its "
            "standardize to false, or stop",
        ),
        ({"span": (0, 2)}, None),
        ({"binary": True}, None),
        ({"enters": "quality"}, None),  # it is no part of R
        ({"weight": 0.0}, None),
    ],
)
def test_a_reward_without_limits_is_named_with_the_setting_that_gives_some(settings, line):
    def half(query, answers, solution):
        return [0.5] * len(answers)

    rewards = [LengthReward(10, 20), FunctionReward(half, **settings)]
    if line is None:
        require_limits(rewards, "key", "needs limits", "stop")
        return
    with pytest.raises(ConfigError) as error:
        require_limits(rewards, "key", "needs limits", "stop")
    assert str(error.value) == f"key: {line}"
