"""Values, advantages and the Challenger's rewards (arXiv 2509.07414).

Axes: ``N`` queries, ``G`` answers to each, ``C`` queries that the Challenger wrote.
"""

from typing import Literal

import torch
from torch import Tensor

AdvantageScale = Literal["none", "std"]

_STD_FLOOR = 1e-6


def query_values(rewards_NG: Tensor) -> Tensor:
    """Value of each query, ``V_i = mean_j R_ij`` (eq. 2). (N, G) -> (N,)."""
    _require_matrix(rewards_NG, "rewards_NG")
    return rewards_NG.mean(dim=1)


def solve_rates(rewards_NG: Tensor, lowest: float, highest: float) -> Tensor:
    """The mean R of each query as a share of its range, in [0, 1]. (N, G) -> (N,).

    For rewards of 0 or 1 it is the share of right answers.

    Args:
        rewards_NG: R.
        lowest: the lowest possible R.
        highest: the highest possible R.
    """
    return (query_values(rewards_NG) - lowest) / max(highest - lowest, _STD_FLOOR)


def solver_advantages(
    rewards_NG: Tensor,
    quality_NG: Tensor | None = None,
    scale: AdvantageScale = "none",
    judged_NG: Tensor | None = None,
) -> Tensor:
    """Solver's advantage: ``R + Q`` minus the mean of its group (Algorithm 1). (N, G) -> (N, G).

    The mean includes the sample itself, as in the paper, so the expected gradient is
    ``(G - 1) / G`` of the true one; the KL term's is not reduced
    (:mod:`lsp_lightning.functional.kl`). ``scale="std"`` also divides by the group's standard
    deviation, as GRPO does, with the mean square over G; trainers that take it over G - 1 have
    advantages that are ``sqrt((G - 1) / G)`` of these. A group without spread keeps advantage 0.
    Answers that could not be judged (``judged_NG`` false) get 0 and do not change the mean.
    """
    _require_matrix(rewards_NG, "rewards_NG")
    total_NG = rewards_NG if quality_NG is None else rewards_NG + _like(quality_NG, rewards_NG)
    return _centre(total_NG, scale, judged_NG)


def challenger_rewards(
    objective_N: Tensor, quality_NG: Tensor | None = None, extra_N: Tensor | None = None
) -> Tensor:
    """The Challenger's reward of each query: objective + ``VQ_i = mean_j Q_ij`` + extra. (N,).

    Args:
        objective_N: value of the objective, (N,); ``-V`` in the paper.
        quality_NG: weighted quality rewards, (N, G), or None for LSP-Zero.
        extra_N: weighted rewards that only the Challenger receives, (N,), or None.
    """
    reward_N = objective_N
    if quality_NG is not None:
        reward_N = reward_N + _like(query_values(quality_NG), objective_N)
    if extra_N is not None:
        reward_N = reward_N + _like(extra_N, objective_N)
    return reward_N


def challenger_advantages(rewards_C: Tensor, scale: AdvantageScale = "none") -> Tensor:
    """Challenger's advantage: its reward minus the mean of its baseline group. (C,) -> (C,).

    With reward ``-V`` this is ``mean(V) - V_i`` (eq. 3).
    """
    if rewards_C.dim() != 1:
        raise ValueError(f"rewards_C must have shape (C,), got {tuple(rewards_C.shape)}")
    return _centre(rewards_C.unsqueeze(0), scale).squeeze(0)


def learnability(
    rewards_NG: Tensor, max_variance: Tensor | float = 0.25, judged_NG: Tensor | None = None
) -> Tensor:
    """The variance within each group, divided by ``max_variance``. (N, G) -> (N,).

    For rewards in {0, 1} and ``max_variance=0.25`` it is ``4 V (1 - V)``, highest where half of the
    answers are right. For other rewards pass the largest variance seen so far. Answers that could
    not be judged (``judged_NG`` false) do not count.
    """
    _require_matrix(rewards_NG, "rewards_NG")
    centred_NG, count_N1 = _deviations(rewards_NG, judged_NG)
    variance_N = centred_NG.square().sum(dim=1) / count_N1.squeeze(1)
    return variance_N / max(float(max_variance), _STD_FLOOR)


