"""How the scores of several rewards become R and Q, and what unjudged answers do."""

import math
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, playout, scored_round
from lightning.pytorch import Callback

from lsp_lightning import (
    ConfigError,
    InstructionVerifier,
    Learnability,
    Paper,
    Reward,
    VerifiableReward,
)
from lsp_lightning.rewards import (
    Judgement,
    RewardError,
    SelfReward,
    Verifier,
    check_rewards,
    fill_unjudged,
    in_unit_range,
    is_binary,
    judge_playout,
    require_unit_range,
    score_all,
)
from lsp_lightning.training.gradient import UpdateStats
from lsp_lightning.training.metrics import round_metrics

NAN = float("nan")
PLAYED = playout(["q0", "q1"], [["a", "b"], ["c", "d"]])  # N = 2, G = 2
ROUND = [[1.0, 0.0], [0.0, 0.0]]


def task(scores=ROUND, **kwargs) -> FixedReward:
    return FixedReward(scores, **kwargs)


def advantages_of(scored, objective=None):
    """Advantages of a round with these scores."""
    played = scored_round(
        scored.rewards_NG.tolist(),
        quality=None if scored.quality_NG is None else scored.quality_NG.tolist(),
        challenger=None if scored.challenger_N is None else scored.challenger_N.tolist(),
        judged=scored.judged_NG.tolist(),
    )
    return (objective or Paper()).advantages(played)


# -- sums -----------------------------------------------------------------------------------------


def test_rewards_are_summed_by_where_they_enter_times_their_weights():
    rewards = [
        task([[1, 2], [3, 4]], weight=2.0, name="a"),
        task([[1.0, 0.0], [0.0, 1.0]], weight=-0.5, name="b"),
        FixedReward([[0.5, 0.5], [0.0, 1.0]], weight=3.0, name="q", enters="quality"),
        FixedReward([1.0, -1.0], weight=0.1, name="c", enters="challenger"),
    ]
    scored = score_all(rewards, PLAYED)
    torch.testing.assert_close(scored.rewards_NG, torch.tensor([[1.5, 4.0], [6.0, 7.5]]))
    torch.testing.assert_close(scored.quality_NG, torch.tensor([[1.5, 1.5], [0.0, 3.0]]))
    torch.testing.assert_close(scored.challenger_N, torch.tensor([0.1, -0.1]))
    assert scored.judged_NG.tolist() == [[True, True], [True, True]]


def test_components_are_kept_by_name_and_unweighted():
    scored = score_all([task(weight=5.0, name="a")], PLAYED)
    assert list(scored.components) == ["a"]
    torch.testing.assert_close(scored.components["a"], torch.tensor(ROUND))


def test_without_quality_and_challenger_rewards_there_is_none():
    scored = score_all([task()], PLAYED)
    assert scored.quality_NG is None
    assert scored.challenger_N is None


@pytest.mark.parametrize("scores", [[[True, False], [False, True]], [[1, 0], [0, 1]]])
def test_truths_and_whole_numbers_are_scores(scores):
    assert score_all([task(scores)], PLAYED).rewards_NG.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_scores_carry_no_gradient_into_the_round():
    scores = torch.zeros(2, 2, requires_grad=True)
    assert not score_all([task(scores)], PLAYED).rewards_NG.requires_grad


def test_a_round_without_a_task_reward_says_so():
    quality = FixedReward(ROUND, name="q", enters="quality")
    with pytest.raises((ConfigError, RewardError), match="task"):
        score_all([quality], PLAYED)


# -- what could not be judged ---------------------------------------------------------------------


def test_an_unjudged_answer_takes_its_groups_mean():
    filled = fill_unjudged(torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 0.3]]))
    torch.testing.assert_close(filled, torch.tensor([[1.0, 0.5, 0.0], [0.3, 0.3, 0.3]]))


def test_an_unjudged_query_takes_the_rounds_mean():
    filled = fill_unjudged(torch.tensor([1.0, NAN, 0.0]))
    torch.testing.assert_close(filled, torch.tensor([1.0, 0.5, 0.0]))


