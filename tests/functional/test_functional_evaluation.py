"""pass@k, compared with the count over all subsets of the answers."""

import itertools

import pytest
import torch

from lsp_lightning.functional.evaluation import pass_at_k


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
