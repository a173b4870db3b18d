"""Estimates of how often a policy solves a task, from several answers to each task."""

import torch
from torch import Tensor


def pass_at_k(solved: Tensor, k: int) -> Tensor:
    """pass@k: the probability that at least one of k answers solves a task.

    The unbiased estimate ``1 - C(m - c, k) / C(m, k)`` from the m judged answers of a task, c of
    them right (arXiv 2107.03374). Answers that could not be judged are left out. If fewer than k
    are left, the estimate is pass@m of these m: 1 if one of them is right, else 0, which is never
    more than pass@k in expectation. So every task with a judged answer has an estimate.

    Args:
        solved: 1 for a right answer, 0 for a wrong one, NaN for one that could not be judged;
            (tasks, n).
        k: number of answers, at most n.

    Returns:
        One estimate for each task, (tasks,); NaN for a task without a judged answer.

    Raises:
        ValueError: k is not between 1 and n.
    """
    n = solved.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}; it must lie between 1 and the {n} answers of a task")
    known = ~torch.isnan(solved)
    right = torch.where(known, solved, 0).sum(dim=1).float()
    judged = known.sum(dim=1).float()
    missed = torch.ones_like(right)
    for i in range(k):  # draw k answers without replacement, all of them wrong
        share = (judged - right - i).clamp_min(0) / (judged - i).clamp_min(1)
        missed = torch.where(judged > i, missed * share, missed)
    return torch.where(judged > 0, 1 - missed, torch.nan)


def task_means(scores: Tensor) -> Tensor:
    """The mean of each task's judged answers. (tasks, n) -> (tasks,), NaN without any."""
    return scores.nanmean(dim=1)


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over tasks and its standard error. Only tasks are independent, not their draws.

    Args:
        values: one value for each task, (tasks,); NaN values are left out.

    Returns:
        The mean, NaN without a value, and ``std / sqrt(tasks)`` with the standard deviation that
        divides by tasks - 1, NaN for fewer than two values. Both ().
    """
    known = values[~values.isnan()].double()
    if known.numel() < 2:
        return known.mean().float(), torch.tensor(torch.nan)
    return known.mean().float(), (known.std() / known.numel() ** 0.5).float()
