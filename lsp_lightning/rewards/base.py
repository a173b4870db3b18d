"""The base class of all rewards."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_one_of, warn
from lsp_lightning.rewards.scale import RunningScale
from lsp_lightning.types import Playout, Reference, SelfPlayRound

Enters = Literal["task", "quality", "challenger"]
#: The choices of a reward that scores answers.
AnswerEnters = Literal["task", "quality"]

Item = TypeVar("Item")
Judged = TypeVar("Judged")


class RewardError(RuntimeError):
    """A reward failed, could judge no answer of a round, or returned something unusable."""


@dataclass(frozen=True)
class Judgement:
    """A reward's scores with findings and metrics to log."""

    scores: Tensor
    """(N, G), or (N,) if the reward enters for the Challenger; NaN for "could not be judged"."""
    query_info: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Findings by name, each with N booleans, numbers or texts, one for each query; None where
    there is none. Logged as ``queries/REWARD_NAME/NAME``."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Numbers to log by name, or tensors to log the mean of. Logged as ``REWARD_NAME/NAME``."""
    undecided: bool = False
    """True if NaN is a finding (no majority, say), not a failure. Then all scores may be NaN."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that a reward loads beside the policy; ``lsp-lightning plan`` counts its memory."""

    source: str
    """Folder or hub id."""
    quantization: str | None
    """Format of its linear layers in memory; None keeps that of the files."""
    placement: str
    """Where its weights are between judgements, see ``PreferenceReward``."""
    max_tokens: int
    """Longest sequence that it judges, in tokens."""


