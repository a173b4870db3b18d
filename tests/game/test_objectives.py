"""What the Challenger is paid, and how a round's rewards become advantages."""

import re
import sys
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, gated, rollouts, scored_round

from lsp_lightning import Band, ConfigError, Frontier, Learnability, Objective, Paper
from lsp_lightning.types import Written

ROUND = [[1.0, 0.0], [0.0, 0.0]]
OBJECTIVES = [Paper, Learnability, Frontier, Band]


def paid(objective, played):
    """The Challenger's advantages, (C,)."""
    return objective.advantages(played).challenger_C


# -- what each one pays ----------------------------------------------------------------------------


def test_the_paper_pays_minus_the_value():
    assert Paper().challenger_rewards(scored_round(ROUND)).tolist() == [-0.5, 0.0]


def test_frontier_and_band_pay_by_the_value_alone():
    played = scored_round([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    # V = 1/2, 0, 1
    assert Frontier().challenger_rewards(played).tolist() == [0.5, 0.0, 0.0]
    assert Band().challenger_rewards(played).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.5, 1.0), (0.8, 0.2)])
def test_a_band_without_room_is_refused(low, high):
    with pytest.raises(ConfigError, match=r"^model\.objective: low is .*; set 0 < low <= high < 1"):
        Band(low, high)


def test_learnability_of_binary_rewards_is_four_v_times_one_minus_v_in_every_round():
    # V = 1/4 and 0: 4 * 1/4 * 3/4 = 3/4, though no group of the round has the largest variance
    played = scored_round([[1.0, 0.0, 0.0, 0.0], [0.0] * 4], binary=True)
    assert Learnability().challenger_rewards(played).tolist() == [0.75, 0.0]


def test_learnability_of_other_rewards_is_on_the_scale_of_the_run():
    objective = Learnability()
    wide = scored_round([[0.0, 12.0], [2.0, 2.0]])  # variances 36 and 0
    assert objective.challenger_rewards(wide).tolist() == [1.0, 0.0]
    narrow = scored_round([[0.0, 6.0], [2.0, 2.0]])  # variances 9 and 0
    assert objective.challenger_rewards(narrow).tolist() == [1.0, 0.0]  # not observed yet
    objective.observe(wide)
    assert objective.challenger_rewards(narrow).tolist() == [0.25, 0.0]


def test_an_overflow_does_not_change_the_scale():
    objective = Learnability()
    objective.observe(scored_round([[0.0, 6.0]]))
    objective.observe(scored_round([[0.0, 3e38]]))  # its square is infinite
    assert objective.challenger_rewards(scored_round([[0.0, 6.0]])).tolist() == [1.0]


def test_the_scale_of_learnability_is_in_its_state():
    objective, resumed = Learnability(), Learnability()
    objective.observe(scored_round([[0.0, 12.0]]))
    resumed.load_state_dict(objective.state_dict())
    assert resumed.challenger_rewards(scored_round([[0.0, 6.0]])).tolist() == [0.25]


@pytest.mark.parametrize("objective", [Frontier(), Band()])
def test_objectives_of_the_unit_range_refuse_rewards_without_it(objective):
    inside = FixedReward(ROUND)
    inside.span = (0.0, 1.0)
    objective.check([inside])
    with pytest.raises(ConfigError, match=r"^model\.objective: needs task rewards in \[0, 1\]"):
        objective.check([FixedReward(ROUND)])
    for other in (Paper(), Learnability()):
        other.check([FixedReward(ROUND)])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"advantage_scale": "mean"}, "advantage_scale"),
        ({"invalid_query": "none"}, "invalid_query"),
    ],
)
def test_unknown_choices_are_refused(arguments, key):
    with pytest.raises(ConfigError, match=rf"^model\.objective\.init_args\.{key}: "):
        Paper(**arguments)


# -- written rows and answered groups are two axes ------------------------------------------------


