"""The KV cache of rollouts: the keys and values of each prompt are stored once.

The prompts go through the model first, as a tree, with :class:`Prefill` as attention. Then each
step computes one token of every completion, with :class:`PrefixCache` as attention.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.grouping import Grouping
from lsp_lightning.prefix.hooks import Inner
from lsp_lightning.prefix.tree import TokenTree

#: Tokens allocated for each completion at first; doubled whenever they are filled.
FIRST_ROOM = 64


@dataclass
class Layer:
    """Keys and values of one layer: Q prompts of P tokens, n completions with room for w tokens."""

    prompt_keys: Tensor
    """(Q, key heads, P, dim), padded on the right."""
    prompt_values: Tensor
    """As ``prompt_keys``."""
    keys: Tensor
    """(n, key heads, w, dim)."""
    values: Tensor
    """As ``keys``."""


class Prefill:
    """The attention of the pass over the prompts; keeps their keys and values.

    Args:
        tree: the prompts, one row each.
        device: the device of the model.
    """

    def __init__(self, tree: TokenTree, device: torch.device) -> None:
        lengths = torch.tensor([len(row) for row in tree.rows])
        indices = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.long)
        for q, row in enumerate(tree.rows):
            indices[q, : len(row)] = row
        self.lengths_Q = lengths.to(device)
        self.prompts_Q = torch.arange(len(lengths), device=device)
        self.padded = bool((lengths != lengths[0]).any())
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._indices_QP = indices.to(device)
        self._attention = TreeAttention.of(tree).to(device)

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
        layer: Any = module.layer_idx
        self.layers[layer] = (self._by_prompt(key), self._by_prompt(value))
        return self._attention.attend(module, query, key, value, inner, **settings)

    def _by_prompt(self, x: Tensor) -> Tensor:
        """Rearrange (1, heads, M, dim) of the tree to (Q, heads, P, dim) by prompt."""
        heads, dim = x.shape[1], x.shape[3]
        picked = x[0].transpose(0, 1).index_select(0, self._indices_QP.flatten())
        return picked.view(*self._indices_QP.shape, heads, dim).transpose(1, 2).contiguous()


class PrefixCache:
    """The attention of decoding steps; grows by one token of every completion per step.

    Call :meth:`step` before each step. Completions of one prompt are consecutive.

    Args:
        prefill: the attention of the finished pass over the prompts.
        draws: completions of each prompt.
        limit: most tokens of a completion.
    """

    def __init__(self, prefill: Prefill, draws: int, limit: int) -> None:
        self._lengths_Q = prefill.lengths_Q
        self._padded = prefill.padded
        self._limit = limit
        self._filled = 0
        prompts_n = prefill.prompts_Q.repeat_interleave(draws)
        self._grouping = Grouping.of(prompts_n, len(self._lengths_Q))
        n = len(prompts_n)
        self._layers = {
            layer: Layer(
                keys,
                values,
                *(x.new_empty(n, x.shape[1], 0, x.shape[3]) for x in (keys, values)),
            )
            for layer, (keys, values) in prefill.layers.items()
        }
        self._masks: dict[int | None, Tensor | None] = {}

    def step(self) -> Tensor:
        """Start a step. -> the positions of the completions' new tokens, (n,)."""
        self._filled += 1
        self._masks.clear()
        return self._lengths_Q[self._grouping.prompts_n] + (self._filled - 1)

    def keep(self, rows: Tensor) -> None:
        """Continue with these completions only, in this order; drop prompts that have none left."""
        for layer in self._layers.values():
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        prompts, prompts_n = torch.unique(self._grouping.prompts_n[rows], return_inverse=True)
        if len(prompts) < len(self._lengths_Q):
            self._lengths_Q = self._lengths_Q[prompts]
            for layer in self._layers.values():
                layer.prompt_keys = layer.prompt_keys[prompts]
                layer.prompt_values = layer.prompt_values[prompts]
        self._grouping = Grouping.of(prompts_n, len(self._lengths_Q))

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """See :class:`lsp_lightning.prefix.hooks.Attention`; B is n, S is 1."""
        index: Any = module.layer_idx
        layer = self._layers[index]
        self._append(layer, key, value)
        # contiguous, as attention functions return it: JetMoE views it with other sizes
        return self._decode(layer, query, **settings).contiguous().unsqueeze(1)

    @property
    def _width(self) -> int:
        """w: number of tokens of each completion that a step attends to."""
        return self._filled

    @property
    def _newest(self) -> Tensor | int:
        """Position of the newest token within its completion."""
        return self._filled - 1

    def _append(self, layer: Layer, key: Tensor, value: Tensor) -> None:
        if self._filled > layer.keys.shape[2]:
            layer.keys, layer.values = self._grown(layer.keys), self._grown(layer.values)
        layer.keys[:, :, self._filled - 1] = key[:, :, 0]
        layer.values[:, :, self._filled - 1] = value[:, :, 0]

    def _grown(self, old: Tensor) -> Tensor:
        n, heads, filled, dim = old.shape
        room = min(self._limit, max(FIRST_ROOM, 2 * filled))
        grown = old.new_empty(n, heads, room, dim)
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
        """One token per completion attends to its prompt and its completion. (n, heads, dim)."""
        n, heads, _, dim = query.shape
        groups, grouping = layer.keys.shape[1], self._grouping
        q = query.view(n, groups, heads // groups, dim) * scaling
        width = self._width
        keys, values = (x[:, :, :width] for x in (layer.keys, layer.values))
        of_prompts = grouping.to_prompts(q) @ layer.prompt_keys.transpose(2, 3)
        scores = torch.cat(
            [grouping.to_completions(of_prompts), q @ keys.transpose(2, 3)],
            dim=3,
        )
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        mask = self._mask(sliding_window, scores)
        if mask is not None:
            scores = scores + mask
        if s_aux is not None:  # an attention sink: takes probability from all tokens, adds nothing
            sink = s_aux.view(1, groups, -1, 1).to(scores.dtype).expand(n, -1, -1, 1)
            scores = torch.cat([scores, sink], dim=3)
        weights = scores.softmax(dim=3, dtype=torch.float32).to(q.dtype)
        longest = layer.prompt_keys.shape[2]
        of_prompts = grouping.to_prompts(weights[..., :longest]) @ layer.prompt_values
        out = grouping.to_completions(of_prompts) + weights[..., longest : longest + width] @ values
        return out.reshape(n, heads, values.shape[3])

    def _mask(self, window: int | None, scores: Tensor) -> Tensor | None:
        """The mask to add to scores, (n, 1, 1, P + w); made once for layers with this window."""
        if window not in self._masks:
            self._masks[window] = self._new_mask(window, scores)
        return self._masks[window]

    def _new_mask(self, window: int | None, scores: Tensor) -> Tensor | None:
        """Hides padding and what is outside of the sliding window; None if nothing is hidden."""
        width = self._width
        longest = scores.shape[3] - width
        if window is not None and longest + width <= window:
            window = None
        if not self._padded and width == self._filled and window is None:
            return None
        device = scores.device
        lengths_n1 = self._lengths_Q[self._grouping.prompts_n].unsqueeze(1)
        prompt = torch.arange(longest, device=device).expand(len(lengths_n1), -1)
        new = torch.arange(width, device=device).expand(len(lengths_n1), -1)
        hidden = torch.cat([prompt >= lengths_n1, new > self._newest], dim=1)
        if window is not None:
            positions = torch.cat([prompt, lengths_n1 + new], dim=1)
            hidden |= lengths_n1 + self._newest - positions >= window
        mask = torch.zeros(hidden.shape, dtype=scores.dtype, device=device)
        lowest = torch.finfo(scores.dtype).min
        return mask.masked_fill_(hidden, lowest)[:, None, None]
