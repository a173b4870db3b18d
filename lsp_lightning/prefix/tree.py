"""Rows of tokens as a tree: what several rows begin with is there once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import torch
from torch import Tensor

#: Places that sharing must save at least; a tree of many short pieces costs more than it saves.
_WORTH_SHARING = 8


@dataclass(frozen=True)
class Piece:
    """Tokens that follow each other, behind all that comes before them in their rows."""

    places: Tensor
    """(t,) int64, where its tokens lie."""
    context: Tensor
    """(a,) int64, where the tokens before it lie, in order."""


@dataclass(frozen=True)
class TokenTree:
    """Rows laid out one piece after another, M places in all."""

    tokens: Tensor
    """(M,) int64."""
    positions: Tensor
    """(M,) int64, how many tokens come before each in its row."""
    pieces: tuple[Piece, ...]
    """Each place is in one of them."""
    rows: tuple[Tensor, ...]
    """Where each row's tokens lie, in order; rows that begin alike share places."""


def token_tree(rows: Sequence[Sequence[int]], share: bool = True) -> TokenTree:
    """The rows as a tree.

    Args:
        rows: token ids, at least one each.
        share: whether anything is shared; False lays out every row for itself.
    """
    tokens: list[int] = []
    pieces: list[Piece] = []
    found: dict[int, Tensor] = {}

    def grow(new: Sequence[int], context: Tensor) -> Tensor:
        if not new:
            return context
        places = torch.arange(len(tokens), len(tokens) + len(new))
        tokens.extend(new)
        pieces.append(Piece(places, context))
        return torch.cat([context, places])

    # rows that begin alike, sorted; how much of them is laid out, and where
    nothing = torch.empty(0, dtype=torch.long)
    order = sorted(range(len(rows)), key=lambda i: list(rows[i]))
    todo = [(order, 0, nothing)] if share else [([i], 0, nothing) for i in range(len(rows))]
    while todo:
        members, depth, context = todo.pop()
        end = depth + common_tokens(rows[members[0]][depth:], rows[members[-1]][depth:])
        alike = end == len(rows[members[-1]])  # sorted: the first is no longer than the last
        if alike or (end - depth) * (len(members) - 1) >= _WORTH_SHARING:
            context, depth = grow(rows[members[0]][depth:end], context), end
        for goes_on, group in _by_next(rows, members, end):
            if goes_on or depth < end:
                todo.append((group, depth, context))
            else:
                found.update(dict.fromkeys(group, context))
    return TokenTree(
        tokens=torch.tensor(tokens),
        positions=torch.cat([len(p.context) + torch.arange(len(p.places)) for p in pieces]),
        pieces=tuple(pieces),
        rows=tuple(found[i] for i in range(len(rows))),
    )


def trees_within(
    rows: Sequence[Sequence[int]], most_tokens: int
) -> list[tuple[list[int], TokenTree]]:
    """Rows in parts, by index, with the tree of each; those of most tokens first.

    Args:
        rows: token ids, at least one each.
        most_tokens: of a tree; a longer row is one of its own.
    """
    parts: list[list[int]] = []
    used, before = 0, list[int]()
    for i in sorted(range(len(rows)), key=lambda i: list(rows[i])):  # what is alike is together
        row = list(rows[i])
        alike = common_tokens(before, row)
        if parts and used + len(row) - alike <= most_tokens:
            parts[-1].append(i)
            used += len(row) - alike
        else:
            parts.append([i])
            used = len(row)
        before = row
    found = [tree for part in parts for tree in _halved(rows, part, most_tokens)]
    return sorted(found, key=lambda pair: -len(pair[1].tokens))


def _halved(
    rows: Sequence[Sequence[int]], part: list[int], most_tokens: int
) -> list[tuple[list[int], TokenTree]]:
    """A tree, or more where what is alike is too little to be shared and one would be too large."""
    tree = token_tree([rows[i] for i in part])
    if len(tree.tokens) <= most_tokens or len(part) == 1:
        return [(part, tree)]
    half = len(part) // 2
    return [
        *_halved(rows, part[:half], most_tokens),
        *_halved(rows, part[half:], most_tokens),
    ]


def _by_next(
    rows: Sequence[Sequence[int]], members: Sequence[int], end: int
) -> list[tuple[bool, list[int]]]:
    """Sorted rows in groups of one next token; whether they have one."""

    def following(i: int) -> list[int]:
        return list(rows[i][end : end + 1])

    return [(bool(key), list(group)) for key, group in groupby(members, following)]


def common_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
