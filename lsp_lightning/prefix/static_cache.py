"""A cache whose tensors stay where they are from step to step, as recorded steps need."""

import torch
from torch import Tensor

from lsp_lightning.prefix.cache import FIRST_PLACES, Layer, PrefixCache
from lsp_lightning.prefix.tree import TokenTree


class StaticCache(PrefixCache):
    """Steps compute over all places there are and hide those that are not filled yet.

    Args:
        tree: the prompts, a row each.
        limit: tokens of a completion at most.
        device: where the model is.
    """

    def __init__(self, tree: TokenTree, limit: int, device: torch.device) -> None:
        super().__init__(tree, limit, device)
        self._room = min(limit, FIRST_PLACES)
        # where a recorded step reads it
        self._at = torch.full((1,), -1, dtype=torch.long, device=device)

    @property
    def layout(self) -> tuple[int, int]:
        """Completions, and places for each: while both stay the same, so does all memory."""
        return len(self._owners_n), self._room

    def begin(self, draws: int) -> None:
        """See :meth:`PrefixCache.begin`."""
        super().begin(draws)
        self._make_room()

    def step(self) -> Tensor:
        """See :meth:`PrefixCache.step`."""
        positions = super().step()
        self._at += 1
        if self._filled > self._room:
            self._room = min(self._limit, 2 * self._room)
            self._make_room()
        return positions

    def forget(self) -> None:
        """Have the next pass make its masks itself, instead of taking those of the last one."""
        self._masks.clear()

    def _make_room(self) -> None:
        for layer in self._layers.values():
            layer.keys, layer.values = self._wider(layer.keys), self._wider(layer.values)

    def _wider(self, old: Tensor) -> Tensor:
        n, heads, filled, dim = old.shape
        wider = old.new_zeros(n, heads, self._room, dim)  # hidden, and still no NaN
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
