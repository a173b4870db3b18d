"""Estimates of how often a policy solves a task, from several answers to each task."""

import torch
from torch import Tensor


def pass_at_k(solved: Tensor, k: int) -> Tensor:
    """pass@k: the probability that at least one of k answers solves a task.

    The unbiased estimate ``1 - C(n - c, k) / C(n, k)`` from n answers, c of them right
    (arXiv 2107.03374).

    Args:
        solved: 1 for a right answer, else 0; (tasks, n).
        k: number of answers, at most n.

    Returns:
        One estimate for each task, (tasks,).

    Raises:
        ValueError: k is not between 1 and n.
    """
    n = solved.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}; it must lie between 1 and the {n} answers of a task")
    correct = solved.sum(dim=1, keepdim=True)
    places = torch.arange(n - k + 1, n + 1, dtype=solved.dtype, device=solved.device)
    return 1 - (1 - correct / places).clamp_min(0).prod(dim=1)
