"""Completions: how they are sampled, and what an engine and a player return."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from lsp_lightning.text.thinking import Reading


class Role(StrEnum):
    """The two players; they share one set of weights."""

    CHALLENGER = "challenger"
    SOLVER = "solver"


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Args:
        temperature: softmax temperature; 0 is greedy (for evaluation only).
        max_new_tokens: a completion is cut off after this many tokens.
        top_p: nucleus sampling; a value below 1 biases training, because log-probs are those of
            the full distribution.
        top_k: keep the k most likely tokens; 0 keeps all.
        stop: a completion ends where this text begins, and does not include it; null is no text. It
            counts only where something has been said, outside of thoughts.
    """

    temperature: float = 1.0
    max_new_tokens: int = 512
    top_p: float = 1.0
    top_k: int = 0
    stop: str | None = None

    @property
    def truncates(self) -> bool:
        """Whether top-p or top-k change the distribution."""
        return self.top_p < 1 or self.top_k > 0


@dataclass(frozen=True)
class Completions:
    """What an engine returns: tokens only. The completions of one prompt are consecutive rows."""

    ids: Tensor
    """(n, T) int64, padded on the right."""
    mask: Tensor
    """(n, T) bool, true up to and including the token that ends the completion."""
    logprobs: Tensor
    """(n, T) fp32, of the sampled tokens at the sampling temperature; 0 on padding."""
    truncated: Tensor
    """(n,) bool, true if the length limit came before an end."""


@dataclass(frozen=True)
class Rollouts:
    """Completions with their prompts and their decoded text."""

    prompt_ids: Tensor
    """(n, P) int64, padded on the left."""
    prompt_mask: Tensor
    """(n, P) bool, false on padding."""
    completion_ids: Tensor
    """(n, T) int64, padded on the right."""
    completion_mask: Tensor
    """(n, T) bool, true up to and including the token that ends the completion."""
    logprobs: Tensor
    """(n, T) fp32, of the sampled tokens; 0 on padding."""
    truncated: Tensor
    """(n,) bool, true if the length limit came before an end."""
    texts: tuple[str, ...]
    """n texts without the stop token or stop text, with the model's thinking."""
    temperature: float
    """The sampling temperature; all log-probs are taken at it."""
    readings: tuple[Reading, ...] = ()
    """n ways to tell thinking from text, which depend on the chat template; empty if unknown."""

    def __len__(self) -> int:
        return self.completion_ids.shape[0]

    @classmethod
    def joined(cls, parts: Sequence[Self], pad_id: int) -> Self:
        """The rows of several rollouts of one sampling temperature, one after the other."""
        if len(parts) == 1:
            return parts[0]
        prompt = max(part.prompt_ids.shape[1] for part in parts)
        width = max(part.completion_ids.shape[1] for part in parts)

        def left(x: Tensor, value: int) -> Tensor:
            return pad(x, (prompt - x.shape[1], 0), value=value)

        def right(x: Tensor, value: int) -> Tensor:
            return pad(x, (0, width - x.shape[1]), value=value)

        return cls(
            prompt_ids=torch.cat([left(part.prompt_ids, pad_id) for part in parts]),
            prompt_mask=torch.cat([left(part.prompt_mask, 0) for part in parts]),
            completion_ids=torch.cat([right(part.completion_ids, pad_id) for part in parts]),
            completion_mask=torch.cat([right(part.completion_mask, 0) for part in parts]),
            logprobs=torch.cat([right(part.logprobs, 0) for part in parts]),
            truncated=torch.cat([part.truncated for part in parts]),
            texts=tuple(text for part in parts for text in part.texts),
            temperature=parts[0].temperature,
            readings=tuple(reading for part in parts for reading, _ in part._read),
        )

    @cached_property
    def spoken(self) -> tuple[str, ...]:
        """n texts without the model's thinking; "" if the thinking never ends."""
        return tuple(reading.said(text) for reading, text in self._read)

    @cached_property
    def unclosed_thoughts(self) -> Tensor | None:
        """(n,) bool: the text contains a thought that never ends; None if no text is a thought."""
        if not any(reading.inside or reading.thinks(text) for reading, text in self._read):
            return None
        return torch.tensor([reading.is_unclosed(text) for reading, text in self._read])

    @property
    def _read(self) -> Iterator[tuple[Reading, str]]:
        readings = self.readings or (Reading(),) * len(self.texts)
        return zip(readings, self.texts, strict=True)