def test_an_answer_is_judged_when_every_reward_of_answers_could_judge_it():
    rewards = [
        task([[1.0, NAN], [1.0, 0.0]]),
        FixedReward([[NAN, 0.5], [0.2, 0.4]], name="q", enters="quality"),
        FixedReward([NAN, 1.0], name="c", enters="challenger"),  # judges queries
    ]
    scored = score_all(rewards, PLAYED)
    assert scored.judged_NG.tolist() == [[False, False], [True, True]]
    played = scored_round([[1.0, 1.0], [1.0, 0.0]], judged=scored.judged_NG.tolist())
    assert played.judged_N.tolist() == [False, True]


def test_an_unjudged_answer_has_advantage_zero_and_moves_no_other_one():
    with_hole = advantages_of(score_all([task([[1.0, NAN], [1.0, 0.0]])], PLAYED))
    assert with_hole.solver_NG[0].tolist() == [0.0, 0.0]
    three = scored_round(fill_unjudged(torch.tensor([[1.0, NAN, 0.0]])).tolist())
    # without the hole: 1 - 1/2 and 0 - 1/2
    assert Paper().advantages(three).solver_NG[0].tolist() == [0.5, 0.0, -0.5]


def test_an_unjudged_answer_does_not_change_its_querys_value():
    # the group's mean keeps V at 1 and 0, so the Challenger gets 1/2 - 1 and 1/2 - 0
    scored = score_all([task([[1.0, NAN], [NAN, 0.0]])], PLAYED)
    assert advantages_of(scored).challenger_C.tolist() == [-0.5, 0.5]


def test_an_unjudged_answer_does_not_change_what_its_query_is_worth_to_learn():
    # one right, one wrong, one lost: as learnable as one right and one wrong, 4 * 1/2 * 1/2 = 1,
    # and so is the second query: nothing to choose between the two
    rewards = [[1.0, 0.0, NAN, NAN], [1.0, 0.0, 1.0, 0.0]]
    scored = score_all([task(rewards)], playout(["q0", "q1"], [["a"] * 4] * 2))
    assert advantages_of(scored, objective=Learnability()).challenger_C.tolist() == [0.0, 0.0]


def test_a_group_with_nothing_judged_is_marked_and_never_passed_off_as_wrong():
    rewards = [[NAN, NAN], [1.0, 0.0], [1.0, 1.0]]
    scored = score_all([task(rewards)], playout(["q"] * 3, [["a", "b"]] * 3))
    assert scored.judged_NG.tolist() == [[False] * 2, [True] * 2, [True] * 2]
    assert scored.components["fixed"].isnan().tolist() == [[True] * 2, [False] * 2, [False] * 2]
    advantages = advantages_of(scored)
    assert advantages.solver_NG.tolist() == [[0.0, 0.0], [0.5, -0.5], [0.0, 0.0]]
    # eq. 3 over the two judged queries alone: the mean of 1/2 and 1 is 3/4
    assert advantages.challenger_C.tolist() == [0.0, 0.25, -0.25]


def test_a_group_that_one_of_two_rewards_could_not_judge_teaches_nothing():
    rewards = [
        task([[1.0, 0.0], [1.0, 0.0]]),
        FixedReward([[NAN, NAN], [0.2, 0.4]], name="q", enters="quality"),
    ]
    advantages = advantages_of(score_all(rewards, PLAYED))
    assert advantages.solver_NG[0].tolist() == [0.0, 0.0]
    assert advantages.challenger_C.tolist() == [0.0, 0.0]  # one query is left: nothing to compare
    # 1 + 0.2 and 0 + 0.4, mean 0.8
    assert advantages.solver_NG[1].tolist() == pytest.approx([0.4, -0.4])


# -- rewards that are only logged ------------------------------------------------------------------


