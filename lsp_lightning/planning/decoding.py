"""Dry runs of a rollout's steps: the first one, and the last one with a full KV cache."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from lsp_lightning.planning.shapes import Shape
from lsp_lightning.planning.tracking import LiveBytes
from lsp_lightning.prefix.cache import Prefill, PrefixCache
from lsp_lightning.prefix.decoders import Decoder, RowDecoder, TreeDecoder
from lsp_lightning.prefix.hooks import tree_logits
from lsp_lightning.prefix.sharing import shares_prefixes
from lsp_lightning.prefix.tree import token_tree

_CPU = torch.device("cpu")


def first_decoder(lm: Any, shape: Shape) -> Decoder:
    """The decoder of a rollout before its prompts are computed."""
    with unset_fake_temporarily():
        if shares_prefixes(lm):
            return TreeDecoder(lm, shape.prompt_ids(), shape.draws, shape.completion, _CPU)
        return RowDecoder(lm, shape.prompt_ids(), shape.draws, 0, _CPU)


def last_step(lm: Any, tracker: LiveBytes, shape: Shape) -> tuple[Tensor, Any, int]:
    """Logits (n, V) of the last step, the KV cache, and its bytes.

    The tracker's peak leaves out the pass over the prompts.
    """
    return (_of_tree if shares_prefixes(lm) else _of_rows)(lm, tracker, shape)


def _of_tree(lm: Any, tracker: LiveBytes, shape: Shape) -> tuple[Tensor, PrefixCache, int]:
    """:func:`last_step` of a :class:`lsp_lightning.prefix.decoders.TreeDecoder`."""
    with unset_fake_temporarily():
        tree = token_tree(shape.prompt_ids())
        prefill = Prefill(tree, _CPU)
        first = torch.zeros(1, dtype=torch.long)
    tree_logits(lm, tree.tokens[None], tree.positions[None], prefill, first)
    cache = _FullCache(prefill, shape.draws, shape.completion)
    del prefill
    tracker.reset_peak()
    cache.fill(shape.completion - 2)
    tracker.flops = 0
    ids, positions = token_ids(shape.rows, 1), cache.step().unsqueeze(1)
    return tree_logits(lm, ids, positions, cache, first)[:, 0], cache, cache.size


def _of_rows(lm: Any, tracker: LiveBytes, shape: Shape) -> tuple[Tensor, Any, int]:
    """:func:`last_step` with the model's cache."""
    from transformers import DynamicCache

    cache, before = DynamicCache(config=lm.config), tracker.live
    _next_logits(lm, shape.rows, shape.length - 1, shape.length - 1, cache, padded=False)
    filled = tracker.live - before
    tracker.reset_peak()
    tracker.flops = 0
    return _next_logits(lm, shape.rows, 1, shape.length, cache), cache, filled


class _FullCache(PrefixCache):
    """A cache that is filled at once instead of token by token."""

    def fill(self, tokens: int) -> None:
        """Grow as if each completion had this many tokens."""
        for layer in self._layers.values():
            while tokens > layer.keys.shape[2]:
                layer.keys, layer.values = self._grown(layer.keys), self._grown(layer.values)
        self._filled = max(0, tokens)

    @property
    def size(self) -> int:
        """Bytes of all keys and values."""
        tensors = [t for layer in self._layers.values() for t in vars(layer).values()]
        return sum(t.numel() * t.element_size() for t in tensors)


def _next_logits(
    model: Any, rows: int, new: int, length: int, cache: Any, padded: bool = True
) -> Tensor:
    """Logits (n, V) after ``new`` tokens per row, with the model's cache."""
    with unset_fake_temporarily():
        positions = torch.arange(length - new, length).expand(rows, new).clone()
        last = torch.tensor([-1]) if new > 1 else 1
    out = model(
        input_ids=token_ids(rows, new),
        attention_mask=attention_mask(rows, length, padded),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    )
    logits: Tensor = out.logits[:, -1]
    return logits


def token_ids(rows: int, length: int) -> Tensor:
    """Token ids with data: models look at them to choose masks."""
    with unset_fake_temporarily():
        return torch.zeros(rows, length, dtype=torch.long)


def attention_mask(rows: int, length: int, padded: bool = True) -> Tensor:
    """An attention mask with data; one row is shorter, so that models cannot leave it out."""
    with unset_fake_temporarily():
        mask = torch.ones(rows, length, dtype=torch.long)
        if padded and rows > 1:
            mask[0, 0] = 0
        return mask
