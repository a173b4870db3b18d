"""Keys and values while completions are drawn: each prompt's once, each completion's own behind."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.hooks import Inner
from lsp_lightning.prefix.tree import TokenTree

#: Places for own tokens to begin with; doubled as they fill up.
FIRST_PLACES = 64


@dataclass
class Layer:
    """What one layer keeps. Q prompts of P places, n completions of w places."""

    prompt_keys: Tensor
    """(Q, heads of keys, P, dim)."""
    prompt_values: Tensor
    keys: Tensor
    """(n, heads of keys, w, dim)."""
    values: Tensor


class PrefixCache:
    """What the completions of some prompts attend to, grown by a token at a time.

    While it is given as attention, the prompts go through the model first, as their tree; from
    :meth:`begin` on, one token of every completion at a time, see :meth:`step`.

    Args:
        tree: the prompts, a row each.
        limit: tokens of a completion at most.
        device: where the model is.
    """

    def __init__(self, tree: TokenTree, limit: int, device: torch.device) -> None:
        lengths = torch.tensor([len(row) for row in tree.rows])
        places = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.long)
        for q, row in enumerate(tree.rows):
            places[q, : len(row)] = row
        self._tree: TreeAttention | None = TreeAttention.of(tree).to(device)
        self._prompts_QP = places.to(device)
        self._lengths_Q = lengths.to(device)
        self._padded = bool((lengths != lengths[0]).any())
        self._limit = limit
        self._filled = 0
        self._layers: dict[int, Layer] = {}
        self._masks: dict[int | None, Tensor | None] = {}
        self._owners_n = torch.arange(len(lengths), device=device)  # a prompt continues itself

    def begin(self, draws: int) -> None:
        """From here on: ``draws`` completions of each prompt."""
        self._tree = None
        self._own(self._owners_n.repeat_interleave(draws))
        for layer in self._layers.values():
            layer.keys, layer.values = (
                x.new_empty(len(self._owners_n), x.shape[1], 0, x.shape[3])
                for x in (layer.keys, layer.values)
            )

    def step(self) -> Tensor:
        """Room for the next token of every completion. -> their positions, (n,)."""
        self._filled += 1
        self._masks.clear()
        return self._lengths_Q[self._owners_n] + (self._filled - 1)

    def keep(self, rows: Tensor) -> None:
        """Only these completions go on; in order."""
        for layer in self._layers.values():
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        owners_n = self._owners_n[rows]
        prompts, owners_n = torch.unique(owners_n, return_inverse=True)
        if len(prompts) < len(self._lengths_Q):
            self._lengths_Q = self._lengths_Q[prompts]
            for layer in self._layers.values():
                layer.prompt_keys = layer.prompt_keys[prompts]
                layer.prompt_values = layer.prompt_values[prompts]
        self._own(owners_n)

    def _own(self, owners_n: Tensor) -> None:
        """Which prompt each completion continues; a table (Q, g) of each prompt's completions."""
        self._owners_n = owners_n
        counts = torch.bincount(owners_n, minlength=len(self._lengths_Q))
        self._most = int(counts.max())
        rank = torch.arange(len(owners_n), device=owners_n.device)
        rank = rank - (counts.cumsum(0) - counts)[owners_n]
        self._places_n = self._table = None
        if len(owners_n) < len(counts) * self._most:  # with gaps; else it is the rows as they are
            self._places_n = owners_n * self._most + rank
            self._table = self._places_n.new_zeros(len(counts) * self._most)
            self._table[self._places_n] = torch.arange(len(owners_n), device=rank.device)

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """See :class:`lsp_lightning.prefix.hooks.Attention`."""
        index: Any = module.layer_idx
        if self._tree is not None:
            prompt_keys, prompt_values = self._of_prompts(key), self._of_prompts(value)
            # not slices of key and value, which would keep these
            keys, values = (x.new_empty(0, *x.shape[1:]) for x in (key, value))
            self._layers[index] = Layer(prompt_keys, prompt_values, keys, values)
            return self._tree.attend(module, query, key, value, inner, **settings)
        layer = self._layers[index]
        self._append(layer, key, value)
        return self._decode(layer, query, **settings).unsqueeze(1)

    def _of_prompts(self, x: Tensor) -> Tensor:
        """(1, heads, M, dim) at the prompts' places, (Q, heads, P, dim)."""
        heads, dim = x.shape[1], x.shape[3]
        picked = x[0].transpose(0, 1).index_select(0, self._prompts_QP.flatten())
        return picked.view(*self._prompts_QP.shape, heads, dim).transpose(1, 2).contiguous()

    @property
    def _width(self) -> int:
        """Own places that a step computes over."""
        return self._filled

    @property
    def _newest(self) -> Tensor | int:
        """The place of the newest token among a completion's own."""
        return self._filled - 1

    def _append(self, layer: Layer, key: Tensor, value: Tensor) -> None:
        if self._filled > layer.keys.shape[2]:
            layer.keys, layer.values = self._grown(layer.keys), self._grown(layer.values)
        layer.keys[:, :, self._filled - 1] = key[:, :, 0]
        layer.values[:, :, self._filled - 1] = value[:, :, 0]

    def _grown(self, old: Tensor) -> Tensor:
        n, heads, filled, dim = old.shape
        places = min(self._limit, max(FIRST_PLACES, 2 * filled))
        grown = old.new_empty(n, heads, places, dim)
        grown[:, :, :filled] = old
        return grown

    def _decode(
        self,
        layer: Layer,
        query: Tensor,
        scaling: float,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        """One token of each completion over its prompt and its own. -> (n, heads, dim)."""
        n, heads, _, dim = query.shape
        groups = layer.keys.shape[1]
        q = query.view(n, groups, heads // groups, dim) * scaling
        own = self._width
        keys, values = (x[:, :, :own] for x in (layer.keys, layer.values))
        behind = self._to_prompts(q) @ layer.prompt_keys.transpose(2, 3)
        scores = torch.cat([self._to_rows(behind), q @ keys.transpose(2, 3)], dim=3)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        mask = self._mask(sliding_window, scores)
        if mask is not None:
            scores = scores + mask
        if s_aux is not None:  # a score that takes attention from all places and adds nothing
            sink = s_aux.view(1, groups, -1, 1).to(scores.dtype).expand(n, -1, -1, 1)
            scores = torch.cat([scores, sink], dim=3)
        shares = scores.softmax(dim=3, dtype=torch.float32).to(q.dtype)
        width = layer.prompt_keys.shape[2]
        behind = self._to_prompts(shares[..., :width]) @ layer.prompt_values
        out = self._to_rows(behind) + shares[..., width : width + own] @ values
        return out.reshape(n, heads, dim)

    def _to_prompts(self, x: Tensor) -> Tensor:
        """(n, groups, r, d) of completions, by prompt: (Q, groups, g * r, d)."""
        _, groups, r, d = x.shape
        table = x if self._table is None else x.index_select(0, self._table)
        table = table.view(-1, self._most, groups, r, d).transpose(1, 2)
        return table.reshape(-1, groups, self._most * r, d)

    def _to_rows(self, x: Tensor) -> Tensor:
        """(Q, groups, g * r, d) by prompt, of completions: (n, groups, r, d)."""
        queries, groups, _, d = x.shape
        table = x.view(queries, groups, self._most, -1, d).transpose(1, 2).flatten(0, 1)
        return table if self._places_n is None else table.index_select(0, self._places_n)

    def _mask(self, window: int | None, scores: Tensor) -> Tensor | None:
        """What is added to scores, (n, 1, 1, P + w): padding, and what a window has left behind."""
        if window not in self._masks:
            self._masks[window] = self._new_mask(window, scores)
        return self._masks[window]

    def _new_mask(self, window: int | None, scores: Tensor) -> Tensor | None:
        own = self._width
        width = scores.shape[3] - own
        if window is not None and width + own <= window:
            window = None
        if not self._padded and own == self._filled and window is None:
            return None
        device = scores.device
        lengths_n1 = self._lengths_Q[self._owners_n].unsqueeze(1)
        prompt = torch.arange(width, device=device).expand(len(lengths_n1), -1)
        new = torch.arange(own, device=device).expand(len(lengths_n1), -1)
        hidden = torch.cat([prompt >= lengths_n1, new > self._newest], dim=1)
        if window is not None:
            places = torch.cat([prompt, lengths_n1 + new], dim=1)
            hidden |= lengths_n1 + self._newest - places >= window
        mask = torch.zeros(hidden.shape, dtype=scores.dtype, device=device)
        lowest = torch.finfo(scores.dtype).min
        return mask.masked_fill_(hidden, lowest)[:, None, None]