@pytest.mark.parametrize("enters", ["task", "quality"])
@pytest.mark.parametrize("scores", [ROUND, [[NAN, 1.0], [0.0, 1.0]], [[NAN] * 2] * 2])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_reward_of_weight_0_is_logged_and_pushes_nobody(enters, scores, standardize):
    logged = task(scores, name="logged", weight=0.0, enters=enters, standardize=standardize)
    alone, both = score_all([task()], PLAYED), score_all([task(), logged], PLAYED)
    torch.testing.assert_close(both.components["logged"], torch.tensor(scores), equal_nan=True)
    assert torch.equal(both.rewards_NG, alone.rewards_NG)
    assert both.judged_NG.all()  # what it could not judge, others did
    assert both.quality_NG is None
    assert advantages_of(both).solver_NG.tolist() == advantages_of(alone).solver_NG.tolist()
    assert advantages_of(both).challenger_C.tolist() == advantages_of(alone).challenger_C.tolist()


@pytest.mark.parametrize("scores", [[0.5, 1.0], [NAN, 1.0], [NAN, NAN]])
def test_a_reward_of_weight_0_for_the_challenger_is_logged_only(scores):
    logged = FixedReward(scores, name="c", enters="challenger", weight=0.0)
    scored = score_all([task(), logged], PLAYED)
    assert scored.challenger_N is None
    torch.testing.assert_close(scored.components["c"], torch.tensor(scores), equal_nan=True)


class Telling(FixedReward):
    """A reward with more to log than its scores."""

    def score(self, playout):
        info = {"level": [1, 2], "family": ["a", None]}
        return Judgement(self.scores, info, {"doubt": 0.25, "cut": torch.tensor([0.0, 1.0])})


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_metrics_are_told_by_reward_and_name_whatever_the_weight(weight):
    rewards = [task(), Telling(ROUND, name="one", weight=weight), Telling(ROUND, name="two")]
    scored = score_all(rewards, PLAYED)
    assert set(scored.metrics) == {"one/doubt", "one/cut", "two/doubt", "two/cut"}
    assert scored.metrics["one/doubt"] == 0.25
    assert scored.metrics["two/cut"].tolist() == [0.0, 1.0]


def test_query_info_is_named_after_its_reward_whatever_the_order():
    rewards = [Telling(ROUND, name=name) for name in ("one", "two", "three")]
    for order in (rewards, rewards[::-1]):
        info = score_all([task(), *order], PLAYED).query_info
        assert info == {
            name: values
            for reward in ("one", "two", "three")
            for name, values in {f"{reward}/level": (1, 2), f"{reward}/family": ("a", None)}.items()
        }


def test_two_verifiers_log_under_their_own_names():
    rewards = [VerifiableReward(Exact()), VerifiableReward(Exact(), name="second", weight=0.0)]
    info = score_all(rewards, playout(["abc", "?"], [["a"], ["b"]])).query_info
    known = {"malformed": (False, True), "characters": (3, None)}
    assert info == {f"{r.name}/{name}": values for r in rewards for name, values in known.items()}


@pytest.mark.parametrize(("weight", "expected"), [(0.5, [False, True]), (0.0, [False, False])])
def test_a_verifier_that_only_logs_makes_no_query_malformed(weight, expected):
    rewards = [task(), VerifiableReward(Exact(), weight=weight)]
    scored = score_all(rewards, playout(["abc", "?"], [["a", "b"], ["b", "c"]]))
    assert scored.malformed_N.tolist() == expected


def test_what_rewards_return_is_logged_for_the_round():
    played = play_scored([task(), Telling(ROUND, name="told", weight=0.0)])
    assert played["told/doubt"] == 0.25
    assert played["queries/told/level"] == 1.5
    assert played["queries/told/family_entropy"] == 0  # one known text
    assert played["reward/told"].tolist() == ROUND
    assert played["unjudged/told"].tolist() == [[0.0, 0.0], [0.0, 0.0]]


