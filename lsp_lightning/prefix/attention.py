"""Attention over a tree of tokens, computed in padded batches of its pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from lsp_lightning.prefix.hooks import Inner
from lsp_lightning.prefix.tree import Piece, TokenTree

#: Smallest share of a block's work that is not padding; a piece that would push it lower starts a
#: new block.
_LEAST_FILLED = 0.9


@dataclass(frozen=True)
class _Block:
    """c pieces of similar size as one padded batch: t tokens each after a context of a tokens."""

    queries_ct: Tensor
    """Indices of the pieces' tokens."""
    keys_cl: Tensor
    """Indices of the tokens they may see, l = a + t: the contexts, then the pieces."""
    contexts_c: Tensor
    """Tokens of each context."""

    @property
    def width(self) -> int:
        """a: tokens of the longest context."""
        return self.keys_cl.shape[1] - self.queries_ct.shape[1]

    def to(self, device: torch.device | str) -> Self:
        return type(self)(
            self.queries_ct.to(device), self.keys_cl.to(device), self.contexts_c.to(device)
        )

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The mask to add to scores, (c or 1, 1, t, l); None if plain causal attention will do."""
        (_, t), width = self.queries_ct.shape, self.width
        if width == 0 and (window is None or t <= window):
            return None
        device = self.queries_ct.device
        new_t, context_a = torch.arange(t, device=device), torch.arange(width, device=device)
        contexts_c1 = self.contexts_c.unsqueeze(1)
        if bool((contexts_c1 == contexts_c1[0]).all()):
            contexts_c1 = contexts_c1[:1]  # one mask for all pieces
        positions_ct = contexts_c1 + new_t
        seen_ca = context_a < contexts_c1
        causal_tt = new_t.unsqueeze(0) <= new_t.unsqueeze(1)
        seen_ctl = torch.cat(
            [
                seen_ca.unsqueeze(1).expand(-1, t, -1),
                causal_tt.expand(len(contexts_c1), -1, -1),
            ],
            dim=2,
        )
        if window is not None:
            keys_cl = torch.cat([context_a.expand(len(contexts_c1), -1), positions_ct], dim=1)
            seen_ctl &= positions_ct.unsqueeze(2) - keys_cl.unsqueeze(1) < window
        # the lowest number, not -inf: a padded row that sees nothing must not become NaN
        lowest = torch.finfo(dtype).min
        return (
            torch.zeros(seen_ctl.shape, dtype=dtype, device=device)
            .masked_fill_(~seen_ctl, lowest)
            .unsqueeze(1)
        )


@dataclass(frozen=True)
class TreeAttention:
    """Each token of a tree attends to its context and, causally, to its piece.

    Differentiable, with activation checkpointing too.
    """

    blocks: tuple[_Block, ...]
    order: Tensor
    """(M,), the position of each token's output among the outputs of all blocks."""
    _masks: dict[Any, Tensor | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tree: TokenTree) -> Self:
        """The attention over this tree."""
        parts = _batches(tree.pieces, len(tree.tokens))
        blocks = [_block(pieces) for pieces in parts]
        order = torch.empty(len(tree.tokens), dtype=torch.long)
        start = 0
        for pieces, block in zip(parts, blocks, strict=True):
            t = block.queries_ct.shape[1]
            for c, piece in enumerate(pieces):
                order[piece.indices] = start + c * t + torch.arange(len(piece.indices))
            start += block.queries_ct.numel()
        return cls(tuple(blocks), order)

    def to(self, device: torch.device | str) -> Self:
        """The same attention on another device."""
        return type(self)(tuple(b.to(device) for b in self.blocks), self.order.to(device))

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """See :class:`lsp_lightning.prefix.hooks.Attention`; B is 1, S is M."""
        window = settings.get("sliding_window")
        q, k, v = (x[0].transpose(0, 1).flatten(1) for x in (query, key, value))
        outputs = []
        for i, block in enumerate(self.blocks):
            out, _ = inner(
                module,
                _gathered(q, block.queries_ct, query),
                _gathered(k, block.keys_cl, key),
                _gathered(v, block.keys_cl, value),
                self._mask(i, window, query.dtype),
                **settings,
            )
            outputs.append(out.flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.order).unsqueeze(0)

    def _mask(self, block: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The mask of a block, made once for all layers."""
        key = (block, window, dtype)
        if key not in self._masks:
            self._masks[key] = self.blocks[block].mask(window, dtype)
        return self._masks[key]


def _gathered(x: Tensor, indices: Tensor, like: Tensor) -> Tensor:
    """Rows of (M, heads * dim) at (c, l) indices, in attention's layout (c, heads, l, dim)."""
    picked = x.index_select(0, indices.flatten())
    return picked.view(*indices.shape, like.shape[1], like.shape[3]).transpose(1, 2)


def _batches(pieces: Sequence[Piece], most_keys: int) -> list[list[Piece]]:
    """Group pieces of similar work into blocks, so that little of a block is padding.

    A block holds copies of the keys that its pieces see, at most ``most_keys`` unless a single
    piece sees more. With a limit of M, it holds no more keys than plain rows of M tokens do.
    """

    def work(piece: Piece) -> int:
        return len(piece.indices) * (len(piece.context) + len(piece.indices))

    blocks: list[list[Piece]] = []
    done = tokens = context = 0
    for piece in sorted(pieces, key=lambda p: (len(p.context) > 0, work(p)), reverse=True):
        if blocks:
            t, a = max(tokens, len(piece.indices)), max(context, len(piece.context))
            count = len(blocks[-1]) + 1
            filled = done + work(piece) >= _LEAST_FILLED * count * t * (a + t)
            alike = (context > 0) == (len(piece.context) > 0)
            if filled and alike and count * (a + t) <= most_keys:
                blocks[-1].append(piece)
                done, tokens, context = done + work(piece), t, a
                continue
        blocks.append([piece])
        done, tokens, context = work(piece), len(piece.indices), len(piece.context)
    return blocks


def _block(pieces: Sequence[Piece]) -> _Block:
    t = max(len(piece.indices) for piece in pieces)
    a = max(len(piece.context) for piece in pieces)
    queries = torch.zeros(len(pieces), t, dtype=torch.long)
    keys = torch.zeros(len(pieces), a + t, dtype=torch.long)
    for c, piece in enumerate(pieces):
        queries[c, : len(piece.indices)] = piece.indices
        keys[c, : len(piece.context)] = piece.context
        keys[c, a : a + len(piece.indices)] = piece.indices
    return _Block(queries, keys, torch.tensor([len(piece.context) for piece in pieces]))
