"""End completions at a stop text: engines stop sampling there, and players cut there."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from lsp_lightning.types import Completions

Decode = Callable[[Sequence[int]], str]


def window(stop: str) -> int:
    """How many last tokens of a row to decode to find a stop text that has just been completed.

    A token has at least one byte; two more tokens keep what decoders drop at the start of a text
    out of the stop text.
    """
    return len(stop.encode()) + 2


def cut_at_stop(drawn: Completions, stop: str, decode: Decode, pad_id: int) -> Completions:
    """Completions that end with the token that completes the stop text; others stay unchanged."""
    device, rows = drawn.mask.device, _rows(drawn)
    found = torch.tensor([stop in decode(row) for row in rows], dtype=torch.bool, device=device)
    ends = [_end(row, stop, decode) for row in rows]
    lengths = torch.tensor(ends, device=device)
    width = int(lengths.max())
    mask = torch.arange(width, device=device) < lengths.unsqueeze(1)
    return replace(
        drawn,
        ids=drawn.ids[:, :width].masked_fill(~mask, pad_id),
        mask=mask,
        logprobs=drawn.logprobs[:, :width].masked_fill(~mask, 0.0),
        truncated=drawn.truncated & ~found,
    )


def _end(row: Sequence[int], stop: str, decode: Decode) -> int:
    """The fewest tokens of a row that contain the stop text; all of them if none do."""
    lengths = range(1, len(row))
    return 1 + bisect_left(lengths, True, key=lambda length: stop in decode(row[:length]))


def _rows(drawn: Completions) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(drawn.ids, drawn.mask, strict=True)]
