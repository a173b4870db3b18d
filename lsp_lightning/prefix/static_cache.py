"""A cache whose tensors keep their addresses from step to step, as CUDA graphs need."""

import torch
from torch import Tensor

from lsp_lightning.prefix.cache import FIRST_ROOM, Layer, Prefill, PrefixCache


class StaticCache(PrefixCache):
    """A cache whose steps attend to all allocated tokens and mask those not filled yet.

    Args:
        prefill: the attention of the finished pass over the prompts.
        draws: completions of each prompt.
        limit: most tokens of a completion.
    """

    def __init__(self, prefill: Prefill, draws: int, limit: int) -> None:
        super().__init__(prefill, draws, limit)
        self._room = min(limit, FIRST_ROOM)
        # a tensor, because a replayed step reads its value again
        self._at = torch.full((1,), -1, dtype=torch.long, device=prefill.lengths_Q.device)
        self._make_room()

    @property
    def layout(self) -> tuple[int, int]:
        """(completions, tokens allocated for each). If both stay the same, so do all addresses."""
        return len(self._grouping.prompts_n), self._room

    def step(self) -> Tensor:
        """See :meth:`PrefixCache.step`."""
        positions = super().step()
        self._at += 1
        if self._filled > self._room:
            self._room = min(self._limit, 2 * self._room)
            self._make_room()
        return positions

    def forget_masks(self) -> None:
        """Make the next pass compute new masks instead of reusing those of the last pass."""
        self._masks.clear()

    def _make_room(self) -> None:
        for layer in self._layers.values():
            layer.keys, layer.values = self._widened(layer.keys), self._widened(layer.values)

    def _widened(self, old: Tensor) -> Tensor:
        n, heads, filled, dim = old.shape
        wider = old.new_zeros(n, heads, self._room, dim)  # zeros: masked values must not be NaN
        wider[:, :, :filled] = old
        return wider

    @property
    def _width(self) -> int:
        return self._room

    @property
    def _newest(self) -> Tensor:
        return self._at

    def _append(self, layer: Layer, key: Tensor, value: Tensor) -> None:
        layer.keys.index_copy_(2, self._at, key)
        layer.values.index_copy_(2, self._at, value)
