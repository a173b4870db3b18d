"""Estimates from repeated draws."""

import torch
from torch import Tensor


def pass_at_k(solved: Tensor, k: int) -> Tensor:
    """Chance that one of k draws solves it, from n draws each: ``1 - C(n-c, k) / C(n, k)``.

    The unbiased estimate of arXiv 2107.03374. (tasks, n) of 0 and 1 -> (tasks,).
    """
    n = solved.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= {n} draws")
    correct = solved.sum(dim=1, keepdim=True)
    places = torch.arange(n - k + 1, n + 1, dtype=solved.dtype, device=solved.device)
    return 1 - (1 - correct / places).clamp_min(0).prod(dim=1)
