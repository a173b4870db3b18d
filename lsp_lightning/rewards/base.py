"""What a reward is."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_one_of
from lsp_lightning.rewards.scale import RunningScale
from lsp_lightning.types import Playout, Reference, SelfPlayRound

Enters = Literal["task", "quality", "challenger"]
#: Where a reward that scores answers can enter.
AnswerEnters = Literal["task", "quality"]

Item = TypeVar("Item")
Judged = TypeVar("Judged")


class RewardError(RuntimeError):
    """A reward that could judge nothing of a round, or returned something unusable."""


@dataclass(frozen=True)
class Judgement:
    """What a reward makes of a playout: its scores, and what it learned on the way."""

    scores: Tensor
    """(N, G), or (N,) where it enters for the Challenger; NaN where it could not judge."""
    query_info: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """N truths, numbers or texts about the queries by name; None stands for "does not apply"."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """What else is logged, by name: a number or a tensor whose mean is taken."""
    undecided: bool = False
    """NaN is what was found (no majority, say), no failure: a round of nothing else is no error."""


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
    #: Whether the scores of two answers to one query say which is better, without the round around
    #: them.
    comparable: bool = False

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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out, before any model is loaded, whether the reward fits to the run.

        Raises:
            ConfigError: it pays the Challenger, and the queries come from a file.
        """
        source = getattr(getattr(trainer, "datamodule", None), "queries", None)
        if self.enters == "challenger" and getattr(source, "selfplay", True) is False:
            raise ConfigError(
                "model.rewards",
                f"{self.name!r} pays the Challenger, but data.queries is a file",
                "take it out, or let the Challenger write the queries",
            )

    def connect(self, reference: Reference) -> None:
        """Receive the frozen reference once it is loaded; rewards that judge with it keep it."""

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Begin slow work that needs no GPU on what will be judged soon, beside the sampling.

        Called in the sampling thread, so it must return at once. It changes no score: not all that
        is prefetched is judged, nor is all that is judged prefetched.

        Args:
            query: what is asked.
            answer: a finished answer to it, without a model's thinking; None at first, when the
                query is known and nothing is answered yet.
            solution: what is known of the query beforehand, or None.
        """

    def score(self, playout: Playout) -> Tensor:
        """Judge a whole round.

        Returns:
            (N, G) floats, or (N,) where it enters for the Challenger. NaN means "could not be
            judged", never "wrong", and so does an infinity; a cell so marked takes its group's
            mean and pushes nobody.
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


def each(
    items: Sequence[Item],
    judge: Callable[[Item], Judged],
    unknown: Callable[[Item], Judged],
    text: Callable[[Item], str],
) -> list[Judged]:
    """``judge`` of every item; where it raises, ``unknown`` and a warning that shows ``text``.

    Raises:
        RewardError: it raised for all of them.
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
        told = f"{type(cause).__name__}: {cause}, at {text(item)[:80]!r}"
        if len(failures) == len(items):
            raise RewardError(told) from cause
        warnings.warn(f"{len(failures)} of {len(items)} not judged: {told}", stacklevel=2)
    return results


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
