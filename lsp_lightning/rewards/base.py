"""What a reward is, and how several become the R and Q of a round."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_one_of
from lsp_lightning.functional import UNIT_RANGE_OBJECTIVES, ChallengerObjective
from lsp_lightning.rewards.scale import RunningScale
from lsp_lightning.types import Playout, Reference, SelfPlayRound

Enters = Literal["task", "quality", "challenger"]
#: Where a reward that scores answers can enter.
AnswerEnters = Literal["task", "quality"]

_ROUNDING = 1e-6


class RewardError(RuntimeError):
    """A reward that could judge nothing of a round, or returned something unusable."""


@dataclass(frozen=True)
class Judgement:
    """What a reward makes of a playout: its scores, and what it learned on the way."""

    scores: Tensor
    """(N, G), or (N,) where it enters for the Challenger; NaN where it could not judge."""
    query_facts: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """N truths, numbers or texts about the queries by name; None stands for "does not apply"."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """What else is logged, by name: a number or a tensor whose mean is taken."""


class Reward(Callback):
    """One number for every answer. Override :meth:`score`; all of Lightning's hooks are there too.

    Usable without a Trainer: ``reward.score(playout)``.

    Args:
        weight: factor in the sum of its kind; one of weight 0 is logged and pushes nobody.
        name: what it is called in metrics and transcripts; unique in a run.
        enters: "task" is R (the Solver gains it, the Challenger loses it), "quality" is Q (both
            gain it), "challenger" is paid to the Challenger alone.
        standardize: bring scores to mean 0 and variance 1 over the rounds so far, so that a
            reward model's logits and a score in [0, 1] can be added.
    """

    #: The range that scores stay in, or None where they have none (a reward model's logits).
    span: tuple[float, float] | None = None
    #: Whether scores are 0 or 1 only.
    binary: bool = False

    def __init__(
        self,
        weight: float = 1.0,
        name: str | None = None,
        enters: Enters = "task",
        standardize: bool = False,
    ) -> None:
        if not math.isfinite(weight):
            raise ConfigError("model.rewards", f"a weight is {weight}", "set a finite one")
        require_one_of(enters, get_args(Enters), "model.rewards.enters")
        self.weight = weight
        self.name = name or type(self).__name__.removesuffix("Reward").lower()
        self.enters: Enters = enters
        self.scale = RunningScale() if standardize else None

    def connect(self, reference: Reference) -> None:
        """Receive the frozen reference once it is loaded; rewards that judge with it keep it."""

    def score(self, playout: Playout) -> Tensor:
        """Judge a whole round.

        Returns:
            (N, G) floats, or (N,) where it enters for the Challenger. NaN means "could not be
            judged", never "wrong"; a cell so marked takes its group's mean and pushes nobody.
        """
        raise NotImplementedError(f"{type(self).__name__} must override score(playout)")

    def judge(self, playout: Playout) -> Judgement:
        """The scores with what else is known; override it where scoring tells more than a score.

        Changes nothing: what a reward remembers of a round is for :meth:`observe`.
        """
        return Judgement(self.score(playout))

    def observe(self, played: SelfPlayRound) -> None:
        """Remember a round that has been learned from; the Trainer calls it after each one."""
        if self.scale is not None:
            self.scale = self.scale.with_scores(played.components[self.name])

    def scaled(self, scores: Tensor) -> Tensor:
        """Scores as they enter the sum: as they are, or standardised, these ones included."""
        return scores if self.scale is None else self.scale.with_scores(scores).apply(scores)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Observe the round."""
        if isinstance(batch, SelfPlayRound):
            self.observe(batch)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, plain values only."""
        return {} if self.scale is None else {"scale": vars(self.scale).copy()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        if self.scale is not None and "scale" in state_dict:
            self.scale = RunningScale(**state_dict["scale"])

    @property
    def state_key(self) -> str:
        """One for each name, so that two rewards of one class keep their states apart."""
        return f"{type(self).__qualname__}[{self.name}]"


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
    query_facts: Mapping[str, tuple[object, ...]]
    """What rewards know of each query, N values by name; a name that is taken gets the reward's
    before it."""
    metrics: Mapping[str, Tensor | float]
    """What else the rewards log, as ``reward/metric``."""


def score_all(rewards: Sequence[Reward], playout: Playout) -> Scored:
    """Every reward's scores and their weighted sums by where they enter.

    Raises:
        RewardError: a reward raised, judged nothing, or returned the wrong shape or an infinity.
    """
    n, g = len(playout.query_texts), playout.group_size
    judged_NG = torch.ones((n, g), dtype=torch.bool)
    components: dict[str, Tensor] = {}
    query_facts: dict[str, tuple[object, ...]] = {}
    metrics: dict[str, Tensor | float] = {}
    sums: dict[Enters, Tensor] = {}
    for reward in rewards:
        if reward.name in components:
            raise RewardError(f"two rewards are named {reward.name!r}")
        judgement = _checked(reward, playout, (n,) if reward.enters == "challenger" else (n, g))
        scores = components[reward.name] = judgement.scores
        for fact, values in judgement.query_facts.items():
            query_facts[f"{reward.name}/{fact}" if fact in query_facts else fact] = tuple(values)
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
        query_facts=query_facts,
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


def require_answers(enters: Enters, name: str) -> AnswerEnters:
    """Where a reward that scores answers, (N, G), enters.

    Raises:
        ConfigError: for the Challenger alone, who is paid by the query.
    """
    if enters == "challenger":
        raise ConfigError(
            "model.rewards",
            f"{name!r} scores answers and cannot enter for the challenger",
            "let it enter for task or quality",
        )
    return enters


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
    if scores.isinf().any():
        raise RewardError(f"reward {reward.name!r} returned an infinite score")
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
    for fact, values in judgement.query_facts.items():
        if len(values) != len(playout.query_texts):
            raise RewardError(
                f"reward {reward.name!r}: {len(values)} values of {fact!r} for "
                f"{len(playout.query_texts)} queries"
            )
    if scores.isnan().all() and reward.weight != 0:
        raise RewardError(f"reward {reward.name!r} could judge nothing of this round")
    return replace(judgement, scores=scores)
