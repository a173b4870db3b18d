"""Decoding with a KV cache: over shared prompts, or over one copy of the prompt per completion."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lsp_lightning.prefix.cache import Prefill, PrefixCache
from lsp_lightning.prefix.cuda_graph import Recorder, Step
from lsp_lightning.prefix.hooks import tree_logits
from lsp_lightning.prefix.static_cache import StaticCache
from lsp_lightning.prefix.tree import token_tree
from lsp_lightning.text.padding import pad_left


class Decoder(Protocol):
    """The state of a model while it continues one batch of n completions."""

    def begin(self) -> Tensor:
        """Compute the prompts. -> logits of the first tokens, (n, V)."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token (n,) to each completion. -> logits of the next ones, (n, V)."""

    def keep(self, rows: Tensor) -> None:
        """Continue with these completions only."""


class TreeDecoder:
    """Decoding for models that share prefixes: shared tokens are computed and stored once.

    Args:
        model: a causal LM that shares prefixes.
        prompts: token ids.
        draws: completions of each prompt.
        limit: most tokens of a completion.
        device: the device of the model.
        record: records a step, to replay it without Python; None runs every step in Python.
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
        self._limit = limit
        self._tree = token_tree(prompts)
        self._prefill: Prefill | None = Prefill(self._tree, device)
        self._cache: PrefixCache
        self._first = torch.zeros(1, dtype=torch.long, device=device)
        self._record = record
        self._recorded: Step | None = None
        self._layout: tuple[int, int] | None = None

    def begin(self) -> Tensor:
        """See :class:`Decoder`. Call it once."""
        device, tree = self._first.device, self._tree
        prefill, self._prefill = self._prefill, None  # frees its masks when this returns
        assert prefill is not None
        ends = torch.stack([row[-1] for row in tree.rows]).to(device)
        tokens, positions = tree.tokens.to(device), tree.positions.to(device)
        logits = tree_logits(self._model, tokens[None], positions[None], prefill, ends)[0]
        cache = PrefixCache if self._record is None else StaticCache
        self._cache = cache(prefill, self._draws, self._limit)
        return logits.repeat_interleave(self._draws, dim=0)

    def step(self, tokens: Tensor) -> Tensor:
        """See :class:`Decoder`."""
        positions = self._cache.step().unsqueeze(1)
        ids = tokens.unsqueeze(1)
        if self._record is None:
            return self._logits(ids, positions)
        assert isinstance(self._cache, StaticCache)
        if self._recorded is None or self._layout != self._cache.layout:
            self._recorded = None  # frees its memory for the next one
            self._recorded = self._record(self._complete_step, ids, positions)
            self._layout = self._cache.layout
        return self._recorded(ids, positions)

    def _complete_step(self, ids: Tensor, positions: Tensor) -> Tensor:
        """A step that reuses nothing from the previous pass, so that a recording is complete."""
        assert isinstance(self._cache, StaticCache)
        self._cache.forget_masks()
        return self._logits(ids, positions)

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        return tree_logits(self._model, ids, positions, self._cache, self._first)[:, 0]

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoder`."""
        self._cache.keep(rows)


class RowDecoder:
    """Decoding for every architecture: the model's cache, a copy of the prompt per completion.

    Args:
        model: a causal LM.
        prompts: token ids.
        draws: completions of each prompt; the prompt is computed once and then copied.
        pad_id: fills up shorter prompts.
        device: the device of the model.
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
        self._cache.reorder_cache(rows)  # the only selection of rows that all cache layers support

    def _logits(self, ids: Tensor) -> Tensor:
        """Logits (n, V) after the last of ``ids`` (n, new), whose keys join the cache."""
        positions = (self._mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        # an index copies the last hidden state; a slice is not contiguous, and with it a CPU in
        # bfloat16 copies the head's weights for each row
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
