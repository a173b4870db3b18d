"""Rows of tokens as a tree that holds each shared beginning once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import torch
from torch import Tensor

#: Fewest tokens that sharing a piece must save: a tree of many short pieces costs more than it
#: saves.
_WORTH_SHARING = 8


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens that one or more rows have in common, and their context."""

    indices: Tensor
    """(t,) int64, where its tokens are in the flat sequence."""
    context: Tensor
    """(a,) int64, where the tokens before it are, in order."""


@dataclass(frozen=True)
class TokenTree:
    """Rows as one flat sequence of M tokens, piece after piece."""

    tokens: Tensor
    """(M,) int64, token ids."""
    positions: Tensor
    """(M,) int64, each token's position in its row."""
    pieces: tuple[Piece, ...]
    """Every index belongs to exactly one piece."""
    rows: tuple[Tensor, ...]
    """The indices of each row's tokens, in order; rows with a common start share indices."""


def token_tree(rows: Sequence[Sequence[int]], share: bool = True) -> TokenTree:
    """Build the tree of some rows.

    Args:
        rows: token ids, at least one per row.
        share: False shares nothing: every row is one piece.
    """
    tokens: list[int] = []
    pieces: list[Piece] = []
    found: dict[int, Tensor] = {}

    def add_piece(new: Sequence[int], context: Tensor) -> Tensor:
        """Append a piece of new tokens.

        -> the indices of its row's tokens, from the row's start to the end of the piece.
        """
        if not new:
            return context
        indices = torch.arange(len(tokens), len(tokens) + len(new))
        tokens.extend(new)
        pieces.append(Piece(indices, context))
        return torch.cat([context, indices])

    # each entry: sorted rows, and how many of their common tokens are in the tree, and where
    nothing = torch.empty(0, dtype=torch.long)
    order = sorted(range(len(rows)), key=lambda i: list(rows[i]))
    todo = [(order, 0, nothing)] if share else [([i], 0, nothing) for i in range(len(rows))]
    while todo:
        members, depth, context = todo.pop()
        end = depth + common_tokens(rows[members[0]][depth:], rows[members[-1]][depth:])
        equal = end == len(rows[members[-1]])  # sorted, so all rows equal the last
        if equal or (end - depth) * (len(members) - 1) >= _WORTH_SHARING:
            context, depth = add_piece(rows[members[0]][depth:end], context), end
        for continues, group in _by_next_token(rows, members, end):
            if continues or depth < end:
                todo.append((group, depth, context))
            else:
                found.update(dict.fromkeys(group, context))
    return TokenTree(
        tokens=torch.tensor(tokens),
        positions=torch.cat([len(p.context) + torch.arange(len(p.indices)) for p in pieces]),
        pieces=tuple(pieces),
        rows=tuple(found[i] for i in range(len(rows))),
    )


def trees_within(
    rows: Sequence[Sequence[int]], most_tokens: int
) -> list[tuple[list[int], TokenTree]]:
    """Split rows into batches. -> the row numbers and the tree of each, the largest tree first.

    Args:
        rows: token ids, at least one per row.
        most_tokens: largest size of a tree; a longer row gets a separate batch.
    """
    parts: list[list[int]] = []
    used, before = 0, list[int]()
    for i in sorted(range(len(rows)), key=lambda i: list(rows[i])):  # groups common starts
        row = list(rows[i])
        shared = common_tokens(before, row)
        if parts and used + len(row) - shared <= most_tokens:
            parts[-1].append(i)
            used += len(row) - shared
        else:
            parts.append([i])
            used = len(row)
        before = row
    found = [tree for part in parts for tree in _halved(rows, part, most_tokens)]
    return sorted(found, key=lambda pair: -len(pair[1].tokens))


def _halved(
    rows: Sequence[Sequence[int]], part: list[int], most_tokens: int
) -> list[tuple[list[int], TokenTree]]:
    """The batch and its tree, split in halves until each tree fits.

    A tree can be too large because beginnings too short to share are stored more than once.
    """
    tree = token_tree([rows[i] for i in part])
    if len(tree.tokens) <= most_tokens or len(part) == 1:
        return [(part, tree)]
    half = len(part) // 2
    return [
        *_halved(rows, part[:half], most_tokens),
        *_halved(rows, part[half:], most_tokens),
    ]


def _by_next_token(
    rows: Sequence[Sequence[int]], members: Sequence[int], end: int
) -> list[tuple[bool, list[int]]]:
    """Group sorted rows by their token at ``end``. -> (whether there is such a token, rows)."""

    def following(i: int) -> list[int]:
        return list(rows[i][end : end + 1])

    return [(bool(key), list(group)) for key, group in groupby(members, following)]


def common_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens at the start that two rows have in common."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