def play_scored(rewards) -> dict:
    """What is logged of a round that these rewards judge."""
    scored = score_all(rewards, PLAYED)
    played = replace(
        scored_round(scored.rewards_NG.tolist()),
        components=scored.components,
        query_info=scored.query_info,
        reward_metrics=scored.metrics,
        seconds={"answers": 1.0},
    )
    stats = UpdateStats(0.0, torch.zeros(6), torch.zeros(6), {})
    advantages = Paper().advantages(played)
    return round_metrics(played, advantages, stats, torch.tensor(1.0), {"update": 1})


def test_an_unjudged_answer_takes_its_groups_mean_after_standardising_too():
    # known: 1, 0, 0, 1: mean 1/2, spread 1/2, so standardised 1, -1, -1, 1
    reward = task([[1.0, 0.0, NAN], [NAN, 0.0, 1.0]], standardize=True)
    scored = score_all([reward], playout(["q0", "q1"], [["a"] * 3] * 2))
    assert scored.rewards_NG.tolist() == [[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]]
    assert scored.judged_NG.tolist() == [[True, True, False], [False, True, True]]
    # of three answers one is right, one wrong, one lost: a third group mate would change nothing
    assert advantages_of(scored).solver_NG.tolist() == [[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]]


def test_a_group_with_nothing_judged_is_at_the_mean_of_a_standardised_reward():
    rewards = [[NAN, NAN], [3.0, 1.0], [3.0, 3.0]]
    played = playout(["q"] * 3, [["a", "b"]] * 3)
    scored = score_all([task(rewards, standardize=True)], played)
    assert scored.rewards_NG[0].tolist() == [0.0, 0.0]  # the mean of what is standardised
    advantages = advantages_of(scored)
    assert advantages.solver_NG[0].tolist() == [0.0, 0.0]
    assert advantages.challenger_C[0] == 0
    assert advantages.challenger_C[1] == -advantages.challenger_C[2] > 0


def test_an_unjudged_query_takes_the_rounds_mean_after_standardising_too():
    reward = FixedReward([4.0, NAN, 8.0], name="c", enters="challenger", standardize=True)
    played = playout(["q"] * 3, [["a", "b"]] * 3)
    scored = score_all([task([[1.0, 0.0]] * 3), reward], played)
    assert scored.challenger_N.tolist() == [-1.0, 0.0, 1.0]


# -- unusable rewards -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ([1.0, 0.0], r"returned \(2,\), expected a tensor of shape \(2, 2\)"),
        ([[1.0], [0.0]], r"returned \(2, 1\), expected a tensor of shape \(2, 2\)"),
        (0.5, r"returned float, expected a tensor of shape \(2, 2\)"),
        ([[math.inf, -math.inf], [NAN, NAN]], "could judge nothing"),
        ([[NAN, NAN], [NAN, NAN]], "could judge nothing"),
        (KeyError("no such server"), "failed: 'no such server'"),
    ],
)
def test_an_unusable_reward_is_named_and_ends_the_round(scores, problem):
    with pytest.raises(RewardError, match=rf"^reward 'mine' .*{problem}"):
        score_all([task(name="other"), task(scores, name="mine")], PLAYED)


def test_a_reward_for_the_challenger_judges_queries_not_answers():
    with pytest.raises(RewardError, match=r"returned \(2, 2\), expected a tensor of shape \(2,\)"):
        score_all([task(), FixedReward(ROUND, name="c", enters="challenger")], PLAYED)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("scores", [[[0.5, 1.0], [0.0, 1.0]], [[2.0, NAN], [0.0, 1.0]]])
def test_a_reward_that_declares_itself_binary_and_is_not_is_named(scores, weight):
    reward = task(scores, name="mine", weight=weight)
    reward.binary = True
    with pytest.raises(RewardError, match=r"^reward 'mine' has binary = True, but returned"):
        score_all([task(), reward], PLAYED)
    reward.scores = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    score_all([task(), reward], PLAYED)  # NaN is allowed