class Reward(Callback):
    """Scores the answers of a round. To write one, subclass it and override :meth:`score`::

        class Short(Reward):
            def score(self, playout):
                groups = playout.spoken_groups()
                return torch.tensor([[float(len(a) < 9) for a in group] for group in groups])

    A reward is also a Lightning callback: all hooks are available. Without a Trainer, call
    ``reward.score(playout)``.

    Args:
        weight: factor in R, Q or the Challenger's extra reward; 0 only logs the scores.
        name: the name in metrics and transcripts; it must be unique in a run.
        enters: "task" adds the score to R, which the Solver maximises and the objective turns into
            the Challenger's reward. "quality" adds it to Q, which both receive. "challenger": only
            the Challenger receives it.
        standardize: shift and scale the scores to mean 0 and variance 1 over all rounds so far, so
            that scores of different ranges can be added.
    """

    #: Lowest and highest possible score, or None if there is no limit (a reward model's logits).
    span: tuple[float, float] | None = None
    #: Whether every score is 0 or 1; then ``span`` need not be set.
    binary: bool = False
    #: Whether scores of different calls can be compared: of two answers to one query, the one with
    #: the higher score is better.
    comparable: bool = False
    #: Whether an answer is scored against the other answers of its group, so that the score of a
    #: single answer means nothing.
    needs_group: bool = False
    #: Whether only answers to a query about a passage can be scored. Held-out tasks have none.
    needs_passage: bool = False

    def __init__(
        self,
        weight: float = 1.0,
        name: str | None = None,
        enters: Enters = "task",
        standardize: bool = False,
    ) -> None:
        if not math.isfinite(weight):
            raise ConfigError(
                "model.rewards", f"a reward has weight {weight}", "set a finite number"
            )
        require_one_of(enters, get_args(Enters), "model.rewards.enters")
        self.weight = weight
        self.name = name or type(self).__name__.removesuffix("Reward").lower()
        self.enters: Enters = enters
        self.scale = RunningScale() if standardize else None

    def score(self, playout: Playout) -> Tensor | Judgement:
        """Score a whole round.

        Do not change the state of the reward here; remember rounds in :meth:`observe`.

        Returns:
            A tensor, or a :class:`Judgement` if there is more to log: (N, G) floats, or (N,) if the
            reward enters for the Challenger. NaN and infinity mean "could not be judged", never
            "wrong": such an answer gets the mean of its group, so it contributes no gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} must override score(playout)")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the reward fits the run, before any model is loaded.

        Raises:
            ConfigError: it enters for the Challenger, but the queries come from a file.
        """
        source = getattr(getattr(trainer, "datamodule", None), "queries", None)
        if self.enters == "challenger" and getattr(source, "selfplay", True) is False:
            raise ConfigError(
                "model.rewards",
                f"{self.name!r} rewards the Challenger, but data.queries reads queries from a file",
                "remove the reward, or let the Challenger write the queries",
            )

    def scores_alone(self, solution: object | None) -> bool:
        """Whether a single answer to a query with this solution (None: unknown) can be scored.

        Held-out tasks for which it is False are not scored.
        """
        return not self.needs_group

    def connect(self, reference: Reference) -> None:
        """Receive the frozen reference after it is loaded; load the reward's model here, if any."""

    def loads(self) -> LoadedModel | None:
        """The model that :meth:`connect` loads beside the policy, or None."""
        return None

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Start slow work (a program, a request) while the GPU still samples.

        The sampling thread calls this, so it must return at once. It must not change any score:
        some prefetched answers are never scored, and some scored answers were not prefetched.

        Args:
            query: the query.
            answer: a finished answer without its thinking; None in the first call for a query,
                before it is answered.
            solution: the known answer or tests of the query, or None.
        """

    def observe(self, played: SelfPlayRound) -> None:
        """Update the reward's state; called once per round, after the policy's update."""
        if self.scale is not None:
            self.scale = self.scale.with_scores(played.components[self.name])

    def scaled(self, scores: Tensor) -> Tensor:
        """The scores as they enter the sum: unchanged, or standardised over all rounds so far."""
        return scores if self.scale is None else self.scale.with_scores(scores).apply(scores)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Observe the round."""
        if isinstance(batch, SelfPlayRound):
            self.observe(batch)

    def state_dict(self) -> dict[str, Any]:
        """The state to save in a checkpoint, as plain values."""
        return {} if self.scale is None else {"scale": vars(self.scale).copy()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        if self.scale is not None and "scale" in state_dict:
            self.scale = RunningScale(**state_dict["scale"])

    @property
    def state_key(self) -> str:
        """The key in a checkpoint. It contains the name: rewards of one class do not collide."""
        return f"{type(self).__qualname__}[{self.name}]"


def each(
    items: Sequence[Item],
    judge: Callable[[Item], Judged],
    unknown: Callable[[Item], Judged],
    text: Callable[[Item], str],
) -> list[Judged]:
    """Return ``judge(item)`` for every item.

    If ``judge`` raises for some items, their results are ``unknown(item)``, and one warning shows
    ``text(item)`` of the first of them.

    Raises:
        RewardError: ``judge`` raised for all items.
    """
    results: list[Judged] = []
    failures: list[tuple[Item, Exception]] = []
    for item in items:
        try:
            results.append(judge(item))
        except Exception as error:
            failures.append((item, error))
            results.append(unknown(item))
    if failures:
        item, cause = failures[0]
        kind = "" if isinstance(cause, RewardError) else f"{type(cause).__name__}: "
        message = f"{kind}{cause}, at {text(item)[:80]!r}"
        if len(failures) == len(items):
            raise RewardError(message) from cause
        warn(
            f"could not judge {len(failures)} of {len(items)}: {message}",
            kind=f"could not judge: {getattr(judge, '__qualname__', judge)} {type(cause).__name__}",
        )
    return results


def require_answers(enters: Enters, name: str) -> AnswerEnters:
    """Return ``enters`` of a reward that scores answers; raise ConfigError for "challenger"."""
    if enters == "challenger":
        raise ConfigError(
            "model.rewards",
            f"{name!r} scores answers, so it cannot enter for the challenger",
            "set enters to task or quality",
        )
    return enters
