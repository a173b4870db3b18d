"""The metrics of a round."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsp_lightning.functional import dead_groups, group_std, query_values
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.rewards.scoring import unfilled
from lsp_lightning.text.breadth import distinct_2, spread_out, zlib_ratio
from lsp_lightning.text.code_like import is_code_like
from lsp_lightning.training.gradient import UpdateStats
from lsp_lightning.training.query_metrics import query_metrics
from lsp_lightning.types import Rollouts, SelfPlayRound


def round_metrics(
    played: SelfPlayRound,
    advantages: Advantages,
    stats: UpdateStats,
    gradient_norm: Tensor,
    seconds: Mapping[str, float],
) -> dict[str, Tensor | float]:
    """All metrics of a round by name, as scalars or as tensors to average.

    Args:
        played: the scored round.
        advantages: the advantages of its completions.
        stats: the measurements of its gradient pass.
        gradient_norm: the norm before clipping, ().
        seconds: wall time by phase.
    """
    judged_N = played.judged_N
    values_N = query_values(played.rewards_NG[judged_N])
    metrics: dict[str, Tensor | float] = {
        "loss": stats.loss,
        "reward_std": group_std(played.rewards_NG, played.judged_NG),
        "value": values_N,
        "value_std": _spread(values_N),
        "dead_groups": dead_groups(_solver_total(played)[judged_N]).float(),
        "advantage_std/solver": _spread(advantages.solver_NG),
        "gradient_norm": gradient_norm,
        "skipped": float(not torch.isfinite(gradient_norm)),
        "tokens_per_second": _sampled_tokens(played) / sum(seconds.values()),
        **{f"seconds/{phase}": s for phase, s in seconds.items()},
    }
    known = {"reward": unfilled(played, "task"), "quality": unfilled(played, "quality")}
    metrics |= {name: known_NG for name, known_NG in known.items() if known_NG is not None}
    if played.quality_NG is not None:
        metrics["quality_std"] = group_std(played.quality_NG, played.judged_NG)
    if advantages.challenger_C is not None:
        metrics["advantage_std/challenger"] = _spread(advantages.challenger_C)
    for role, rows in stats.roles.items():
        metrics[f"kl/{role}"] = stats.log_ratio_R[rows]
        metrics[f"entropy/{role}"] = stats.entropy_R[rows]
    metrics |= stats.sampler
    metrics |= solved_metrics(played)
    metrics |= query_metrics(played)
    metrics |= _answer_metrics(played.playout.answers)
    for name, scores in played.components.items():
        if scores.dim() == 1 and played.trains_challenger:  # it pays for nothing else
            scores = scores[played.playout.written_N]
        metrics[f"reward/{name}"] = scores
        metrics[f"unjudged/{name}"] = scores.isnan().float()
    of_rewards: dict[str, Tensor | float] = dict(played.reward_metrics)
    for name, values in played.query_info.items():
        of_rewards |= info_metrics(name, values)
    return of_rewards | metrics  # a reward's metric never replaces one measured here


def info_metrics(name: str, values: Sequence[object]) -> dict[str, float]:
    """The mean of numbers and booleans, or the entropy of texts in nats; None is left out.

    A query may have several values, as a tuple or a list.
    """
    several = (value if isinstance(value, tuple | list) else (value,) for value in values)
    known = [value for parts in several for value in parts if value is not None]
    if not known:
        return {}
    if all(isinstance(value, bool | int | float) for value in known):
        return {f"queries/{name}": sum(map(float, known)) / len(known)}
    shares = torch.tensor(list(Counter(map(str, known)).values()), dtype=torch.float32) / len(known)
    return {f"queries/{name}_entropy": float(torch.special.entr(shares).sum())}


def _answer_metrics(answers: Rollouts) -> dict[str, Tensor | float]:
    metrics: dict[str, Tensor | float] = {
        "answers/tokens": answers.completion_mask.sum(1).float(),
        "answers/truncated": answers.truncated.float(),
        **answer_text_metrics(answers.spoken),
    }
    if (unclosed := answers.unclosed_thoughts) is not None:
        metrics["answers/unclosed_thoughts"] = unclosed.float()
    return metrics


def answer_text_metrics(texts: Sequence[str]) -> dict[str, float]:
    """How varied the answers are, and the share of them that is code; of at most 64 answers."""
    shown = spread_out(texts)
    return {
        "answers/distinct_2": distinct_2(shown),
        "answers/zlib": zlib_ratio(shown),
        "answers/code": sum(map(is_code_like, shown)) / len(shown) if shown else math.nan,
    }


def solved_metrics(played: SelfPlayRound) -> dict[str, Tensor | float]:
    """Solve rates of the judged queries that the Challenger wrote, or else of all judged ones.

    Nothing if R has no limits, so that no answer is known to be right or wrong.
    """
    rates_N = played.solve_rates_N
    if rates_N is None:
        return {}
    judged_N = played.judged_N
    asked_N = judged_N & played.playout.written_N
    rates = rates_N[asked_N if asked_N.any() else judged_N]
    # the mean of several answers may miss an end by rounding
    return {
        "solve_rate": rates,
        "queries/unsolved": torch.isclose(rates, torch.zeros(()), atol=1e-6).float(),
        "queries/solved": torch.isclose(rates, torch.ones(()), atol=1e-6).float(),
    }


def _solver_total(played: SelfPlayRound) -> Tensor:
    if played.quality_NG is None:
        return played.rewards_NG
    return played.rewards_NG + played.quality_NG


def _spread(values: Tensor) -> Tensor:
    """The standard deviation, dividing by the number of values; NaN if there are none."""
    return values.std(unbiased=False) if values.numel() else torch.tensor(torch.nan)


def _sampled_tokens(played: SelfPlayRound) -> int:
    """Tokens sampled in this round."""
    return sum(int(r.completion_mask.sum()) for r in played.playout.rollouts)