def test_a_reward_of_weight_0_that_fails_still_ends_the_round():
    with pytest.raises(RewardError, match=r"^reward 'mine' failed: gone$"):
        score_all([task(), task(OSError("gone"), name="mine", weight=0.0)], PLAYED)


@pytest.mark.parametrize("weight", [NAN, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused(weight):
    with pytest.raises(
        ConfigError, match=r"^model\.rewards: a reward has weight -?(nan|inf); [^\n]+$"
    ):
        task(weight=weight)


def test_the_cause_of_a_failure_is_kept():
    with pytest.raises(RewardError) as error:
        score_all([task(ConnectionError("refused"), name="mine")], PLAYED)
    assert isinstance(error.value.__cause__, ConnectionError)


def test_a_reward_that_overrides_nothing_says_what_to_override():
    with pytest.raises(RewardError, match=r"Reward must override score\(playout\)"):
        score_all([Reward()], PLAYED)


# -- lists of rewards -----------------------------------------------------------------------------


def test_a_list_without_a_task_reward_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.rewards: no task reward has a nonzero weight"):
        check_rewards([SelfReward()])
    with pytest.raises(ConfigError, match=r"^model\.rewards: no task reward has a nonzero weight"):
        check_rewards([])


def test_a_list_whose_task_rewards_are_only_logged_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.rewards: no task reward has a nonzero weight"):
        check_rewards([task(weight=0.0), SelfReward()])
    check_rewards([task(weight=0.0), task(name="played", weight=-1.0)])


def test_two_rewards_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"^model\.rewards: two rewards are named 'fixed'; "):
        check_rewards([task(), task()])
    check_rewards([task(), task(name="second")])


def ranged(low, high, weight=1.0, **kwargs) -> FixedReward:
    reward = task(weight=weight, **kwargs)
    reward.span = (low, high)
    return reward


@pytest.mark.parametrize(
    ("rewards", "inside"),
    [
        ([ranged(0, 1)], True),
        ([ranged(0, 1, 0.5), ranged(0, 1, 0.5)], True),
        ([ranged(0, 1), ranged(0, 1)], False),  # up to 2
        ([ranged(0, 1, -1)], False),  # down to -1
        ([ranged(1, 2), ranged(0, 1, -1)], False),  # 0 to 2
        ([ranged(-1, 0, -1)], True),
        ([ranged(0, 1), task()], False),  # a reward model's logits have no range
        ([ranged(0, 1), task(enters="quality")], True),  # Q is not R
        ([ranged(0, 1, w) for w in (0.05, 0.55, 0.3, 0.1)], True),  # adds up to 1.0000000000000002
    ],
)
def test_the_range_of_r_is_that_of_the_weighted_sum_of_task_rewards(rewards, inside):
    assert in_unit_range(rewards) is inside


def test_a_binary_reward_needs_no_span():
    reward = task()
    reward.binary = True
    assert in_unit_range([reward])
    assert not in_unit_range([task()])


def test_r_is_binary_only_as_one_unweighted_binary_task_reward():
    binary = VerifiableReward(Exact())
    assert is_binary([binary])
    assert is_binary([binary, SelfReward()])  # Q is not R
    assert not is_binary([VerifiableReward(Exact(), weight=2.0)])
    assert not is_binary([VerifiableReward(InstructionVerifier(partial=True))])
    assert not is_binary([binary, VerifiableReward(Exact(), name="second")])
    assert not is_binary([binary, task()])


def test_rewards_that_are_only_logged_change_neither_the_range_nor_the_kind_of_r():
    binary = VerifiableReward(Exact())
    logits = task(weight=0.0, name="logits")  # of no known range
    assert is_binary([binary, logits])
    assert in_unit_range([binary, logits])
    require_unit_range([binary, logits], "model.objective")
    assert not is_binary([VerifiableReward(Exact(), weight=0.0), logits])
    assert not is_binary([VerifiableReward(Exact(), weight=0.0), ranged(0, 1)])


def test_a_standardised_reward_is_neither_binary_nor_of_a_range():
    standard = ranged(0, 1, standardize=True)
    standard.binary = True
    assert not is_binary([standard])
    assert not in_unit_range([standard])
    assert not in_unit_range([VerifiableReward(Exact()), ranged(0, 0, standardize=True)])
    with pytest.raises(ConfigError, match=r"^model\.objective: needs task rewards in \[0, 1\]"):
        require_unit_range([standard], "model.objective")
    # one that is only logged may have any scale
    logged = task(weight=0.0, standardize=True, name="logged")
    assert is_binary([VerifiableReward(Exact()), logged])
    assert in_unit_range([VerifiableReward(Exact()), logged])


# -- rewards as callbacks -------------------------------------------------------------------------


def test_a_reward_is_a_callback_with_a_state_key_of_its_own():
    one, other = VerifiableReward(Exact(), name="one"), VerifiableReward(Exact(), name="other")
    assert isinstance(one, Callback)
    assert one.state_key != other.state_key
    assert one.state_key == VerifiableReward(Exact(), name="one").state_key  # resume finds it
    assert task(name="one").state_key != one.state_key


def test_a_reward_is_called_by_its_class_unless_named():
    class LengthReward(FixedReward):
        pass

    assert LengthReward(ROUND).name == "length"
    assert LengthReward(ROUND, name="short").name == "short"


# -- the verifiable reward ------------------------------------------------------------------------


class Exact(Verifier):
    """Right answers are the solution; queries that begin with a question mark are malformed."""

    def check(self, query, answers, solution):
        return [float(answer == solution) for answer in answers]

    def describe(self, query):
        return None if query.startswith("?") else {"characters": len(query)}


def test_the_verifier_sees_each_querys_own_answers_and_solution():
    played = playout(["q0", "q1"], [["a", "b"], ["b", "a"]], solutions=["a", "a"])
    assert VerifiableReward(Exact()).score(played).scores.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    played = playout(["q0", "q1"], [["a", "b"], ["b", "a"]], solutions=["a", "b"])
    assert VerifiableReward(Exact()).score(played).scores.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_without_solutions_the_verifier_gets_none():
    class NoSolution(Verifier):
        def check(self, query, answers, solution):
            return [float(solution is None)] * len(answers)

    scores = VerifiableReward(NoSolution()).score(PLAYED).scores
    assert scores.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_what_a_verifier_knows_of_queries_is_told_by_name_with_none_for_malformed_ones():
    info = VerifiableReward(Exact()).score(playout(["abc", "?"], [["a"], ["b"]])).query_info
    assert info == {"malformed": (False, True), "characters": (3, None)}


def test_a_verifier_that_knows_nothing_of_queries_calls_none_malformed():
    class Silent(Verifier):
        def check(self, query, answers, solution):
            return [0.0] * len(answers)

    assert VerifiableReward(Silent()).score(PLAYED).query_info == {"malformed": (False, False)}


def test_a_verifier_that_fails_on_one_answer_leaves_nan_and_not_zero():
    class Flaky(Verifier):
        def check(self, query, answers, solution):
            return [NAN if answer == "b" else 1.0 for answer in answers]

    scored = score_all([VerifiableReward(Flaky())], PLAYED)
    assert scored.rewards_NG.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert scored.components["verifiable"].isnan().sum() == 1


def test_a_verifier_that_loses_an_answer_is_an_error():
    class Short(Verifier):
        def check(self, query, answers, solution):
            return [1.0] * (len(answers) - (query == "q1"))

    with pytest.raises(RewardError, match=r"^reward 'verifiable' "):
        score_all([VerifiableReward(Short())], PLAYED)


def test_a_verifiable_reward_that_cannot_enter_for_the_challenger_refuses_to_at_once():
    # it scores answers, (N, G): entering for the Challenger would fail in the first round
    with pytest.raises((ConfigError, ValueError), match="challenger"):
        VerifiableReward(Exact(), enters="challenger")


# -- judgements ------------------------------------------------------------------------------------


class Unruly(Reward):
    """A reward that returns what it is given."""

    def __init__(self, returned, **kwargs):
        super().__init__(**kwargs)
        self.returned = returned

    def score(self, playout):
        return self.returned


ONES = torch.ones(2, 2)


def test_a_judgement_that_breaks_the_contract_stops_the_round_and_names_the_reward():
    with pytest.raises(RewardError, match=r"'t' returned list, expected a tensor of shape"):
        score_all([Unruly(Judgement([1.0]), name="t")], PLAYED)
    with pytest.raises(RewardError, match=r"'t' returned 5 values of 'size' for 2 queries"):
        score_all([Unruly(Judgement(ONES, {"size": range(5)}), name="t")], PLAYED)
    bounded = Unruly(Judgement(ONES * 5), name="t")
    bounded.span = (0.0, 1.0)
    with pytest.raises(RewardError, match=r"'t' returned a score outside its span \[0\.0, 1\.0\]"):
        score_all([bounded], PLAYED)


def test_a_tensor_and_a_judgement_are_the_same_to_every_caller():
    scores = torch.tensor([[1, 0], [2, 0]], dtype=torch.float64, requires_grad=True) / 0.5
    for returned in (scores, Judgement(scores)):
        judgement = judge_playout(Unruly(returned, name="t"), PLAYED)
        assert judgement.scores.dtype == torch.float32
        assert not judgement.scores.requires_grad
        assert judgement.scores.tolist() == [[2, 0], [4, 0]]
        assert (judgement.query_info, judgement.metrics) == ({}, {})
    infinite = judge_playout(Unruly(ONES / 0, name="t"), PLAYED)
    assert infinite.scores.isnan().all()


def test_a_reward_that_enters_nowhere_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.rewards\.enters: is 'nobody'"):
        Unruly(None, enters="nobody")


def test_what_was_found_undecided_is_no_failure():
    nothing = Unruly(Judgement(ONES * NAN, undecided=True), name="vote")
    scored = score_all([nothing], PLAYED)
    assert not scored.judged_NG.any()
    assert scored.rewards_NG.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    advantages = advantages_of(scored)
    assert not advantages.solver_NG.any()
    assert not advantages.challenger_C.any()


def test_one_group_that_a_verifier_fails_at_costs_the_others_nothing():
    class Brittle(Verifier):
        def check(self, query, answers, solution):
            if query == "q1":
                raise ZeroDivisionError("by zero")
            return [1.0] * len(answers)

    with pytest.warns(UserWarning, match=r"could not judge 1 of 2: ZeroDivisionError: .*, at 'q1'"):
        scores = VerifiableReward(Brittle()).score(PLAYED).scores
    assert scores[0].tolist() == [1.0, 1.0]
    assert scores[1].isnan().all()


def test_a_verifier_cannot_reward_answers_to_what_it_calls_malformed():
    class Generous(Verifier):
        def check(self, query, answers, solution):
            return [1.0] * len(answers)

        def describe(self, query):
            return None

    with pytest.raises(RewardError, match=r"Generous.describe returned None \(malformed\) "):
        score_all([VerifiableReward(Generous())], PLAYED)


def test_a_verifier_that_raises_at_a_malformed_query_only_loses_this_group():
    class Brittle(Exact):
        def check(self, query, answers, solution):
            if query == "q1":
                raise ZeroDivisionError
            return [0.5] * len(answers)

        def describe(self, query):
            return None if query == "q1" else {}

    with pytest.warns(UserWarning, match="could not judge 1 of 2"):
        judgement = VerifiableReward(Brittle()).score(PLAYED)
    assert judgement.query_info == {"malformed": (False, False)}
    assert judgement.scores.isnan().tolist() == [[False] * 2, [True] * 2]


def test_whether_scores_are_binary_is_asked_of_the_verifier():
    assert VerifiableReward(InstructionVerifier()).binary
    assert not VerifiableReward(InstructionVerifier(partial=True)).binary