def uncertainty(surprisal_NG: Tensor, solved_N: Tensor, counted_N: Tensor | None = None) -> Tensor:
    """How uncertain the answers to solved queries are, the more the more are solved. -> (N,).

    The uncertainty of a query is the mean surprisal of its answers, ``-log pi(a | q)``. It is 0 for
    the surest solved query, 1 for the least sure one, linear between, and 0 for queries that are
    not solved. All are multiplied by the share of queries that are solved. If a query has one right
    answer, the surprisal is minus the logarithm of the solve rate, which is known then although no
    answer was wrong.

    Args:
        surprisal_NG: minus the log-prob of each answer, the sum over its tokens, (N, G); answers
            for which it is unknown (NaN) do not count.
        solved_N: whether all answers are right, (N,) bool.
        counted_N: the queries that are compared, (N,) bool; None: all.
    """
    _require_matrix(surprisal_NG, "surprisal_NG")
    counted_N = torch.ones_like(solved_N) if counted_N is None else counted_N
    known_NG = surprisal_NG.isfinite()
    paid_N = solved_N & counted_N & known_NG.any(dim=1)
    if not paid_N.any():
        return torch.zeros_like(surprisal_NG[:, 0])
    mean_N = torch.where(known_NG, surprisal_NG, torch.nan).nanmean(dim=1)
    low, high = mean_N[paid_N].min(), mean_N[paid_N].max()
    share = (solved_N & counted_N).sum() / counted_N.sum()
    scaled_N = (mean_N - low) / (high - low).clamp_min(_STD_FLOOR)
    return torch.where(paid_N, share * scaled_N, 0.0)


def frontier(rewards_NG: Tensor) -> Tensor:
    """``1 - V`` where V > 0, else 0; R in [0, 1]. (N, G) -> (N,)."""
    values_N = query_values(rewards_NG)
    return torch.where(values_N > 0, 1 - values_N, torch.zeros_like(values_N))


def band(rewards_NG: Tensor, low: float = 0.25, high: float = 0.75) -> Tensor:
    """1 while V lies in [low, high], falling linearly to 0 at V = 0 and 1. (N, G) -> (N,)."""
    if not 0 < low <= high < 1:
        raise ValueError(f"band needs 0 < low <= high < 1, got low={low}, high={high}")
    values_N = query_values(rewards_NG)
    return torch.minimum(values_N / low, (1 - values_N) / (1 - high)).clamp(0, 1)


def dead_groups(rewards_NG: Tensor) -> Tensor:
    """True for groups of equal rewards (up to rounding): no advantage. (N, G) -> (N,) bool."""
    _require_matrix(rewards_NG, "rewards_NG")
    floor_N = _STD_FLOOR * rewards_NG.abs().amax(dim=1).clamp_min(1.0)
    return rewards_NG.amax(dim=1) - rewards_NG.amin(dim=1) <= floor_N


def group_std(scores_NG: Tensor, judged_NG: Tensor | None = None) -> Tensor:
    """Standard deviation within each group, its sum of squares divided by the number of answers.

    (N, G) -> (N,). Answers that could not be judged (``judged_NG`` false) do not count; a group
    with fewer than two judged answers has NaN.
    """
    _require_matrix(scores_NG, "scores_NG")
    centred_NG, count_N1 = _deviations(scores_NG, judged_NG)
    std_N1 = (centred_NG.square().sum(dim=1, keepdim=True) / count_N1).sqrt()
    return torch.where(count_N1 > 1, std_N1, torch.nan).squeeze(1)


def _deviations(x: Tensor, judged: Tensor | None) -> tuple[Tensor, Tensor]:
    """Judged entries minus their row's mean, 0 elsewhere; and their number, 1 if there are none."""
    known = torch.ones_like(x) if judged is None else _like(judged, x).to(x.dtype)
    count = known.sum(dim=-1, keepdim=True).clamp_min(1)
    mean = (known * x).sum(dim=-1, keepdim=True) / count
    return known * (x - mean), count


def _centre(x: Tensor, scale: AdvantageScale, judged: Tensor | None = None) -> Tensor:
    """Rows minus their mean; scale "std" also divides by the standard deviation."""
    centred, count = _deviations(x, judged)
    if scale == "std":
        std = (centred.square().sum(dim=-1, keepdim=True) / count).sqrt()
        # rounding errors give equal rewards a spread, which grows with their size
        floor = _STD_FLOOR * x.abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
        return torch.where(std > floor, centred / std.clamp_min(_STD_FLOOR), 0.0 * centred)
    return centred


def _require_matrix(x: Tensor, name: str) -> None:
    if x.dim() != 2:
        raise ValueError(f"{name} must have shape (N, G), got {tuple(x.shape)}")


def _like(x: Tensor, other: Tensor) -> Tensor:
    if x.shape != other.shape:
        raise ValueError(f"expected shape {tuple(other.shape)}, got {tuple(x.shape)}")
    return x
