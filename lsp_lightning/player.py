"""A player at the table: the policy behind an engine, spoken to in prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lsp_lightning.chat import ChatCodec
from lsp_lightning.generation import Engine, LocalEngine
from lsp_lightning.inference import pad_left
from lsp_lightning.policy import Policy
from lsp_lightning.types import Rollouts, Sampling


@dataclass(frozen=True)
class Player:
    """Both roles are this one: the same engine, told apart by the prompt alone.

    Args:
        engine: draws completions from the current weights.
        codec: chat turns to tokens and back.
        pad_id: fills up shorter prompts.
    """

    engine: Engine
    codec: ChatCodec
    pad_id: int

    @classmethod
    def local(cls, policy: Policy) -> Self:
        """A player that samples in this process."""
        engine = LocalEngine(policy.causal_lm, policy.codec.stop_ids, policy.pad_id)
        return cls(engine, policy.codec, policy.pad_id)

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """``draws`` completions of each prompt, query-major, on the CPU."""
        drawn = self.engine.generate(prompts, draws, sampling, seed)
        ids, mask = drawn.ids.cpu(), drawn.mask.cpu()
        prompt_ids, prompt_mask = pad_left(prompts, self.pad_id)
        texts = [self.codec.decode(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]
        return Rollouts(
            prompt_ids=prompt_ids.repeat_interleave(draws, dim=0),
            prompt_mask=prompt_mask.repeat_interleave(draws, dim=0),
            completion_ids=ids,
            completion_mask=mask,
            logprobs=drawn.logprobs.cpu(),
            truncated=drawn.truncated.cpu(),
            texts=tuple(texts),
            temperature=sampling.temperature,
        )


class FrozenPlayer:
    """The frozen reference behind an engine: what judges the game without playing it.

    Args:
        policy: whose reference it is.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._policy.device

    def encode(self, template: str, slots: Mapping[str, str], prefix: str = "") -> list[int]:
        """See :meth:`lsp_lightning.chat.ChatCodec.encode`."""
        return self._policy.codec.encode(template, slots, prefix)

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See :meth:`lsp_lightning.policy.Policy.next_token_logprobs`."""
        return self._policy.next_token_logprobs(prompts)

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """``draws`` completions of each prompt by the reference, on the CPU."""
        codec, pad_id = self._policy.codec, self._policy.pad_id
        with self._policy.reference() as model:
            engine = LocalEngine(model, codec.stop_ids, pad_id)
            return Player(engine, codec, pad_id).respond(prompts, draws, sampling, seed)
