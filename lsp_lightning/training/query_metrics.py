"""The metrics of a round's queries: what the Challenger wrote, and what the gate let through."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from lsp_lightning.text.breadth import distinct_2, mean_similarity, share_near, zlib_ratio
from lsp_lightning.types import Playout, SelfPlayRound, Written


def query_metrics(played: SelfPlayRound) -> dict[str, Tensor | float]:
    """All metrics of a round's queries by name, but for what rewards find about them."""
    playout = played.playout
    return {**_text_metrics(playout), **_gate_metrics(played)}


def _text_metrics(playout: Playout) -> dict[str, Tensor | float]:
    """Form, length and breadth of what the Challenger wrote, also of what the gate refused.

    Replayed queries are left out. If the Challenger wrote nothing, it is about all queries.
    """
    written = playout.written
    if written is None:
        texts = playout.query_texts
        return {"queries/invalid": 0.0, **_of_texts(texts)}
    texts = playout.written_texts
    metrics = {
        "queries/invalid": 1 - written.valid_C.float(),
        "queries/tokens": written.rollouts.completion_mask.sum(1).float(),
        "queries/truncated": written.rollouts.truncated.float(),
        **_of_texts(texts),
    }
    if playout.examples:
        metrics["queries/near_example"] = share_near(texts, playout.examples)
    if (unclosed := written.rollouts.unclosed_thoughts) is not None:
        metrics["queries/unclosed_thoughts"] = unclosed.float()
    return metrics


def _of_texts(texts: Sequence[str]) -> dict[str, Tensor | float]:
    return {
        "queries/duplicate": 1 - len(set(texts)) / len(texts) if texts else math.nan,
        "queries/distinct_2": distinct_2(texts),
        "queries/similarity": mean_similarity(texts),
        "queries/zlib": zlib_ratio(texts),
        "queries/characters": torch.tensor([float(len(text)) for text in texts]),
    }


def _gate_metrics(played: SelfPlayRound) -> dict[str, Tensor | float]:
    """How many queries were drawn, which share of them passed, and why the others did not."""
    written = played.playout.written
    if written is None or played.admitted_N is None:
        return {}
    drawn, n = len(written.rollouts), len(played.playout.query_texts)
    return {
        "gate/drawn": float(drawn),
        "gate/played": float(n),
        "gate/passed": 1 - len(written.refused) / drawn,
        "gate/admitted": played.admitted_N.float(),
        **{f"gate/{reason}": count / drawn for reason, count in refusals(written).items()},
    }


def refusals(written: Written) -> dict[str, int]:
    """How many queries the gate refused for each reason, the most frequent reason first."""
    return dict(Counter(refused.reason for refused in written.refused.values()).most_common())
