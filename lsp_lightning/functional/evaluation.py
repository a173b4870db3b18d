"""Estimates from several answers to each task: solve rates, win rates, and their intervals."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

#: The two-sided 95 % quantile of the normal distribution.
_Z = 1.959964
#: Standard deviation of the prior of the length coefficient, see :func:`length_controlled_rate`.
_PRIOR = 5.0
_NEWTON_STEPS = 100


class Interval(NamedTuple):
    """An estimate with its 95 % interval; all are NaN if there is nothing to estimate from."""

    value: float
    low: float
    high: float


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


def proportion_interval(values: Tensor) -> Interval:
    """The mean over tasks of values in [0, 1], with Wilson's interval at an effective sample size.

    For values that are 0 or 1 it is Wilson's interval (JASA 22, 1927), which never leaves [0, 1]
    and has a width at shares of 0 and 1, unlike ``p +- 1.96 se``. Averages over draws, and ties
    that count half, spread less than 0 and 1 do, so ``p (1 - p) / n`` overstates their variance.
    The interval therefore uses the number of 0/1 values with the variance that was found:
    ``n_eff = p (1 - p) / se^2``, ``se^2 = sum (v - p)^2 / n^2``. It is n where se is 0 (all values
    are equal, or there is one), because nothing is known about the spread there.

    Args:
        values: one value in [0, 1] for each task, (tasks,); NaN values are left out.
    """
    known = values[~values.isnan()].double()
    n = known.numel()
    if n == 0:
        return Interval(torch.nan, torch.nan, torch.nan)
    p = float(known.mean())
    variance = float(((known - p) ** 2).sum()) / n**2
    size = p * (1 - p) / variance if variance > 1e-12 / n else n  # rounding leaves no exact 0
    square = _Z**2 / size
    middle = (p + square / 2) / (1 + square)
    half = _Z * (p * (1 - p) / size + square / (4 * size)) ** 0.5 / (1 + square)
    return Interval(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def difference_interval(differences: Tensor) -> Interval:
    """The mean of paired differences in [-1, 1] over tasks, with its 95 % interval.

    Agresti and Min's interval for matched pairs (Statistics in Medicine 24, 2005): a normal
    interval after adding two tasks to the data, half a +1, half a -1 and one 0. So it keeps a width
    of about 2 / n if all tasks agree, where ``1.96 se`` is 0. The value is the plain mean.

    Args:
        differences: one for each task, (tasks,); NaN values are left out.
    """
    known = differences[~differences.isnan()].double()
    if known.numel() == 0:
        return Interval(torch.nan, torch.nan, torch.nan)
    n = known.numel() + 2
    value, shrunk = float(known.mean()), float(known.sum()) / n
    variance = (float((known**2).sum()) + 1) / n - shrunk**2
    half = _Z * (variance / n) ** 0.5
    return Interval(
        value, max(-1.0, min(value, shrunk - half)), min(1.0, max(value, shrunk + half))
    )


def length_controlled_rate(won: Tensor, longer: Tensor) -> Interval:
    """The win rate that two players would have if their answers were equally long.

    As AlpacaEval 2 (arXiv 2404.04475): a logistic regression of the preference on
    ``tanh(difference / standard deviation of the differences)``, read at difference 0. Its third
    term, the difficulty of each instruction, needs many models and is left out. The draws of a task
    weigh as much as one comparison, so only tasks count as independent.

    Two weak priors keep it finite: half a win and half a loss at difference 0 (for players that
    always win), and a normal prior with standard deviation 5 on the coefficient (for judges that
    look at nothing but length). The interval is that of the intercept, from the inverse of the
    Hessian, mapped to a rate. If all differences are equal, length explains nothing, and the rate
    is the win rate with the first prior.

    Args:
        won: 1 for a win, 0 for a loss, 1/2 for a tie, or anything between; (tasks, draws). NaN
            values are left out.
        longer: length of the player's answer minus that of its opponent's, (tasks, draws).
    """
    known = ~won.isnan()
    if not known.any():
        return Interval(torch.nan, torch.nan, torch.nan)
    weights = (known / known.sum(dim=1, keepdim=True).clamp(min=1))[known].double()
    lengths, y = longer[known].double(), won[known].double()
    spread = lengths.std(correction=0)
    x = torch.tanh(lengths / spread) if spread > 0 else torch.zeros_like(lengths)
    x = torch.cat([x, torch.zeros(2, dtype=x.dtype)])
    y = torch.cat([y, torch.tensor([1.0, 0.0], dtype=y.dtype)])
    weights = torch.cat([weights, torch.full((2,), 0.5, dtype=y.dtype)])
    intercept, error = _intercept(torch.stack([torch.ones_like(x), x], dim=1), y, weights)
    ends = torch.tensor([intercept, intercept - _Z * error, intercept + _Z * error]).sigmoid()
    return Interval(*ends.tolist())


def _intercept(features: Tensor, y: Tensor, weights: Tensor) -> tuple[float, float]:
    """The intercept of a logistic regression and its standard error, by Newton's method.

    Args:
        features: (rows, 2), a column of ones and the one with the prior.
        y: (rows,) in [0, 1].
        weights: (rows,).
    """
    prior = torch.diag(torch.tensor([0.0, _PRIOR**-2], dtype=features.dtype))

    def posterior(beta: Tensor) -> Tensor:
        z = features @ beta
        return (weights * (y * z - softplus(z))).sum() - beta @ prior @ beta / 2

    def hessian(beta: Tensor) -> Tensor:
        p = (features @ beta).sigmoid()
        return features.T @ ((weights * p * (1 - p)).unsqueeze(1) * features) + prior

    beta = torch.zeros(2, dtype=features.dtype)
    for _ in range(_NEWTON_STEPS):
        gradient = features.T @ (weights * (y - (features @ beta).sigmoid())) - prior @ beta
        step = torch.linalg.solve(hessian(beta), gradient)
        while posterior(beta + step) < posterior(beta) and float(step.abs().max()) > 1e-12:
            step = step / 2  # a full step may overshoot
        beta = beta + step
        if float(step.abs().max()) < 1e-10:
            break
    return float(beta[0]), float(torch.linalg.inv(hessian(beta))[0, 0].sqrt())
