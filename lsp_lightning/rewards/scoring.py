"""Combine the scores of all rewards into R and Q of a round, and check what rewards return."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import Enters, Judgement, Reward, RewardError
from lsp_lightning.types import Playout, SelfPlayRound

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Scored:
    """The rewards of a playout, combined."""

    rewards_NG: Tensor
    """R: weighted sum of the task rewards."""
    quality_NG: Tensor | None
    """Q: weighted sum of the quality rewards, or None without any."""
    challenger_N: Tensor | None
    """Weighted sum of the rewards for the Challenger alone, or None without any."""
    judged_NG: Tensor
    """(N, G) bool: every reward with a nonzero weight could judge this answer."""
    unfilled: Mapping[str, Tensor]
    """R as ``task`` and Q as ``quality``, NaN kept."""
    components: Mapping[str, Tensor]
    """The scores of every reward by its name, unweighted, NaN kept."""
    query_info: Mapping[str, tuple[object, ...]]
    """Findings of the rewards about the queries, N values by ``REWARD_NAME/ENTRY``."""
    malformed_N: Tensor
    """(N,) bool: a reward with a nonzero weight found that the query has no right answer."""
    metrics: Mapping[str, Tensor | float]
    """Other metrics that the rewards log, by ``REWARD_NAME/METRIC``."""


def score_all(rewards: Sequence[Reward], playout: Playout) -> Scored:
    """Score a playout with every reward; sum the scores to R, Q and the Challenger's extra reward.

    Raises:
        RewardError: a reward raised, could judge nothing, or returned something unusable.
    """
    n, g = len(playout.query_texts), playout.group_size
    judged_NG = torch.ones((n, g), dtype=torch.bool)
    malformed_N = torch.zeros(n, dtype=torch.bool)
    components: dict[str, Tensor] = {}
    query_info: dict[str, tuple[object, ...]] = {}
    metrics: dict[str, Tensor | float] = {}
    sums: dict[Enters, Tensor] = {}
    raw: dict[Enters, Tensor] = {}
    for reward in rewards:
        if reward.name in components:
            raise RewardError(f"two rewards are named {reward.name!r}")
        returned = _called(reward, playout)
        judgement = _checked(reward, returned, playout)
        scores = components[reward.name] = _of_the_written(judgement.scores, playout)
        if judgement.scores.isnan().all() and reward.weight != 0 and not judgement.undecided:
            what = _without_number(returned.scores)
            raise RewardError(
                f"reward {reward.name!r} could judge nothing in this round: every score is {what}"
            )
        query_info |= {f"{reward.name}/{k}": tuple(v) for k, v in judgement.query_info.items()}
        metrics |= {f"{reward.name}/{name}": v for name, v in judgement.metrics.items()}
        if reward.weight == 0:
            continue
        found = judgement.query_info.get("malformed", (False,) * n)
        malformed_N |= torch.tensor([bool(verdict) for verdict in found])
        if scores.dim() == 2:
            judged_NG &= ~scores.isnan()
        scaled, enters = reward.scaled(scores), reward.enters
        sums[enters] = sums.get(enters, torch.zeros(())) + reward.weight * fill_unjudged(scaled)
        raw[enters] = raw.get(enters, torch.zeros(())) + reward.weight * scaled
    if not any(reward.enters == "task" for reward in rewards):
        raise RewardError("no reward is a task reward, so there is nothing to learn from")
    return Scored(
        rewards_NG=sums.get("task", torch.zeros(n, g)),
        quality_NG=sums.get("quality"),
        challenger_N=sums.get("challenger"),
        judged_NG=judged_NG,
        unfilled={kind: x for kind, x in raw.items() if kind != "challenger"},
        components=components,
        query_info=query_info,
        malformed_N=malformed_N,
        metrics=metrics,
    )


def unjudged(rewards: Sequence[Reward], playout: Playout) -> Scored:
    """The playout as if no reward had been able to judge anything."""
    n, g = len(playout.query_texts), playout.group_size
    has_quality = any(reward.enters == "quality" and reward.weight != 0 for reward in rewards)
    nothing_NG = torch.full((n, g), torch.nan)
    return Scored(
        rewards_NG=torch.zeros(n, g),
        quality_NG=torch.zeros(n, g) if has_quality else None,
        challenger_N=None,
        judged_NG=torch.zeros((n, g), dtype=torch.bool),
        unfilled={"task": nothing_NG, **({"quality": nothing_NG} if has_quality else {})},
        components={
            reward.name: nothing_NG[:, 0] if reward.enters == "challenger" else nothing_NG
            for reward in rewards
        },
        query_info={},
        malformed_N=torch.zeros(n, dtype=torch.bool),
        metrics={},
    )


def _of_the_written(scores: Tensor, playout: Playout) -> Tensor:
    """Scores for the Challenger with NaN for the queries that it did not write in this round.

    Others are unchanged.
    """
    if scores.dim() == 2 or playout.written is None:
        return scores
    return scores.masked_fill(~playout.written_N, math.nan)


def judge_playout(reward: Reward, playout: Playout) -> Judgement:
    """Call ``reward.score(playout)`` and check the result.

    Returns:
        A judgement with fp32 scores on the CPU, (N, G) or (N,); infinities have become NaN.

    Raises:
        RewardError: the reward raised or returned something unusable.
    """
    return _checked(reward, _called(reward, playout), playout)


def _called(reward: Reward, playout: Playout) -> Judgement:
    """What the reward returns; raise RewardError if it raises."""
    try:
        result = reward.score(playout)
    except Exception as error:
        raise RewardError(f"reward {reward.name!r} failed: {error}") from error
    except SystemExit as error:
        if type(error) is not SystemExit:  # Lightning's, after SIGTERM
            raise
        raise RewardError(
            f"reward {reward.name!r} failed: it ended the process (SystemExit: {error}); "
            "raise another exception there, or return None"
        ) from None
    return result if isinstance(result, Judgement) else Judgement(result)


def _checked(reward: Reward, judgement: Judgement, playout: Playout) -> Judgement:
    """The judgement with checked scores, see :func:`judge_playout`."""
    n = len(playout.query_texts)
    shape = (n,) if reward.enters == "challenger" else (n, playout.group_size)
    scores = _checked_scores(reward, judgement.scores, shape)
    for entry, values in judgement.query_info.items():
        if len(values) != n:
            raise RewardError(
                f"reward {reward.name!r} returned {len(values)} values of {entry!r} for {n} queries"
            )
    for metric, value in judgement.metrics.items():
        try:
            torch.as_tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RewardError(
                f"reward {reward.name!r} returned {str(value)[:80]!r} as metric {metric!r}, "
                "expected a number or a tensor"
            ) from error
    return replace(judgement, scores=scores)


def _without_number(scores: Tensor) -> str:
    """What scores are that are no finite numbers, in words."""
    if scores.isnan().all():
        return "NaN or None (not judged)"
    return "NaN or infinite" if scores.isnan().any() else "infinite, or too large for 32 bits"


def _checked_scores(reward: Reward, scores: object, shape: tuple[int, ...]) -> Tensor:
    """The scores in fp32 on the CPU; raise RewardError for a wrong shape or undeclared values."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise RewardError(
            f"reward {reward.name!r} returned {got}, expected a tensor of shape {shape}"
        )
    scores = scores.detach().float().cpu()
    # an overflow, say of a reward model in half precision, is not a score
    scores = torch.where(scores.isinf(), float("nan"), scores)
    if reward.binary and not ((scores == 0) | (scores == 1) | scores.isnan()).all():
        raise RewardError(
            f"reward {reward.name!r} has binary = True, but returned a score other than 0 and 1; "
            "set binary = False in the reward or its verifier"
        )
    low, high = reward.span or (-math.inf, math.inf)
    if ((scores < low - _ROUNDING) | (scores > high + _ROUNDING)).any():
        raise RewardError(
            f"reward {reward.name!r} returned a score outside its span [{low}, {high}]; "
            "correct the score or the span"
        )
    return scores