def round_with(written: Written, rewards):
    """A round of N answered queries, of which the Challenger wrote the given rows."""
    played = scored_round(rewards)
    return replace(played, playout=replace(played.playout, written=written))


def written(answered, baseline=None, valid=None) -> Written:
    """Rows of the Challenger: which query each became, and with which rows it is compared."""
    c = len(answered)
    return Written(
        rollouts([f"query {i}" for i in range(c)]),
        torch.tensor(valid or [True] * c),
        torch.tensor(answered),
        torch.tensor(baseline or [0] * c),
    )


def test_a_query_from_elsewhere_is_answered_and_pays_no_row():
    # three queries are answered; the first is old. V = 1, 1/2, 0: -1/2 and 0 around -1/4
    played = round_with(written([1, 2]), [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    advantages = Paper().advantages(played)
    assert advantages.challenger_C.tolist() == [-0.25, 0.25]
    assert advantages.rows().shape == (2 + 6,)


def test_a_row_that_was_not_answered_earns_the_least_of_the_round():
    # -V = -1/2 and 0; the row that was shut out earns -1/2: mean -1/3
    played = round_with(written([0, 1, -1]), [[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(paid(Paper(), played), torch.tensor([-1 / 6, 1 / 3, -1 / 6]))


def test_a_row_that_was_not_answered_earns_the_least_even_if_invalid_queries_are_paid_as_scored():
    played = round_with(written([0, 1, -1]), [[1.0, 0.0], [0.0, 0.0]])
    advantages_C = paid(Paper(invalid_query="as_scored"), played)
    torch.testing.assert_close(advantages_C, torch.tensor([-1 / 6, 1 / 3, -1 / 6]))


def test_rows_are_compared_with_those_of_their_baseline_alone():
    rewards = [[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    played = round_with(written([0, 1, 2, 3], baseline=[7, 7, 2, 2]), rewards)
    # -V = -1, -1/2 around -3/4, and -1/2, 0 around -1/4
    assert paid(Paper(), played).tolist() == [-0.25, 0.25, -0.25, 0.25]


def test_valid_queries_are_told_by_query():
    played = round_with(written([2, -1, 0], valid=[False, False, True]), [[1.0, 0.0]] * 3)
    assert played.playout.valid_N.tolist() == [True, True, False]


# -- an objective of one's own --------------------------------------------------------------------

OWN = '''
from lsp_lightning import Objective


class Best(Objective):
    """Pays for queries whose best answer stands out."""

    def challenger_rewards(self, played):
        return played.rewards_NG.amax(dim=1) - played.values_N
'''


def test_an_objective_of_ones_own_is_one_method(tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(OWN.strip().splitlines()) <= 20
    from own_objective import Best

    assert issubclass(Best, Objective)
    # 1 - 1/2 and 0 - 0: half of 1/2 above and below their mean
    assert paid(Best(), scored_round(ROUND)).tolist() == [0.25, -0.25]
    # quality and the scale are the base's: 1/2 + 0 and 0 + 1
    played = scored_round(ROUND, quality=[[0.0, 0.0], [1.0, 1.0]])
    assert paid(Best(), played).tolist() == [-0.25, 0.25]
    assert paid(Best(advantage_scale="std"), played).tolist() == [-1.0, 1.0]
    sys.modules.pop("own_objective")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_names_its_source(objective):
    assert re.search(r"\b\d{4}\.\d{5}\b", objective.__doc__)


# -- what could not be judged ---------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_whatever_the_objective_an_unjudged_group_moves_neither_role(objective, scale):
    played = scored_round([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], judged=[False, True, True])
    advantages = objective(advantage_scale=scale).advantages(played)
    alone = objective(advantage_scale=scale).advantages(scored_round([[1.0, 0.0], [1.0, 1.0]]))
    assert advantages.solver_NG[0].tolist() == [0.0, 0.0]
    assert advantages.challenger_C[0] == 0
    # the others get what they would get in a round without it
    torch.testing.assert_close(advantages.challenger_C[1:], alone.challenger_C)


# -- invalid queries ------------------------------------------------------------------------------


def test_an_invalid_query_is_paid_the_rounds_lowest_reward():
    # -V = -1, -1/2, 0; the invalid third one, the best paid, gets -1: mean -5/6
    played = scored_round([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], valid=[True, True, False])
    advantages_C = paid(Paper(invalid_query="lowest"), played)
    torch.testing.assert_close(advantages_C, torch.tensor([-1 / 6, 1 / 3, -1 / 6]))


def test_an_invalid_query_may_be_paid_as_scored():
    played = scored_round([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], valid=[True, True, False])
    advantages_C = paid(Paper(invalid_query="as_scored"), played)
    torch.testing.assert_close(advantages_C, torch.tensor([-0.5, 0.0, 0.5]))


@pytest.mark.parametrize(
    ("choice", "expected"),
    # learnability 0, 1, 0 of R in {0, 1}; novelty 3, 0, 0: 3, 1, 0, but the malformed first one
    # may get the lowest, 0
    [("lowest", [5 / 3, -1 / 3, -4 / 3]), ("malformed_lowest", [-1 / 3, 2 / 3, -1 / 3])],
)
def test_a_malformed_query_may_be_paid_the_rounds_lowest_reward(choice, expected):
    played = replace(
        scored_round([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]),
        binary=True,
        challenger_N=torch.tensor([3.0, 0.0, 0.0]),
        malformed_N=torch.tensor([True, False, False]),
    )
    advantages_C = paid(Learnability(invalid_query=choice), played)
    torch.testing.assert_close(advantages_C, torch.tensor(expected))


def test_answers_to_an_invalid_query_are_learned_from_all_the_same():
    played = scored_round([[1.0, 0.0], [1.0, 1.0]], valid=[False, True])
    assert Paper().advantages(played).solver_NG[0].tolist() == [0.5, -0.5]


def test_quality_counts_towards_the_lowest_reward():
    # -V + VQ: -1 + 0 = -1 and 0 - 3 = -3; the invalid first one gets -3 too
    played = scored_round([[1.0], [0.0]], quality=[[0.0], [-3.0]], valid=[False, True])
    assert Paper().advantages(played).challenger_C.tolist() == [0.0, 0.0]


def test_the_lowest_reward_is_that_of_a_judged_query():
    # learnability: 1 for V = 1/2, 1 for the invalid one; the 0 of the unjudged group is no reward
    played = scored_round(
        [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], valid=[True, False, True], judged=[True, True, False]
    )
    advantages_C = paid(Learnability(), played)
    assert advantages_C.tolist() == [0.0, 0.0, 0.0]


# -- the round's advantages as a whole ------------------------------------------------------------


def test_queries_from_a_file_train_no_challenger():
    advantages = Paper().advantages(scored_round(ROUND, from_file=True))
    assert advantages.challenger_C is None
    assert advantages.rows().tolist() == [0.5, -0.5, 0.0, 0.0]


def test_rows_are_the_queries_then_the_answers_query_by_query():
    advantages = Paper().advantages(scored_round(ROUND))
    # V = 1/2 and 0: 1/4 - 1/2 and 1/4 - 0
    assert advantages.rows().tolist() == [-0.25, 0.25, 0.5, -0.5, 0.0, 0.0]


def test_a_reward_for_the_challenger_alone_is_paid_to_it_alone():
    rewards = [[1.0, 0.0], [1.0, 0.0]]
    advantages = Paper().advantages(scored_round(rewards, challenger=[0.0, -1.0]))
    # -1/2 + 0 and -1/2 - 1: half above and half below their mean
    assert advantages.challenger_C.tolist() == [0.5, -0.5]
    torch.testing.assert_close(
        advantages.solver_NG, Paper().advantages(scored_round(rewards)).solver_NG
    )


def test_lsp_adds_quality_for_both_roles_and_lsp_zero_is_the_game_without():
    zero = Paper().advantages(scored_round([[1.0, 0.0], [0.0, 0.0]]))
    full = Paper().advantages(
        scored_round([[1.0, 0.0], [0.0, 0.0]], quality=[[0.0, 1.0], [1.0, 1.0]])
    )
    assert zero.solver_NG.tolist() == [[0.5, -0.5], [0.0, 0.0]]
    assert full.solver_NG.tolist() == [[0.0, 0.0], [0.0, 0.0]]  # 1 + 0 = 0 + 1
    assert zero.challenger_C.tolist() == [-0.25, 0.25]
    # -1/2 + 1/2 = 0 and 0 + 1 = 1
    assert full.challenger_C.tolist() == [-0.5, 0.5]


def surprised(played, *nats):
    """The round, with so many nats of surprisal in each answer to each query."""
    g = played.rewards_NG.shape[1]
    logprobs = torch.zeros_like(played.playout.answers.logprobs)
    logprobs[:, 0] = -torch.tensor(nats).repeat_interleave(g)
    answers = replace(played.playout.answers, logprobs=logprobs)
    return replace(
        played,
        playout=replace(played.playout, answers=answers),
        solve_rates_N=played.rewards_NG.mean(dim=1),
        binary=True,
    )


def test_uncertainty_is_paid_on_top_and_only_for_solved_queries():
    played = surprised(scored_round([[1.0, 1.0], [1.0, 1.0]]), 1.0, 2.0)
    assert Learnability().challenger_rewards(played).tolist() == [0.0, 0.0]
    assert Learnability(uncertainty=0.5).challenger_rewards(played).tolist() == [0.0, 0.5]
    differing = surprised(scored_round([[1.0, 0.0], [1.0, 0.0]]), 1.0, 2.0)
    for objective in (Learnability(), Learnability(uncertainty=0.5)):
        assert objective.challenger_rewards(differing).tolist() == [1.0, 1.0]


def test_uncertainty_pays_for_no_query_that_nobody_solves():
    # nobody solves the third, however unsure the answers: two of three are solved
    played = surprised(scored_round([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), 1.0, 2.0, 9.0)
    paid = Learnability(uncertainty=0.6).challenger_rewards(played)
    torch.testing.assert_close(paid, torch.tensor([0.0, 0.4, 0.0]))


def test_queries_that_do_not_pay_the_challenger_do_not_set_the_scale_of_uncertainty():
    # a query of the pool, one that the gate shut out, and a malformed one, all very unsure
    gone = gated(["a", "b", "c", "d"], {}, rewards=[[1.0, 1.0]] * 5, replayed=["old"])
    played = surprised(gone, 1.0, 2.0, 8.0, 8.0, 30.0)
    played = replace(
        played,
        admitted_N=torch.tensor([True, True, False, True, True]),
        malformed_N=torch.tensor([False, False, False, True, False]),
    )
    paid = Learnability(uncertainty=0.5).challenger_rewards(played)
    torch.testing.assert_close(paid, torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0]))


def test_uncertainty_needs_a_highest_R_and_a_gate_that_lets_solved_queries_in():
    objective, key = Learnability(uncertainty=0.5), r"^model\.objective\.init_args\.uncertainty: "
    with pytest.raises(ConfigError, match=key + r"is 0\.5, which needs task rewards .*'fixed' has"):
        objective.check([FixedReward(None)])
    right = FixedReward(None)
    right.binary = True
    objective.check([right])
    Learnability().check([FixedReward(None)])
    with pytest.raises(ConfigError, match=key + r".*\[0\.1, 0\.9\] shuts .* \[0\.1, 1\]"):
        objective.check_gate((0.1, 0.9))
    for limits in (None, (0.1, 1.0)):
        objective.check_gate(limits)
    Learnability().check_gate((0.1, 0.9))


def test_uncertainty_is_not_negative():
    with pytest.raises(ConfigError, match=r"^model\.objective\.init_args\.uncertainty: is -1"):
        Learnability(uncertainty=-1)
