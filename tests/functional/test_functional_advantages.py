"""Values, advantages and objectives against numbers worked out by hand."""

import pytest
import torch

from lsp_lightning import functional as F

# Two queries, four answers each; V = (3/4, 1/4).
REWARDS = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
# Mean quality of the groups: (0.6 + 0.2 + 0.4 + 0.8) / 4 = 0.5 and 0.1.
QUALITY = torch.tensor([[0.6, 0.2, 0.4, 0.8], [0.1, 0.1, 0.1, 0.1]])


def test_value_is_the_mean_reward_of_a_querys_answers():
    torch.testing.assert_close(F.query_values(REWARDS), torch.tensor([0.75, 0.25]))  # eq. 2


def test_solver_advantage_is_reward_minus_value():
    # R - V: first group 1 - 3/4 and 0 - 3/4, second 0 - 1/4 and 1 - 1/4
    expected = torch.tensor([[0.25, 0.25, -0.75, 0.25], [-0.25, -0.25, 0.75, -0.25]])
    torch.testing.assert_close(F.solver_advantages(REWARDS), expected)


def test_solver_advantage_with_quality_centres_the_sum():
    # R + Q = (1.6, 1.2, 0.4, 1.8), mean 5 / 4 = 1.25; second (0.1, 0.1, 1.1, 0.1), mean 0.35
    expected = torch.tensor([[0.35, -0.05, -0.85, 0.55], [-0.25, -0.25, 0.75, -0.25]])
    torch.testing.assert_close(F.solver_advantages(REWARDS, QUALITY), expected)


@pytest.mark.parametrize("quality", [None, QUALITY])
@pytest.mark.parametrize("scale", ["none", "std"])
def test_solver_advantages_of_a_group_sum_to_zero(quality, scale):
    sums = F.solver_advantages(REWARDS, quality, scale).sum(dim=1)
    torch.testing.assert_close(sums, torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -7.3, 1000.1])
def test_constant_rewards_give_no_advantage(reward, scale):
    # one third, three times: sums of floats need not come back to the exact mean
    constant = torch.full((3, 3), reward)
    solver = F.solver_advantages(constant, None, scale)
    challenger = F.challenger_advantages(-F.query_values(constant), scale)
    torch.testing.assert_close(solver, torch.zeros(3, 3), atol=2e-4, rtol=0)
    torch.testing.assert_close(challenger, torch.zeros(3), atol=2e-4, rtol=0)


def test_challenger_advantage_is_mean_value_minus_value():
    # eq. 3: the mean of V is 1/2, so 1/2 - 3/4 and 1/2 - 1/4
    advantages = F.challenger_advantages(F.challenger_rewards(-F.query_values(REWARDS)))
    torch.testing.assert_close(advantages, torch.tensor([-0.25, 0.25]))


def test_challenger_is_paid_minus_value_plus_mean_quality():
    # -V + VQ: -0.75 + 0.5 = -0.25 and -0.25 + 0.1 = -0.15; their mean is -0.2
    rewards = F.challenger_rewards(-F.query_values(REWARDS), QUALITY)
    torch.testing.assert_close(rewards, torch.tensor([-0.25, -0.15]))
    torch.testing.assert_close(F.challenger_advantages(rewards), torch.tensor([-0.05, 0.05]))


def test_challenger_is_paid_its_own_rewards_on_top():
    extra = torch.tensor([0.0, -1.0])
    rewards = F.challenger_rewards(-F.query_values(REWARDS), None, extra)
    torch.testing.assert_close(rewards, torch.tensor([-0.75, -1.25]))


def test_std_scaling_divides_by_the_groups_own_spread():
    # first group: variance 3/4 * 1/4 = 3/16, std = sqrt(3) / 4, so +-1/4 becomes +-1 / sqrt(3)
    unit = 3**-0.5
    expected = torch.tensor([[unit, unit, -3 * unit, unit], [-unit, -unit, 3 * unit, -unit]])
    torch.testing.assert_close(F.solver_advantages(REWARDS, None, "std"), expected)
    # a group ten times as wide gets the same
    torch.testing.assert_close(F.solver_advantages(10 * REWARDS, None, "std"), expected)


