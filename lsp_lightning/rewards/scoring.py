"""How several rewards become the R and Q of a round, and whether they can."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional import UNIT_RANGE_OBJECTIVES, ChallengerObjective
from lsp_lightning.rewards.base import Enters, Judgement, Reward, RewardError
from lsp_lightning.types import Playout

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Scored:
    """A playout's rewards, combined."""

    rewards_NG: Tensor
    """Weighted sum of the task rewards."""
    quality_NG: Tensor | None
    """Weighted sum of the quality rewards, or None without any."""
    challenger_N: Tensor | None
    """Weighted sum of the rewards for the Challenger alone, or None without any."""
    judged_NG: Tensor
    """(N, G) bool: every reward of answers could judge this one."""
    components: Mapping[str, Tensor]
    """Every reward's own scores, unweighted, NaN kept."""
    query_info: Mapping[str, tuple[object, ...]]
    """What rewards know of each query, N values by name; those of all but the first reward that
    knows any are called ``reward/name``."""
    metrics: Mapping[str, Tensor | float]
    """What else the rewards log, as ``reward/metric``."""


def score_all(rewards: Sequence[Reward], playout: Playout) -> Scored:
    """Every reward's scores and their weighted sums by where they enter.

    Raises:
        RewardError: a reward raised, judged nothing, or returned what it must not.
    """
    n, g = len(playout.query_texts), playout.group_size
    judged_NG = torch.ones((n, g), dtype=torch.bool)
    components: dict[str, Tensor] = {}
    query_info: dict[str, tuple[object, ...]] = {}
    metrics: dict[str, Tensor | float] = {}
    knows: str | None = None
    sums: dict[Enters, Tensor] = {}
    for reward in rewards:
        if reward.name in components:
            raise RewardError(f"two rewards are named {reward.name!r}")
        judgement = _checked(reward, playout, (n,) if reward.enters == "challenger" else (n, g))
        scores = components[reward.name] = judgement.scores
        if judgement.query_info:
            knows = knows or reward.name
        for entry, values in judgement.query_info.items():
            query_info[entry if knows == reward.name else f"{reward.name}/{entry}"] = tuple(values)
        metrics |= {f"{reward.name}/{name}": v for name, v in judgement.metrics.items()}
        if reward.weight == 0:
            continue
        if scores.dim() == 2:
            judged_NG &= ~scores.isnan()
        weighted = reward.weight * fill_unjudged(reward.scaled(scores))
        sums[reward.enters] = sums.get(reward.enters, torch.zeros(())) + weighted
    if not any(reward.enters == "task" for reward in rewards):
        raise RewardError("no reward enters for the task: there is nothing to play for")
    return Scored(
        rewards_NG=sums.get("task", torch.zeros(n, g)),
        quality_NG=sums.get("quality"),
        challenger_N=sums.get("challenger"),
        judged_NG=judged_NG,
        components=components,
        query_info=query_info,
        metrics=metrics,
    )


def fill_unjudged(scores: Tensor) -> Tensor:
    """NaN replaced by what pushes nobody.

    In (N, G) a NaN takes its group's mean, and 0 where nothing of the group was judged. In (N,) it
    takes the round's mean.
    """
    known = ~scores.isnan()
    counts = known.sum(dim=-1, keepdim=True).clamp(min=1)
    means = torch.where(known, scores, 0.0).sum(dim=-1, keepdim=True) / counts
    return torch.where(known, scores, means)


def check_rewards(
    rewards: Sequence[Reward], objective: ChallengerObjective = "learnability"
) -> None:
    """Whether a list of rewards makes a game that the Challenger can play for this objective.

    Raises:
        ConfigError: no task reward, two of one name, or a range that the objective cannot take.
    """
    key = "model.rewards"
    if not _task(rewards):
        raise ConfigError(
            key,
            "no reward with a weight enters for the task, so there is nothing to play for",
            "add one, such as class_path: lsp_lightning.VerifiableReward",
        )
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                key, f"two rewards are named {name!r}", "give each its own init_args.name"
            )
    if objective in UNIT_RANGE_OBJECTIVES and not in_unit_range(rewards):
        raise ConfigError(
            "model.challenger_objective",
            f"{objective!r} needs task rewards in [0, 1]",
            "use learnability or minimax, or rewards with that range",
        )


def is_binary(rewards: Sequence[Reward]) -> bool:
    """Whether R is 0 or 1 only."""
    task = _task(rewards)
    return len(task) == 1 and task[0].binary and task[0].weight == 1 and task[0].scale is None


def in_unit_range(rewards: Sequence[Reward]) -> bool:
    """Whether R, the weighted sum of the task rewards, always lies in [0, 1]."""
    low = high = 0.0
    for reward in _task(rewards):
        if reward.span is None or reward.scale is not None:
            return False
        ends = [reward.weight * end for end in reward.span]
        low, high = low + min(ends), high + max(ends)
    return low >= -_ROUNDING and high <= 1 + _ROUNDING


def _task(rewards: Sequence[Reward]) -> list[Reward]:
    """Those that R is the sum of."""
    return [reward for reward in rewards if reward.enters == "task" and reward.weight != 0]


def _checked(reward: Reward, playout: Playout, shape: tuple[int, ...]) -> Judgement:
    try:
        judgement = reward.judge(playout)
    except Exception as error:
        raise RewardError(f"reward {reward.name!r} failed: {error}") from error
    if not isinstance(judgement, Judgement):
        got = type(judgement).__name__
        raise RewardError(f"reward {reward.name!r}: judge returned {got}, expected a Judgement")
    scores = judgement.scores
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise RewardError(
            f"reward {reward.name!r} returned {got}, expected a tensor of shape {shape}"
        )
    scores = scores.detach().float().cpu()
    # an overflow, of a reward model in half precision say, is no judgement
    scores = torch.where(scores.isinf(), float("nan"), scores)
    if reward.binary and not ((scores == 0) | (scores == 1) | scores.isnan()).all():
        raise RewardError(
            f"reward {reward.name!r} is said to be 0 or 1 and returned another score; "
            "set its binary to false"
        )
    low, high = reward.span or (-math.inf, math.inf)
    if ((scores < low - _ROUNDING) | (scores > high + _ROUNDING)).any():
        raise RewardError(
            f"reward {reward.name!r} returned a score outside of [{low}, {high}], its span"
        )
    for entry, values in judgement.query_info.items():
        if len(values) != len(playout.query_texts):
            raise RewardError(
                f"reward {reward.name!r}: {len(values)} values of {entry!r} for "
                f"{len(playout.query_texts)} queries"
            )
    if scores.isnan().all() and reward.weight != 0 and not judgement.undecided:
        raise RewardError(f"reward {reward.name!r} could judge nothing of this round")
    return replace(judgement, scores=scores)
