"""Comparisons in pairs: the answers to a query form a ring, and each pair is shown both ways."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

import torch
from torch import Tensor

from lsp_lightning.rewards.base import Judgement, RewardError
from lsp_lightning.rewards.grading import judged_texts
from lsp_lightning.text.prompts import Winner
from lsp_lightning.types import Playout

_POINTS = {Winner.FIRST: 1.0, Winner.SECOND: 0.0, Winner.TIE: 0.5}


def points(verdict: Winner | None) -> float:
    """Points of the answer that is shown first: 1, 1/2 or 0; NaN without a verdict."""
    return math.nan if verdict is None else _POINTS[verdict]


@dataclass(frozen=True)
class Ring:
    """The pairs of a round. Each answer meets the next one, and the last meets the first."""

    shape: tuple[int, int]
    """N and G."""
    pairs: tuple[tuple[int, int], ...]
    """Rows of the two answers of each pair."""
    unlike: tuple[tuple[int, int], ...]
    """The pairs whose answers differ; equal answers tie without a judge."""
    texts: tuple[dict[str, str], ...]
    """Instruction, response and passage of each answer, by slot."""

    @classmethod
    def of(cls, playout: Playout, otherwise: str) -> Self:
        """The ring of each group.

        Args:
            playout: the round.
            otherwise: what to do if groups have one answer, for the error.

        Raises:
            RewardError: a group has a single answer.
        """
        n, g = len(playout.query_texts), playout.group_size
        if g < 2:
            raise RewardError(f"a single answer cannot be compared; {otherwise}")
        texts = judged_texts(playout)
        pairs = tuple((i * g + j, i * g + k) for i in range(n) for j, k in _neighbours(g))
        unlike = tuple((a, b) for a, b in pairs if _response(texts[a]) != _response(texts[b]))
        return cls((n, g), pairs, unlike, tuple(texts))

    @property
    def shown(self) -> list[dict[str, str]]:
        """The texts for a judge's slots, for each unlike pair in both orders, one after the other:
        instruction, first, second and passage."""
        return [
            {
                **{s: text for s, text in self.texts[first].items() if s != "response"},
                "first": self.texts[first]["response"],
                "second": self.texts[second]["response"],
            }
            for a, b in self.unlike
            for first, second in ((a, b), (b, a))
        ]

    def judgement(self, points_of_first: Sequence[float]) -> Judgement:
        """Each answer's mean points over its judged pairs, NaN if it has none.

        A pair whose two orders disagree is a tie; otherwise the mean of both orders counts. The
        metric ``order_disagreement`` is the share of such pairs.

        Args:
            points_of_first: for each of :attr:`shown`, the points in [0, 1] of the answer that is
                shown first; above 1/2 it wins. NaN if it was not judged.
        """
        there = torch.tensor(points_of_first[::2], dtype=torch.float64)
        back = 1 - torch.tensor(points_of_first[1::2], dtype=torch.float64)
        disagree = (there - 0.5).sign() != (back - 0.5).sign()
        won = torch.where(disagree, 0.5, (there + back) / 2)
        judged = ~(there + back).isnan()
        won = torch.where(judged, won, math.nan)
        wins = dict.fromkeys(self.pairs, 0.5) | dict(zip(self.unlike, won.tolist(), strict=True))
        metrics: dict[str, Tensor | float] = {}
        if judged.any():
            metrics["order_disagreement"] = disagree[judged].float()
        n, g = self.shape
        scores: list[list[float]] = [[] for _ in range(n * g)]
        for (first, second), share in wins.items():
            if not math.isnan(share):
                scores[first].append(share)
                scores[second].append(1 - share)
        means = [fmean(found) if found else math.nan for found in scores]
        return Judgement(torch.tensor(means).view(n, g), metrics=metrics)


def _neighbours(g: int) -> list[tuple[int, int]]:
    """Each of ``g`` answers with the next one, the last with the first; two make one pair."""
    return [(0, 1)] if g == 2 else [(j, (j + 1) % g) for j in range(g)]


def _response(texts: dict[str, str]) -> str:
    return texts["response"].strip()
