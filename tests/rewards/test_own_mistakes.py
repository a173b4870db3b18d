"""A mistake in a reward or a verifier of your own is one line that says what to do."""

import pytest
import torch
from handmade import playout

from lsp_lightning import ConfigError, Judgement, Reward, VerifiableReward, Verifier
from lsp_lightning.rewards import RewardError, Verdict, check_rewards, score_all

PLAYED = playout(["a", "b"], [["x", "y"], ["x", "y"]])


class Forgot(Reward):
    """Its method has another name."""

    def scores(self, playout):
        return torch.zeros(2, 2)


def test_a_reward_without_score_is_refused_before_a_model_is_loaded():
    line = r"^model.rewards: Forgot does not define score; define score\(self, playout\) in it$"
    with pytest.raises(ConfigError, match=line):
        check_rewards([Forgot()])


class Checks(Verifier):
    """Returns what it is told to."""

    def __init__(self, scores):
        self.scores = scores

    def check(self, query, answers, solution):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "got"),
    [
        (1.0, "1.0"),
        (None, "None"),
        ([1.0, None], r"\[1.0, None\]"),
        ("ab", "'ab'"),
        ([1.0], "1 scores"),
        ([], "0 scores"),
        ([10**400, 0], "\\[1000"),
    ],
)
def test_a_verifier_that_returns_no_numbers_is_told_what_to_return(scores, got):
    line = (
        f"^reward 'verifiable' failed: Checks.check returned {got}.* for 2 answers; return a list "
        "with a number for each answer, "
    )
    with pytest.raises(RewardError, match=line):
        score_all([VerifiableReward(Checks(scores))], PLAYED)


def test_a_verifier_may_return_a_tensor():
    scored = score_all([VerifiableReward(Checks(torch.tensor([1.0, 0.0])))], PLAYED)
    assert scored.rewards_NG.tolist() == [[1.0, 0.0]] * 2


class Judges(Verifier):
    """Returns what it is told to, for the whole round."""

    def __init__(self, verdicts):
        self.verdicts = verdicts

    def check(self, query, answers, solution):
        raise AssertionError("judge is overridden")

    def judge(self, groups):
        return self.verdicts


@pytest.mark.parametrize(
    ("verdicts", "problem"),
    [
        (None, "None for 2 queries; return a list with a Verdict for each query"),
        ([Verdict.of([1.0, 0.0])], "1 verdicts for 2 queries; "),
        ([[1.0, 0.0]] * 2, r"\[1.0, 0.0\] for 2 answers; return a Verdict with a score for each"),
        ([Verdict.of([1.0])] * 2, r"Verdict\(scores=\(1.0,\).* for 2 answers; return a Verdict"),
    ],
)
def test_a_verifier_of_rounds_that_returns_no_verdicts_is_told_what_to_return(verdicts, problem):
    with pytest.raises(
        RewardError, match=f"^reward 'verifiable' failed: Judges.judge returned {problem}"
    ):
        score_all([VerifiableReward(Judges(verdicts))], PLAYED)


class Describes(Checks):
    """Returns what it is told to about the query."""

    def __init__(self, scores, info):
        super().__init__(scores)
        self.info = info

    def describe(self, query):
        return self.info


def test_what_describe_returns_must_be_a_dict():
    line = "^reward 'verifiable' failed: Describes.describe returned 'easy'; return a dict, or None"
    with pytest.raises(RewardError, match=line):
        score_all([VerifiableReward(Describes([0.0, 0.0], "easy"))], PLAYED)


def test_a_malformed_query_whose_answers_could_not_be_judged_scores_0():
    scored = score_all([VerifiableReward(Describes([float("nan"), 0.0], None))], PLAYED)
    assert scored.rewards_NG.tolist() == [[0.0, 0.0]] * 2
    assert scored.query_info["verifiable/malformed"] == (True, True)


class Logs(Reward):
    """Logs what it is told to."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def score(self, played):
        return Judgement(torch.ones(2, 2), metrics={"extra": self.metric})


@pytest.mark.parametrize("metric", ["high", None, {"a": 1}])
def test_a_metric_that_is_no_number_names_its_reward(metric):
    line = r"^reward 'logs' returned .* as metric 'extra', expected a number or a tensor"
    with pytest.raises(RewardError, match=line):
        score_all([Logs(metric)], PLAYED)


@pytest.mark.parametrize("metric", [1, 0.5, True, torch.ones(3), [1.0, 2.0]])
def test_a_metric_may_be_any_number(metric):
    assert score_all([Logs(metric)], PLAYED).metrics == {"logs/extra": metric}


class Unfinished(Reward):
    """Its ``__init__`` forgets that of Reward."""

    def __init__(self):
        self.limit = 3


def test_a_reward_without_the_init_of_reward_is_named():
    line = r"^model\.rewards: Unfinished\.__init__ does not call Reward\.__init__; call super"
    with pytest.raises(ConfigError, match=line):
        check_rewards([Unfinished()])


def test_a_class_in_place_of_a_reward_is_refused():
    with pytest.raises(
        ConfigError, match=r"^model\.rewards: <class .*Logs'> is not a Reward; pass"
    ):
        check_rewards([Logs])
