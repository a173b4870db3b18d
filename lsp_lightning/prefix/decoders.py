"""Completions grown by a token at a time, over a cache of keys and values."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lsp_lightning.prefix.cache import PrefixCache
from lsp_lightning.prefix.cuda_graph import Recorder, Step
from lsp_lightning.prefix.hooks import tree_logits
from lsp_lightning.prefix.static_cache import StaticCache
from lsp_lightning.prefix.tree import token_tree
from lsp_lightning.text.padding import pad_left


class Decoder(Protocol):
    """The model at work on the n completions of one batch."""

    def begin(self) -> Tensor:
        """Compute the prompts. -> logits of the first tokens, (n, V)."""

    def step(self, tokens: Tensor) -> Tensor:
        """Add a token (n,) to each completion. -> logits of the next ones, (n, V)."""

    def keep(self, rows: Tensor) -> None:
        """Only these completions go on."""


class TreeDecoder:
    """Prompts share what they begin with, and completions their prompt: nothing is there twice.

    Args:
        model: a causal LM that takes trees.
        prompts: token ids.
        draws: completions of each.
        limit: tokens of a completion at most.
        device: where the model is.
        record: what records a step, to be done again without Python; None does each step anew.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        draws: int,
        limit: int,
        device: torch.device,
        record: Recorder | None = None,
    ) -> None:
        self._model = model
        self._draws = draws
        self._tree = token_tree(prompts)
        cache = PrefixCache if record is None else StaticCache
        self._cache = cache(self._tree, limit, device)
        self._first = torch.zeros(1, dtype=torch.long, device=device)
        self._record = record
        self._recorded: Step | None = None
        self._layout: tuple[int, int] | None = None

    def begin(self) -> Tensor:
        """See :class:`Decoder`."""
        device, tree = self._first.device, self._tree
        ends = torch.stack([row[-1] for row in tree.rows]).to(device)
        tokens, positions = tree.tokens.to(device), tree.positions.to(device)
        logits = tree_logits(self._model, tokens[None], positions[None], self._cache, ends)[0]
        self._cache.begin(self._draws)
        return logits.repeat_interleave(self._draws, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        positions = self._cache.step().unsqueeze(1)
        ids = tokens.unsqueeze(1)
        if self._record is None:
            return self._logits(ids, positions)
        assert isinstance(self._cache, StaticCache)
        if self._recorded is None or self._layout != self._cache.layout:
            self._recorded = None  # its memory is needed for the next one
            self._recorded = self._record(self._anew, ids, positions)
            self._layout = self._cache.layout
        return self._recorded(ids, positions)

    def _anew(self, ids: Tensor, positions: Tensor) -> Tensor:
        """The step with all that it computes: recorded, nothing may be left from a pass before."""
        assert isinstance(self._cache, StaticCache)
        self._cache.forget()
        return self._logits(ids, positions)

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        return tree_logits(self._model, ids, positions, self._cache, self._first)[:, 0]

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoder`."""
        self._cache.keep(rows)


class RowDecoder:
    """Each completion in a row with its prompt, over the model's own cache: every architecture.

    Args:
        model: a causal LM.
        prompts: token ids.
        draws: completions of each; their prompt is computed once, and copied.
        pad_id: fills up shorter prompts.
        device: where the model is.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        draws: int,
        pad_id: int,
        device: torch.device,
    ) -> None:
        from transformers import DynamicCache

        self._model = model
        self._draws = draws
        self._prompts, mask = (x.to(device) for x in pad_left(prompts, pad_id))
        self._mask = mask
        self._cache: Any = DynamicCache(config=model.config)

    def begin(self) -> Tensor:
        """See :class:`Decoder`."""
        logits = self._logits(self._prompts)
        n = len(self._prompts)
        rows = torch.arange(n, device=logits.device).repeat_interleave(self._draws)
        self.keep(rows)
        return logits[rows]

    def step(self, tokens: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._logits(tokens.unsqueeze(1))

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoder`."""
        self._mask = self._mask[rows]
        self._cache.reorder_cache(rows)  # the one way to pick rows that all kinds of layers know

    def _logits(self, ids: Tensor) -> Tensor:
        """Logits (n, V) after the last of ``ids`` (n, new), whose keys join the cache."""
        positions = (self._mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        # the last place by its index, which copies it: of a slice, which is not contiguous, CPUs
        # make a copy of the head's weights for each row in bfloat16
        last = torch.tensor([-1], device=ids.device) if ids.shape[1] > 1 else 1
        out = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=last,
        )
        logits: Tensor = out.logits[:, -1]
        return logits
