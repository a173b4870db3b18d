"""The running scale is the mean and spread of all scores, in whatever batches they came."""

import random
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, playout, scored_round

from lsp_lightning.rewards import score_all
from lsp_lightning.rewards.scale import RunningScale

NAN = float("nan")


def scale_of(*batches) -> RunningScale:
    scale = RunningScale()
    for batch in batches:
        scale = scale.with_scores(torch.as_tensor(batch))
    return scale


def observed(reward, scores, *rounds):
    """The reward after rounds with these scores of its own."""
    for scored in (*rounds, scores):
        reward.observe(judged(scored, {reward.name: torch.tensor(scored)}))
    return reward


def judged(scores, components):
    """A round with these components."""
    return replace(scored_round(scores), components=components)


# -- the scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_merged_in_any_split_it_is_the_mean_and_spread_of_everything(seed, offset):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(200, generator=generator, dtype=torch.float64) * 3 + offset
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(200), rng.randint(0, 40)))
    scale = scale_of(*torch.tensor_split(scores, cuts))
    assert scale.count == 200
    assert scale.mean == pytest.approx(float(scores.mean()), rel=1e-12)
    assert scale.std == pytest.approx(float(scores.std(unbiased=False)), rel=1e-7)


def test_the_order_of_batches_does_not_matter():
    batches = [[1.0, 2.0], [10.0], [-3.0, 0.5, 0.25]]
    one, other = scale_of(*batches), scale_of(*batches[::-1])
    assert (one.count, one.mean) == (other.count, pytest.approx(other.mean))
    assert one.std == pytest.approx(other.std)


def test_what_could_not_be_judged_does_not_count():
    scores = torch.tensor([[1.0, NAN], [NAN, 4.0]])
    # mean 5/2, distances 3/2 on both sides
    scale = scale_of(scores, [NAN, NAN])
    assert (scale.count, scale.mean, scale.std) == (2, 2.5, 1.5)
    applied = scale.apply(scores)
    assert applied.isnan().tolist() == scores.isnan().tolist()
    assert (applied[0, 0], applied[1, 1]) == (-1, 1)


@pytest.mark.parametrize("batches", [(), ([],), ([NAN],), ([NAN, NAN], [])])
def test_with_nothing_seen_scores_become_zero(batches):
    scale = scale_of(*batches)
    assert scale == RunningScale()
    assert scale.std == 0
    assert scale.apply(torch.tensor([3.0, -1.0])).tolist() == [0, 0]
    assert scale.apply(torch.tensor([NAN])).isnan().all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.3, 1e-30, 1e6 + 0.1])
@pytest.mark.parametrize("count", [1, 3, 7, 1000])
def test_a_constant_reward_becomes_zero(value, count):
    scores = torch.full((count,), value)
    for scale in (scale_of(scores), scale_of(*scores.split(2)), scale_of(*[scores] * 5)):
        assert scale.apply(scores).tolist() == [0.0] * count
    hole = torch.cat([scores, torch.tensor([NAN])])
    applied = scale_of(hole).apply(hole)
    assert applied[:-1].tolist() == [0.0] * count
    assert applied[-1].isnan()


def test_applied_to_all_that_was_seen_it_gives_mean_0_and_variance_1():
    scores = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 40 - 900
    applied = scale_of(*scores.split(17)).apply(scores)
    assert float(applied.mean()) == pytest.approx(0, abs=1e-4)
    assert float(applied.std(unbiased=False)) == pytest.approx(1, rel=1e-4)


def test_a_scale_is_never_changed_only_followed_by_another():
    scale = scale_of([1.0, 2.0])
    before = vars(scale).copy()
    scale.with_scores(torch.tensor([100.0]))
    scale.apply(torch.tensor([100.0]))
    assert vars(scale) == before


# -- rewards on it ---------------------------------------------------------------------------------

PLAYED = playout(["q0", "q1"], [["a", "b"], ["c", "d"]])
ROUND = [[1.0, 0.0], [0.5, 0.25]]


def test_without_standardize_scores_stay_as_they_are():
    reward = FixedReward([[5.0, 7.0], [9.0, 11.0]])
    assert reward.scale is None
    assert score_all([reward], PLAYED).rewards_NG.tolist() == [[5.0, 7.0], [9.0, 11.0]]
    assert reward.state_dict() == {}


def test_scores_are_standardised_over_the_rounds_so_far_this_one_included():
    reward = observed(FixedReward([[2.0, 2.0], [2.0, 6.0]], standardize=True), [[0.0, 4.0]])
    scored = score_all([reward], PLAYED)
    everything = torch.tensor([0.0, 4.0, 2.0, 2.0, 2.0, 6.0])  # both rounds
    expected = (reward.scores - everything.mean()) / everything.std(unbiased=False)
    torch.testing.assert_close(scored.rewards_NG, expected)
    # what is logged are the scores themselves
    torch.testing.assert_close(scored.components["fixed"], reward.scores)