def fill_unjudged(scores: Tensor) -> Tensor:
    """Replace NaN by a value that contributes no gradient.

    In (N, G) that is the mean of the group, or 0 if no answer of the group was judged. In (N,) it
    is the mean of the round.
    """
    known = ~scores.isnan()
    counts = known.sum(dim=-1, keepdim=True).clamp(min=1)
    means = torch.where(known, scores, 0.0).sum(dim=-1, keepdim=True) / counts
    return torch.where(known, scores, means)


def unfilled(played: SelfPlayRound, enters: Literal["task", "quality"]) -> Tensor | None:
    """R or Q of a round to show and to log: NaN where a reward could not judge. (N, G).

    None if there is no such reward.
    """
    filled_NG = played.rewards_NG if enters == "task" else played.quality_NG
    if filled_NG is None or enters in played.unfilled:
        return played.unfilled.get(enters)
    return torch.where(played.judged_NG, filled_NG, torch.nan)


def check_rewards(rewards: Sequence[Reward]) -> None:
    """Raise ConfigError unless a task reward has a nonzero weight and all names differ."""
    key = "model.rewards"
    for reward in rewards:
        if not isinstance(reward, Reward):
            problem = f"{reward!r} is not a Reward"
            raise ConfigError(key, problem, "pass an instance of a Reward subclass")
        if not hasattr(reward, "enters"):
            problem = f"{type(reward).__name__}.__init__ does not call Reward.__init__"
            raise ConfigError(key, problem, "call super().__init__(weight, name) there first")
        if type(reward).score is Reward.score:
            problem = f"{type(reward).__name__} does not define score"
            raise ConfigError(key, problem, "define score(self, playout) in it")
    if not _task(rewards):
        raise ConfigError(
            key,
            "no task reward has a nonzero weight, so there is nothing to learn from",
            "add one, such as class_path: lsp_lightning.VerifiableReward",
        )
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                key, f"two rewards are named {name!r}", "set init_args.name of one of them"
            )


def require_unit_range(rewards: Sequence[Reward], key: str) -> None:
    """Raise ConfigError, naming ``key``, unless R always lies in [0, 1]."""
    if not in_unit_range(rewards):
        raise ConfigError(
            key,
            "needs task rewards in [0, 1]",
            "use Learnability or Paper, or rewards with that range",
        )


def is_binary(rewards: Sequence[Reward]) -> bool:
    """Whether R is always 0 or 1."""
    task = _task(rewards)
    return len(task) == 1 and task[0].binary and task[0].weight == 1 and task[0].scale is None


def in_unit_range(rewards: Sequence[Reward]) -> bool:
    """Whether R, the weighted sum of the task rewards, always lies in [0, 1]."""
    span = span_of_R(rewards)
    return span is not None and span[0] >= -_ROUNDING and span[1] <= 1 + _ROUNDING


def span_of_R(rewards: Sequence[Reward]) -> tuple[float, float] | None:
    """The lowest and the highest possible R; None if a task reward has no limits."""
    low = high = 0.0
    for reward in _task(rewards):
        span = (0.0, 1.0) if reward.binary else reward.span
        if span is None or reward.scale is not None:
            return None
        ends = [reward.weight * end for end in span]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _task(rewards: Sequence[Reward]) -> list[Reward]:
    """The rewards that add up to R."""
    return [reward for reward in rewards if reward.enters == "task" and reward.weight != 0]
