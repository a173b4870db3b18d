"""pass@k, compared with the count over all subsets of the answers, and standard errors."""

import itertools
import math

import pytest
import torch

from lsp_lightning.functional.evaluation import mean_and_error, pass_at_k, task_means


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
