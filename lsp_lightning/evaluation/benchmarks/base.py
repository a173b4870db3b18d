"""What a benchmark is, and the two models that take it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from lsp_lightning.evaluation.benchmarks.results import BenchmarkScore
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import PASS_TOKENS, Policy
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Sampling

#: Config key of the benchmarks, for messages.
KEY = "tasks"


@dataclass(frozen=True)
class Side:
    """One of the two models that are compared: the policy, or its reference."""

    player: Player | FrozenPlayer
    """Writes answers."""
    weights: Callable[[], AbstractContextManager[Any]]
    """The causal LM in inference state, for log-probs."""
    codec: ChatCodec
    """Turns chat turns into tokens."""
    pad_id: int
    """Fills up shorter rows."""
    context: int | None
    """Longest row that the model can take, in tokens; None if its config does not tell."""
    passes: TokenBudget
    """Most tokens of a pass without gradients."""

    @classmethod
    def both(cls, policy: Policy, player: Player, reference: FrozenPlayer) -> tuple[Self, Self]:
        """The reference and the policy, which are one loaded model."""

        @contextmanager
        def trained() -> Iterator[Any]:
            with inference_state(policy.model, policy.device.type):
                yield policy.causal_lm

        passes = TokenBudget("tokens of a pass over a benchmark", PASS_TOKENS)
        after = cls(player, trained, policy.codec, policy.pad_id, reference.context, passes)
        return replace(after, player=reference, weights=policy.reference), after


class Benchmark(ABC):
    """Tasks with known answers, and how answers are scored."""

    @abstractmethod
    def run(
        self, before: Side, after: Side, sampling: Sampling, draws: int, seed: int
    ) -> list[BenchmarkScore]:
        """Score both sides on the same tasks.

        Args:
            before: the reference.
            after: the policy.
            sampling: how answers are sampled, if the benchmark does not say.
            draws: answers to each task, if the benchmark does not say.
            seed: fixes the sampled answers.
        """
