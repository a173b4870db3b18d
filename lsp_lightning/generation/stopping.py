"""End completions at a stop text: engines stop sampling there, and players cut there."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.thinking import Reading
from lsp_lightning.types import Completions


def before_stop(text: str, stop: str, reading: Reading) -> str | None:
    """What stands before the stop text; None if the text has not come to that."""
    place = text.find(stop)
    while place >= 0 and not reading.said(text[:place]).strip():
        place = text.find(stop, place + 1)
    return None if place < 0 else text[:place]


class StopTexts:
    """Finds the stop text of completions.

    A stop text counts only where something has been said: not inside of a thought, and not at the
    start of an answer, where chat templates put blank lines.

    Args:
        codec: turns tokens into text, and knows what is a thought.
    """

    def __init__(self, codec: ChatCodec) -> None:
        self._codec = codec

    def text(self, ids: Sequence[int], stop: str, reading: Reading) -> str | None:
        """The text of a completion before its stop text; None if it has not come to that."""
        return before_stop(self._codec.decode(ids), stop, reading)

    def reached(
        self, rows: Tensor, ids_tn: Tensor, prompts: Sequence[Sequence[int]], stop: str
    ) -> Tensor:
        """Whether completions have come to their stop text. (len(rows),) bool.

        Args:
            rows: the completions to look at.
            ids_tn: the tokens of all completions so far.
            prompts: the prompt of each of ``rows``.
            stop: the stop text.
        """
        # A token has at least one byte. Some decoders drop a space at the start of a text, which
        # two more tokens keep out of the stop text.
        tails = ids_tn[-len(stop.encode()) - 2 :, rows].T.tolist()
        found = [stop in self._codec.decode(tail) for tail in tails]
        for i in (i for i, near in enumerate(found) if near):
            text = self._codec.decode(ids_tn[:, rows[i]].tolist())
            before = text[: text.rfind(stop)]  # earlier ones did not count when they came
            found[i] = bool(self._codec.reading(prompts[i]).said(before).strip())
        return torch.tensor(found, device=rows.device)

    def cut(
        self, drawn: Completions, stop: str, readings: Sequence[Reading], pad_id: int
    ) -> Completions:
        """End each completion with the token that completes its stop text, on the CPU."""
        ids, mask, logprobs = drawn.ids.cpu(), drawn.mask.cpu(), drawn.logprobs.cpu()
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        found = [
            self.text(row, stop, reading) is not None
            for row, reading in zip(rows, readings, strict=True)
        ]
        ends = [
            self._end(row, stop, reading) if stops else len(row)
            for row, reading, stops in zip(rows, readings, found, strict=True)
        ]
        width = max(ends)
        mask = torch.arange(width) < torch.tensor(ends).unsqueeze(1)
        return replace(
            drawn,
            ids=ids[:, :width].masked_fill(~mask, pad_id),
            mask=mask,
            logprobs=logprobs[:, :width].masked_fill(~mask, 0.0),
            truncated=drawn.truncated.cpu() & ~torch.tensor(found),
        )

    def _end(self, row: Sequence[int], stop: str, reading: Reading) -> int:
        """The fewest tokens of a row that contain its stop text."""
        return 1 + bisect_left(
            range(1, len(row)), True, key=lambda n: self.text(row[:n], stop, reading) is not None
        )