def test_std_scaling_leaves_a_dead_group_at_zero_beside_a_living_one():
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 1.0]])
    advantages = F.solver_advantages(rewards, None, "std")
    assert advantages[0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    # variance 1/3 * 2/3 = 2/9: (1 - 1/3) / (sqrt(2) / 3) = sqrt(2)
    assert advantages[1, 2].item() == pytest.approx(2**0.5)


def test_std_scaling_of_the_challenger_is_over_the_queries():
    # (-0.75, -0.25): centred -+1/4 over a standard deviation of 1/4
    scaled = F.challenger_advantages(-F.query_values(REWARDS), "std")
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("group_size", [2, 3, 5, 8])
def test_learnability_of_right_and_wrong_answers_is_four_v_times_one_minus_v(group_size):
    for right in range(group_size + 1):
        rewards = torch.tensor([[1.0] * right + [0.0] * (group_size - right)])
        value = right / group_size
        assert F.learnability(rewards).item() == pytest.approx(4 * value * (1 - value))


def test_learnability_of_other_rewards_is_their_variance_over_the_largest_one():
    # (1, 2, 3): variance 2/3. (0, 0, 6): mean 2, variance (4 + 4 + 16) / 3 = 8
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    paid = F.learnability(rewards, max_variance=8.0)
    torch.testing.assert_close(paid, torch.tensor([1 / 12, 1.0]))


def test_learnability_before_any_spread_was_seen_is_zero_and_finite():
    assert F.learnability(torch.full((1, 4), 2.5), max_variance=0.0).tolist() == [0.0]


def test_learnability_leaves_out_what_could_not_be_judged():
    # the judged ones are (1, 0) and (1, 1, 0): variances 1/4 and 2/9, four times each
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 0.0, 0.7]])
    judged = torch.tensor([[True, True, False, False], [True, True, True, False]])
    paid = F.learnability(rewards, judged_NG=judged)
    torch.testing.assert_close(paid, torch.tensor([1.0, 8 / 9]))


def test_learnability_of_a_group_with_nothing_judged_is_zero_and_finite():
    assert F.learnability(torch.zeros(1, 3), judged_NG=torch.zeros(1, 3).bool()).tolist() == [0.0]


def test_frontier_pays_hard_and_not_impossible():
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    # V = 0 pays nothing, V = 1/4 pays 3/4, V = 1 pays 0
    torch.testing.assert_close(F.frontier(rewards), torch.tensor([0.0, 0.75, 0.0]))


def test_band_is_one_inside_and_falls_linearly_to_zero_outside():
    values = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.6, 0.9, 1.0])
    # low 0.2: 0.1 / 0.2 = 1/2 below it; high 0.6: (1 - 0.9) / (1 - 0.6) = 1/4 above it
    expected = torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0, 0.25, 0.0])
    torch.testing.assert_close(F.band(values.unsqueeze(1), low=0.2, high=0.6), expected)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.5, 1.0), (0.8, 0.2)])
def test_band_refuses_ends_that_make_no_band(low, high):
    with pytest.raises(ValueError, match="low"):
        F.band(REWARDS, low=low, high=high)


def test_dead_groups_are_those_without_spread():
    rewards = torch.tensor([[0.3, 0.3], [0.3, 0.4], [0.0, 0.0]])
    assert F.dead_groups(rewards).tolist() == [True, False, True]


