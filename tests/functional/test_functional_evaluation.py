"""pass@k, compared with the count over all subsets of the answers; intervals and coverage."""

import itertools
import math

import pytest
import torch

from lsp_lightning.functional.evaluation import (
    difference_interval,
    length_controlled_rate,
    mean_and_error,
    pass_at_k,
    proportion_interval,
    task_means,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize(("n", "k"), [(n, k) for n in range(1, 6) for k in range(1, n + 1)])
def test_pass_at_k_is_the_share_of_subsets_of_k_answers_with_a_right_one(n, k, dtype):
    solved = torch.tensor([[1] * c + [0] * (n - c) for c in range(n + 1)], dtype=dtype)
    expected = []
    for row in solved.tolist():
        subsets = list(itertools.combinations(row, k))
        expected.append(sum(any(subset) for subset in subsets) / len(subsets))
    torch.testing.assert_close(pass_at_k(solved, k), torch.tensor(expected))


def test_pass_at_k_does_not_depend_on_the_order_of_answers():
    assert pass_at_k(torch.tensor([[0.0, 1, 0, 1]]), 2) == pass_at_k(
        torch.tensor([[1.0, 1, 0, 0]]), 2
    )


@pytest.mark.parametrize("k", [0, 4])
def test_pass_at_k_needs_at_least_k_answers(k):
    with pytest.raises(ValueError, match=rf"k is {k}; it must lie between 1 and the 3 answers"):
        pass_at_k(torch.zeros(2, 3), k)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_of_a_task_with_unjudged_answers_is_that_of_the_judged_ones(k):
    """Over subsets of k judged answers, or of all of them if there are fewer."""
    rows = list(itertools.product([1.0, 0.0, math.nan], repeat=4))
    expected = []
    for row in rows:
        judged = [score for score in row if not math.isnan(score)]
        subsets = list(itertools.combinations(judged, min(k, len(judged))))
        hits = sum(any(subset) for subset in subsets) / len(subsets)
        expected.append(hits if judged else math.nan)
    found = pass_at_k(torch.tensor(rows), k)
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)


def test_a_solved_task_with_one_unjudged_answer_counts_in_pass_at_k_and_in_the_mean():
    scores = torch.tensor([[1.0, math.nan], [0.0, 0.0]])
    assert pass_at_k(scores, 2).tolist() == [1.0, 0.0]
    assert task_means(scores).tolist() == [1.0, 0.0]


def test_the_standard_error_is_that_of_the_mean_over_tasks():
    # deviations -1.5, -.5, .5, 1.5: variance 5 / 3 with 4 - 1, error sqrt(5 / 3 / 4)
    mean, error = mean_and_error(torch.tensor([1.0, 2.0, math.nan, 3.0, 4.0]))
    assert float(mean) == 2.5
    assert float(error) == pytest.approx(math.sqrt(5 / 12))


def test_the_standard_error_does_not_shrink_with_more_answers_to_the_same_tasks():
    # answers of a task that are all alike say no more than one of them
    few = torch.tensor([[1.0], [0.0], [1.0]])
    assert mean_and_error(task_means(few)) == mean_and_error(task_means(few.expand(3, 8)))


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([math.nan], math.nan), ([0.5], 0.5)])
def test_one_task_has_no_standard_error(values, mean):
    found, error = mean_and_error(torch.tensor(values))
    assert float(found) == mean or (math.isnan(mean) and math.isnan(found))
    assert math.isnan(error)


# -- intervals -------------------------------------------------------------------------------------

Z = 1.959964


def test_the_interval_of_zeros_and_ones_is_wilsons():
    # 31 of 50: middle (.62 + z^2 / 100) / (1 + z^2 / 50), half z sqrt(.62 .38 / 50 + z^2 / 10000)
    # / (1 + z^2 / 50); the ends solve (p - x)^2 = z^2 x (1 - x) / n
    found = proportion_interval(torch.tensor([1.0] * 31 + [0.0] * 19))
    assert found.value == pytest.approx(0.62)
    for end in found[1:]:
        assert (0.62 - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / 50)
    assert found.low < 0.62 < found.high


def test_means_over_draws_spread_less_and_have_a_narrower_interval():
    coin, steady = torch.tensor([1.0, 0.0] * 50), torch.tensor([0.6, 0.4] * 50)
    wide, narrow = proportion_interval(coin), proportion_interval(steady)
    assert wide.value == pytest.approx(narrow.value)
    # deviations a fifth as large, so n_eff is 25 n; at 1/2 the width is z / sqrt(n_eff + z^2)
    assert narrow.high - narrow.low == pytest.approx(Z / math.sqrt(25 * 100 + Z**2), rel=1e-4)
    assert wide.high - wide.low == pytest.approx(Z / math.sqrt(100 + Z**2), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 0.3])
@pytest.mark.parametrize("n", [1, 30])
def test_equal_values_have_the_interval_of_as_many_tasks(value, n):
    found = proportion_interval(torch.full((n,), value))
    low, high = (Z**2 * x * (1 - x) / n for x in found[1:])
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.05
    assert (value - found.low) ** 2 == pytest.approx(low, abs=1e-6)
    assert (value - found.high) ** 2 == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize(
    "estimate",
    [proportion_interval, difference_interval, lambda x: length_controlled_rate(x[:, None], x)],
)
def test_nothing_judged_has_no_interval(estimate):
    assert all(map(math.isnan, estimate(torch.full((3,), math.nan))))


