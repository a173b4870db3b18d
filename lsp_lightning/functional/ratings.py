"""Ratings of Solvers and Challengers from how often each one solves each other's queries."""

import math

import torch
from torch import Tensor

#: Elo points of a factor e in the odds.
ELO = 400 / math.log(10)
#: Standard deviation of the prior of each parameter, in logits. It bounds the ratings of a Solver
#: that solves everything, and hardly moves others.
_PRIOR = 3.0
_STEPS = 50


def rasch(rates_CS: Tensor, counts_C: Tensor) -> tuple[Tensor, Tensor]:
    """Skills and difficulties, in logits, of the model ``logit P = skill - difficulty`` (Rasch).

    The maximum of the likelihood with a weak normal prior, by Newton's method. Leading dimensions
    are separate problems.

    Args:
        rates_CS: share of the queries of Challenger c that Solver s solves; (..., C, S).
        counts_C: number of queries of each Challenger; (C,).

    Returns:
        The skill of each Solver, (..., S), that of the first is 0; and the difficulty of each
        Challenger's queries for a Solver of skill 0, (..., C).
    """
    rates = rates_CS.double()
    C, S = rates.shape[-2:]
    # each cell depends on one skill and one difficulty: +1 and -1; the first skill is fixed at 0
    design = torch.zeros(C * S, S - 1 + C, dtype=torch.double)
    for c in range(C):
        for s in range(S):
            if s:
                design[c * S + s, s - 1] = 1.0
            design[c * S + s, S - 1 + c] = -1.0
    weights = counts_C.double().repeat_interleave(S)
    prior = torch.eye(design.shape[1], dtype=torch.double) / _PRIOR**2
    targets = rates.flatten(-2)
    found = torch.zeros(*rates.shape[:-2], design.shape[1], dtype=torch.double)
    for _ in range(_STEPS):
        chances = torch.sigmoid(found @ design.T)
        slope = ((targets - chances) * weights) @ design - found @ prior
        bend = design.T @ ((chances * (1 - chances) * weights)[..., None] * design) + prior
        # the prior keeps the matrix invertible; a step of at most 2 logits keeps Newton stable
        step = torch.linalg.solve(bend, slope[..., None])[..., 0]
        found = found + step.clamp(-2, 2)
    skills = torch.cat([torch.zeros_like(found[..., :1]), found[..., : S - 1]], dim=-1)
    return skills, found[..., S - 1 :]


def elo_ratings(rates_CSN: Tensor, samples: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Elo ratings of Solvers and Challengers with 95 % bootstrap intervals over the queries.

    A Solver that is 400 points ahead of another has ten times its odds to solve a query. Ratings
    are relative to the first Solver and the first Challenger. A Challenger with a higher rating
    writes harder queries.

    Args:
        rates_CSN: share of the answers of Solver s to query n of Challenger c that are right,
            (C, S, N); NaN for a query that does not count. A query counts for all Solvers or none.
        samples: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        For the Solvers (S, 3) and the Challengers (C, 3): rating, lower and upper end.

    Raises:
        ValueError: a Challenger has no query that counts.
    """
    queries = [rates[:, ~rates.isnan().any(dim=0)].double() for rates in rates_CSN]
    if not all(found.shape[1] for found in queries):
        raise ValueError("a Challenger has no query that counts")
    counts_C = torch.tensor([found.shape[1] for found in queries])
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for found in queries:  # (S, n) -> (samples, S)
        n = found.shape[1]
        picked = torch.randint(n, (samples, n), generator=generator)
        drawn.append(found[:, picked].mean(dim=2).T)
    means = torch.stack([found.mean(dim=1) for found in queries])
    skills, difficulties = rasch(torch.cat([means[None], torch.stack(drawn, 1)]), counts_C)
    return _with_interval(skills), _with_interval(difficulties - difficulties[:, :1])


def _with_interval(logits: Tensor) -> Tensor:
    """Elo points of the first row with the 95 % interval of the others. (1 + b, k) -> (k, 3)."""
    points = ELO * logits
    low, high = points[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.double), dim=0)
    return torch.stack([points[0], low, high], dim=1).float()