@pytest.mark.parametrize(
    "function",
    [F.query_values, F.solver_advantages, F.learnability, F.frontier, F.dead_groups],
)
def test_rewards_without_a_group_axis_are_refused(function):
    with pytest.raises(ValueError, match=r"\(N, G\), got \(4,\)"):
        function(torch.zeros(4))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2, 4\), got \(2, 1\)"):
        F.solver_advantages(REWARDS, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got \(1,\)"):
        F.challenger_rewards(torch.zeros(2), None, torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(C,\), got \(2, 4\)"):
        F.challenger_advantages(REWARDS)


def test_quality_of_another_number_of_queries_is_refused():
    # mean over G of a (1, G) quality would broadcast over all N queries
    with pytest.raises(ValueError, match=r"expected shape|\(N, G\)"):
        F.challenger_rewards(-F.query_values(REWARDS), torch.zeros(1, 4))


def test_std_is_over_g_and_not_over_g_minus_1():
    # 1, 0, 0, 0: mean 1/4, mean square deviation 3/16 over G = 4, and 1/4 over G - 1 = 3
    advantages = F.solver_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scale="std")
    over_g_minus_1 = torch.tensor([[0.75, -0.25, -0.25, -0.25]]) / 0.5
    torch.testing.assert_close(advantages * (3 / 4) ** 0.5, over_g_minus_1)


def test_the_spread_of_a_group_counts_judged_answers_alone():
    # first group: mean 3/4, squares 3 * 1/16 + 9/16 = 3/4, over 4 answers; its last answer apart,
    # (1, 1, 0): mean 2/3, squares 2/9 + 4/9 = 2/3, over 3
    torch.testing.assert_close(F.group_std(REWARDS), torch.tensor([0.75, 0.75]).div(4).sqrt())
    judged = torch.tensor([[True, True, True, False], [True, False, False, False]])
    expected = torch.tensor([(2 / 9) ** 0.5, float("nan")])  # one answer has no spread
    torch.testing.assert_close(F.group_std(REWARDS, judged), expected, equal_nan=True)


def test_the_solve_rate_is_the_mean_reward_as_a_share_of_its_range():
    # V = 3/4 and 1/4 in [0, 1]; in [-1, 3] they are (3/4 + 1) / 4 and (1/4 + 1) / 4
    torch.testing.assert_close(F.solve_rates(REWARDS, 0.0, 1.0), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(F.solve_rates(REWARDS, -1.0, 3.0), torch.tensor([0.4375, 0.3125]))


SOLVED = torch.ones(3, dtype=torch.bool)
# mean surprisal 1, 3 and 2 nats: 0, 1 and 1/2 of the way from the surest to the least sure group
SURPRISAL = torch.tensor([[0.5, 1.5], [3.0, 3.0], [2.0, 2.0]])


def test_uncertainty_orders_solved_queries_by_the_surprisal_of_their_answers():
    expected = torch.tensor([0.0, 1.0, 0.5])
    torch.testing.assert_close(F.uncertainty(SURPRISAL, SOLVED), expected)


def test_uncertainty_fades_as_queries_are_no_longer_solved():
    # two of three are solved: 1 and 2 nats are the ends now, however unsure the third one is
    solved = torch.tensor([True, False, True])
    expected = torch.tensor([0.0, 0.0, 1.0]) * 2 / 3
    torch.testing.assert_close(F.uncertainty(SURPRISAL, solved), expected)
    torch.testing.assert_close(F.uncertainty(SURPRISAL, ~SOLVED), torch.zeros(3))


def test_uncertainty_compares_only_the_counted_queries():
    counted = torch.tensor([True, False, True])
    # the second one neither sets the scale nor changes the share
    expected = torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(F.uncertainty(SURPRISAL, SOLVED, counted), expected)
    torch.testing.assert_close(F.uncertainty(SURPRISAL, SOLVED, ~SOLVED), torch.zeros(3))


def test_uncertainty_leaves_out_answers_without_a_log_prob():
    surprisal = SURPRISAL.clone()
    surprisal[1] = torch.nan  # a server that returned none
    surprisal[2, 0] = torch.nan
    torch.testing.assert_close(F.uncertainty(surprisal, SOLVED), torch.tensor([0.0, 0.0, 1.0]))
    nothing = torch.full((3, 2), torch.nan)
    torch.testing.assert_close(F.uncertainty(nothing, SOLVED), torch.zeros(3))


def test_uncertainty_of_equally_sure_queries_is_zero():
    torch.testing.assert_close(F.uncertainty(torch.ones(3, 2), SOLVED), torch.zeros(3))


def test_the_surprisal_of_the_one_right_answer_tells_the_solve_rate():
    # one right answer of probability p: nobody fails in two draws, and -log p is still known
    rates = torch.tensor([0.99, 0.9, 0.95])
    surprisal = -rates.log().unsqueeze(1).expand(3, 2)
    order = F.uncertainty(surprisal, SOLVED).argsort(descending=True)
    assert order.tolist() == rates.argsort().tolist()
