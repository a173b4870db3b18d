"""How varied texts are: word pairs, similarity, compression, copies. Imports nothing heavy.

Texts are compared in the form of :func:`lsp_lightning.text.compared.compared`.
"""

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from lsp_lightning.text.compared import beginning, compared

#: Most texts that are looked at, so that large rounds stay cheap.
MOST_TEXTS = 64
_MOST_OTHERS = 128
#: A text that is more similar than this to an example is a near copy of it.
NEAR = 0.8

Item = TypeVar("Item")


def spread_out(items: Sequence[Item], most: int = MOST_TEXTS) -> list[Item]:
    """At most so many of the items, at equal distances."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def distinct_2(texts: Sequence[str]) -> float:
    """The share of different pairs among all pairs of neighbouring words; NaN without words.

    A text of one word counts as one pair, of this word and nothing. The more texts there are, the
    more pairs repeat: compare rounds of about the same size.
    """
    pairs = [pair for text in spread_out(texts) for pair in _word_pairs(compared(text))]
    return len(set(pairs)) / len(pairs) if pairs else math.nan


def _word_pairs(text: str) -> list[tuple[str, str]]:
    words = text.split()
    if len(words) == 1:
        return [(words[0], "")]
    return list(pairwise(words))


def mean_similarity(texts: Sequence[str]) -> float:
    """The mean similarity over all pairs of texts; NaN for fewer than two texts.

    Similarity is one minus the number of characters to insert and delete, divided by the number of
    characters of both texts: 1 for equal texts.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    shown = [compared(text) for text in spread_out(texts)]
    n = len(shown)
    if n < 2:
        return math.nan
    total = float(cdist(shown, shown, scorer=Indel.normalized_similarity).sum())
    return (total - n) / (n * (n - 1))  # without each text beside itself


def zlib_ratio(texts: Sequence[str]) -> float:
    """Compressed size of the texts, one a line, divided by their size in bytes; NaN without text.

    Repetition lowers it. Random characters raise it, for a few short texts to 1 and above. More
    text compresses better: compare rounds of about the same size.
    """
    lines = "\n".join(beginning(text) for text in spread_out(texts))
    joined = lines.encode("utf-8", errors="replace")  # a player may write half a surrogate pair
    if not joined.strip():
        return math.nan
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)  # without a header: rounds can be 100 bytes
    return len(packer.compress(joined) + packer.flush()) / len(joined)


def share_near(texts: Sequence[str], others: Sequence[str]) -> float:
    """The share of texts that are near copies of one of the others; NaN without texts or others."""
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    if not texts or not others:
        return math.nan
    shown = [compared(text) for text in spread_out(texts)]
    known = spread_out(list(dict.fromkeys(map(compared, others))), _MOST_OTHERS)
    # below the cutoff, most pairs are told apart by their lengths alone
    table = cdist(shown, known, scorer=Indel.normalized_similarity, score_cutoff=NEAR)
    return float((table.max(axis=1) > NEAR).mean())