def test_unjudged_tasks_are_left_out_of_an_interval():
    some = torch.tensor([1.0, 0.0, 0.5])
    for estimate in (proportion_interval, difference_interval):
        assert estimate(torch.cat([some, torch.tensor([math.nan])])) == estimate(some)


@pytest.mark.parametrize("ties", [0.0, 0.5])
@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_the_interval_holds_the_true_rate_in_95_percent_of_studies(rate, draws, ties):
    """Tasks of different difficulty (a Beta distribution), ties that count half."""
    generator = torch.Generator().manual_seed(1)
    studies, n = 600, 60
    with torch.random.fork_rng():
        torch.manual_seed(2)
        tasks = torch.distributions.Beta(4 * rate, 4 * (1 - rate)).sample((studies, n, 1))
    won = (torch.rand(studies, n, draws, generator=generator) < tasks).float()
    won[torch.rand(studies, n, draws, generator=generator) < ties] = 0.5
    truth = ties / 2 + (1 - ties) * rate
    found = [proportion_interval(study.mean(dim=1)) for study in won]
    held = sum(interval.low <= truth <= interval.high for interval in found) / studies
    assert 0.925 <= held <= 0.98  # one standard error is .009


def test_a_difference_of_nothing_keeps_a_width_that_shrinks_with_the_tasks():
    # sum of squares 1 over n + 2: variance 1 / (n + 2), error 1 / (n + 2)
    assert difference_interval(torch.zeros(98)).high == pytest.approx(Z / 100)
    assert difference_interval(torch.zeros(398)).high == pytest.approx(Z / 400)


def test_a_paired_difference_holds_the_true_one_in_95_percent_of_studies():
    generator = torch.Generator().manual_seed(3)
    skill = torch.rand(600, 80, generator=generator)
    first, second = (
        (torch.rand(600, 80, generator=generator) < (skill + gain).clamp(0, 1)).float()
        for gain in (0.1, 0.0)
    )
    # the mean of min(x + .1, 1) - x over [0, 1] is .1 - .1^2 / 2
    found = map(difference_interval, first - second)
    held = sum(i.low <= 0.095 <= i.high for i in found) / 600
    assert 0.925 <= held <= 0.98


# -- win rates at equal length ---------------------------------------------------------------------


def lengths(n: int, mean: float, seed: int) -> torch.Tensor:
    return 20 * (torch.randn(n, 1, generator=torch.Generator().manual_seed(seed)) + mean)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 1.0, 1.5])
def test_a_judge_that_only_loves_length_is_even_at_equal_length(mean):
    longer = lengths(800, mean, 1)
    won = (longer > 0).float()
    found = length_controlled_rate(won, longer)
    assert abs(float(won.mean()) - 0.5) > 0.3 or abs(mean) < 1
    assert found.value == pytest.approx(0.5, abs=0.1)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_the_planted_rate_at_equal_length_is_found(rate):
    generator = torch.Generator().manual_seed(4)
    held, raw, values = 0, [], []
    for seed in range(100):
        longer = lengths(400, 0.8, seed)
        z = math.log(rate / (1 - rate)) + 2 * torch.tanh(longer / longer.std(correction=0))
        won = (torch.rand(400, 1, generator=generator) < z.sigmoid()).float()
        found = length_controlled_rate(won, longer)
        held += found.low <= rate <= found.high
        values.append(found.value)
        raw.append(float(won.mean()))
    assert sum(values) / 100 == pytest.approx(rate, abs=0.02)
    assert sum(raw) / 100 > rate + 0.05
    assert 90 <= held <= 100


def test_answers_of_equal_length_have_their_win_rate():
    # half a win and half a loss are added: (30 + .5) / (40 + 1)
    won = torch.tensor([[1.0]] * 30 + [[0.0]] * 10)
    for longer in (torch.zeros(40, 1), torch.full((40, 1), 7.0)):
        assert length_controlled_rate(won, longer).value == pytest.approx(30.5 / 41)


@pytest.mark.parametrize("won", [1.0, 0.0, 0.5])
@pytest.mark.parametrize("n", [1, 50])
def test_a_player_that_always_wins_has_a_finite_rate(won, n):
    found = length_controlled_rate(torch.full((n, 1), won), lengths(n, 0.5, 5))
    assert 0 < found.low < found.value < found.high < 1
    assert found.value == pytest.approx(won, abs=0.26 if n == 1 else 0.05)


def test_more_draws_of_the_same_prompts_do_not_narrow_the_rate_at_equal_length():
    longer = lengths(60, 0.3, 6)
    won = (longer + 20 * torch.randn(60, 1, generator=torch.Generator().manual_seed(7)) > 0).float()
    once = length_controlled_rate(won, longer)
    assert length_controlled_rate(won.expand(60, 8), longer.expand(60, 8)) == pytest.approx(once)
