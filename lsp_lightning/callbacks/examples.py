"""Shows the game while it is played: a query with its best and its worst answer."""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.callbacks.progress import say
from lsp_lightning.errors import require_at_least
from lsp_lightning.text.terminal import escaped, width_of, wrap
from lsp_lightning.types import SelfPlayRound

_LINES = 2


class Examples(Callback):
    """Prints a query of a round with its best and its worst answer, and their R and Q.

    It is the query whose answers differ most. Answers are shown without the model's thinking.

    Args:
        every: print an example in the first and in every n-th round; 0 prints none.
    """

    def __init__(self, every: int = 25) -> None:
        require_at_least(every, 0, "examples.every", "0 already prints none")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the example of the round."""
        done = batch.index + 1
        if self.every and trainer.is_global_zero and (done == 1 or done % self.every == 0):
            say("\n".join(example_lines(batch, width_of(sys.stderr) - 1)))


def example_lines(played: SelfPlayRound, width: int, count: int = 1) -> Iterator[str]:
    """Queries of a round, each with its best and its worst answer, escaped.

    Args:
        played: the scored round.
        width: columns of a line.
        count: how many queries; 1 is the one whose answers differ most, more are spread from this
            one to the one whose answers differ least. Each takes at most six lines, and one more
            for a passage that it is about.
    """
    totals_NG = played.rewards_NG.clone()
    if played.quality_NG is not None:
        totals_NG += played.quality_NG
    low_NG = torch.where(played.judged_NG, totals_NG, torch.inf)
    high_NG = torch.where(played.judged_NG, totals_NG, -torch.inf)
    spread_N = high_NG.amax(dim=1) - low_NG.amin(dim=1)
    above: str | None = None
    order = spread_N.argsort(descending=True, stable=True)
    for place in torch.linspace(0, len(order) - 1, min(count, len(order))).round().int():
        i = int(order[place])
        best = int(high_NG[i].argmax())
        low_NG[i, best] = torch.inf  # with equal totals, another answer is shown as the worst
        worst = int(low_NG[i].argmin())
        if worst == best:  # fewer than two answers were judged
            worst = (best + 1) % played.playout.group_size
        passage = played.playout.passage(i)
        if passage is not None and passage != above:
            yield from _labelled("passage", passage, width, lines=1)
        above = passage
        yield from _labelled(_kind(played, i), played.playout.query_texts[i], width)
        for name, j in (("best", best), ("worst", worst)):
            yield from _labelled(_scores(name, played, i, j), _said(played, i, j), width)


def _kind(played: SelfPlayRound, i: int) -> str:
    """The label of a query."""
    if not played.playout.valid_N[i]:
        return "query (invalid)"
    if played.playout.refused_N[i]:
        return "query (refused)"
    told = (v[i] for name, v in played.query_info.items() if name.endswith("/malformed"))
    return "query (malformed)" if any(told) else "query"


def _scores(name: str, played: SelfPlayRound, i: int, j: int) -> str:
    if not played.judged_NG[i, j]:
        return f"{name:<5}  not judged"
    quality = "" if played.quality_NG is None else f"  Q {float(played.quality_NG[i, j]):z.2f}"
    return f"{name:<5}  R {float(played.rewards_NG[i, j]):z.2f}{quality}"


def _said(played: SelfPlayRound, i: int, j: int) -> str:
    """An answer without its thinking; the whole text if it is all thinking."""
    return played.playout.spoken_groups()[i][j] or played.playout.answer_groups()[i][j]


def _labelled(label: str, text: str, width: int, lines: int = _LINES) -> Iterator[str]:
    first, *rest = wrap(f"{label}  {escaped(text.strip())}", width - 4, lines)
    yield f"  {first}"
    for line in rest:
        yield f"    {line}"
