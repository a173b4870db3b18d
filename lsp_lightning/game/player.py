"""Players: the policy or its frozen reference, each with an engine that samples."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lsp_lightning.generation import Engine
from lsp_lightning.generation.base import Seed
from lsp_lightning.generation.settings import local_engine
from lsp_lightning.generation.stopping import StopTexts
from lsp_lightning.models.policy import PASS_TOKENS, Policy
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.padding import pad_left
from lsp_lightning.types import Rollouts, Sampling


@dataclass(frozen=True)
class Player:
    """The policy with an engine that samples from it. It plays both roles; only prompts differ.

    Args:
        engine: samples completions from the current weights.
        codec: turns chat turns into tokens, and tokens into text.
        pad_id: the token that pads shorter prompts.
    """

    engine: Engine
    codec: ChatCodec
    pad_id: int

    @classmethod
    def local(cls, policy: Policy, budget: TokenBudget | None = None) -> Self:
        """A player that samples in this process; ``budget`` bounds the tokens sampled at once."""
        engine = local_engine(policy, policy.causal_lm, budget)
        return cls(engine, policy.codec, policy.pad_id)

    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Callable[[int, str], None] | None = None,
    ) -> Rollouts:
        """``draws`` completions of each prompt, query-major, on the CPU.

        Args:
            prompts: token ids, one sequence per prompt.
            draws: completions per prompt.
            sampling: how they are sampled.
            seed: fixes the samples; one seed of the call, or one for each prompt.
            finished: called with the row and text of each completion as soon as it ends, while
                others are still sampled; see :class:`lsp_lightning.generation.base.Engine`. The
                text is without the model's thinking, as it will be judged.
        """
        readings = [reading for p in prompts for reading in [self.codec.reading(p)] * draws]

        stops = StopTexts(self.codec)

        def text_of(tokens: list[int], row: int) -> str:
            found = stops.text(tokens, sampling.stop, readings[row]) if sampling.stop else None
            return self.codec.decode(tokens) if found is None else found

        def told(row: int, tokens: list[int]) -> None:
            assert finished is not None
            finished(row, readings[row].said(text_of(tokens, row)))

        drawn = self.engine.generate(prompts, draws, sampling, seed, told if finished else None)
        if sampling.stop:
            drawn = stops.cut(drawn, sampling.stop, readings, self.pad_id)
        ids, mask = drawn.ids.cpu(), drawn.mask.cpu()
        prompt_ids, prompt_mask = pad_left(prompts, self.pad_id)
        tokens = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        texts = [text_of(row, i) for i, row in enumerate(tokens)]
        return Rollouts(
            prompt_ids=prompt_ids.repeat_interleave(draws, dim=0),
            prompt_mask=prompt_mask.repeat_interleave(draws, dim=0),
            completion_ids=ids,
            completion_mask=mask,
            logprobs=drawn.logprobs.cpu(),
            truncated=drawn.truncated.cpu(),
            texts=tuple(texts),
            temperature=sampling.temperature,
            readings=tuple(readings),
        )


class FrozenPlayer:
    """The frozen reference. It judges self-rewards and answers held-out tasks as the opponent.

    It never plays a training round.

    Args:
        policy: the policy that holds the reference.
        rollouts: the token budget of sampling; None is no limit.
        passes: the token budget of a pass without gradients; None is PASS_TOKENS.
    """

    def __init__(
        self,
        policy: Policy,
        rollouts: TokenBudget | None = None,
        passes: TokenBudget | None = None,
    ) -> None:
        self._policy = policy
        self._rollouts = rollouts
        self._passes = passes or TokenBudget("model.micro_batch_tokens", PASS_TOKENS)

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return self._policy.device

    @property
    def pass_tokens(self) -> int:
        """Most tokens in one pass without gradients; fewer after an out-of-memory error."""
        return self._passes.tokens

    @property
    def context(self) -> int | None:
        """Longest row that it can take, in tokens; None if its config does not tell."""
        config = self._policy.causal_lm.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def encode(
        self,
        template: str,
        slots: Mapping[str, str],
        prefix: str = "",
        max_tokens: int | None = None,
    ) -> list[int]:
        """See :meth:`lsp_lightning.text.chat.ChatCodec.encode`."""
        return self._policy.codec.encode(template, slots, prefix, max_tokens)

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See :meth:`lsp_lightning.models.policy.Policy.next_token_logprobs`."""
        return self._passes.run(
            lambda tokens: self._policy.next_token_logprobs(prompts, tokens),
            longest=max(map(len, prompts)),
        )

    def parked(self) -> AbstractContextManager[None]:
        """See :meth:`lsp_lightning.models.policy.Policy.parked`."""
        return self._policy.parked()

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: Seed
    ) -> Rollouts:
        """``draws`` completions of each prompt by the reference, on the CPU."""
        policy = self._policy
        with policy.reference() as model:
            engine = local_engine(policy, model, self._rollouts)
            player = Player(engine, policy.codec, policy.pad_id)
            return player.respond(prompts, draws, sampling, seed)