def test_each_round_is_seen_with_all_rounds_before_it():
    rounds = [torch.randn(2, 2, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    reward, seen = FixedReward(ROUND, standardize=True), []
    for scores in rounds:
        reward.scores = scores
        seen.append(scores.double().flatten())
        everything = torch.cat(seen)
        expected = (scores - everything.mean()) / everything.std(unbiased=False)
        scored = score_all([reward], PLAYED)
        torch.testing.assert_close(scored.rewards_NG, expected.float())
        reward.observe(judged(ROUND, scored.components))
    assert reward.scale.count == 16


def test_only_observing_changes_the_scale():
    reward = observed(FixedReward(ROUND, standardize=True), [[3.0, 4.0]])
    before = reward.state_dict()
    first = reward.scaled(torch.tensor(ROUND))
    reward.score(PLAYED)
    score_all([reward], PLAYED)
    assert reward.state_dict() == before
    torch.testing.assert_close(reward.scaled(torch.tensor(ROUND)), first, rtol=0, atol=0)
    observed(reward, ROUND)
    assert reward.state_dict() != before
    assert before["scale"]["count"] == 2  # a state that was taken stays what it was
    reward.state_dict()["scale"]["count"] = 99  # and is no way in
    assert reward.scale.count == 6


def test_observing_a_round_in_which_nothing_was_judged_changes_nothing():
    reward = observed(FixedReward(ROUND, standardize=True), [[3.0, 4.0]])
    before = reward.state_dict()
    assert observed(reward, [[NAN, NAN]]).state_dict() == before


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 100.0), (1000.0, 0.0), (0.001, -3.0)])
def test_a_standardised_reward_does_not_know_its_unit(factor, shift):
    generator = torch.Generator().manual_seed(1)
    plain = FixedReward(ROUND, standardize=True)
    other = FixedReward(ROUND, standardize=True)
    for _ in range(3):
        scores = torch.rand(2, 2, generator=generator, dtype=torch.float64)
        plain.scores, other.scores = scores, factor * scores + shift
        ours, theirs = score_all([plain], PLAYED), score_all([other], PLAYED)
        torch.testing.assert_close(ours.rewards_NG, theirs.rewards_NG, atol=1e-3, rtol=1e-3)
        plain.observe(judged(ROUND, ours.components))
        other.observe(judged(ROUND, theirs.components))


def test_logits_of_thousands_and_scores_below_1_count_equally():
    generator = torch.Generator().manual_seed(2)
    unit = torch.rand(2, 2, generator=generator)
    # the logits say the opposite of the unit scores: standardised, the two cancel out
    logits = 1000 - 4000 * unit
    rewards = [
        FixedReward(unit, name="unit", standardize=True),
        FixedReward(logits, name="logits", standardize=True),
    ]
    both = score_all(rewards, PLAYED).rewards_NG
    torch.testing.assert_close(both, torch.zeros(2, 2), atol=1e-4, rtol=0)
    # and without it one of them is all there is
    for reward in rewards:
        reward.scale = None
    alone = score_all(rewards, PLAYED).rewards_NG
    torch.testing.assert_close(alone, logits, rtol=1e-2, atol=1)


def test_weights_hold_after_standardising():
    scores = torch.tensor(ROUND)
    once = score_all([FixedReward(scores, standardize=True)], PLAYED).rewards_NG
    thrice = score_all([FixedReward(scores, standardize=True, weight=3.0)], PLAYED).rewards_NG
    torch.testing.assert_close(thrice, 3 * once)


def test_the_state_of_a_scale_is_plain_and_goes_on():
    reward = observed(FixedReward(ROUND, standardize=True), ROUND)
    state = reward.state_dict()
    assert {type(value) for value in state["scale"].values()} == {int, float}
    fresh = FixedReward(ROUND, standardize=True)
    fresh.load_state_dict(state)
    assert fresh.scale == reward.scale
    # a reward that was not standardised before begins anew; one that no longer is forgets
    fresh.load_state_dict({})
    assert fresh.scale == reward.scale
    plain = FixedReward(ROUND)
    plain.load_state_dict(state)
    assert plain.scale is None


def test_a_reward_for_the_challenger_can_be_standardised_too():
    reward = FixedReward([10.0, 30.0], enters="challenger", name="c", standardize=True)
    task = FixedReward(ROUND)
    assert score_all([task, reward], PLAYED).challenger_N.tolist() == [-1.0, 1.0]
