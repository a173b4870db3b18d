"""How alike texts are: the share of characters that need no edit, and a memory of texts."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lsp_lightning.text.fencing import fold

#: Only the beginning of a text is compared, so that long texts stay cheap.
_COMPARED_CHARACTERS = 500


def compared(text: str) -> str:
    """The form in which texts are compared: without case, white space and invisible characters."""
    return " ".join(fold(text[:_COMPARED_CHARACTERS]).casefold().split())


def similarity_table(texts: Sequence[str], others: Sequence[str], least: float = 0.0) -> Tensor:
    """The similarity of each text to each other text; 0 if it is below ``least``. -> (n, m).

    1 means equal. Similarity is one minus the number of characters to insert and delete, divided
    by the number of characters of both texts.
    """
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    if not texts or not others:
        return torch.zeros(len(texts), len(others))
    table = cdist(texts, others, scorer=Indel.normalized_similarity, score_cutoff=least)
    return torch.from_numpy(table).float()


def nearest(texts: Sequence[str], others: Sequence[str], least: float = 0.0) -> Tensor:
    """Each text's similarity to the most similar other text; 0 if there is none. -> (n,)."""
    if not texts or not others:
        return torch.zeros(len(texts))
    return similarity_table(texts, others, least).amax(dim=1)


def similarity_within(texts: Sequence[str], least: float = 0.0) -> Tensor:
    """Each text's similarity to the most similar text before it; 0 for the first. -> (n,)."""
    found = [nearest([text], texts[:i], least) for i, text in enumerate(texts)]
    return torch.cat([torch.zeros(0), *found])


class TextMemory:
    """The newest texts, each once, in the form of :func:`compared`.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.texts: list[str] = []

    def similarity(self, texts: Sequence[str], least: float = 0.0) -> Tensor:
        """Each text's similarity to the most similar one in memory. -> (n,)."""
        return nearest(texts, self.texts, least)

    def add(self, texts: Iterable[str]) -> None:
        """Remember texts; one that is known already becomes the newest."""
        kept = list(dict.fromkeys(reversed([*self.texts, *texts])))[::-1]
        self.texts = kept[len(kept) - min(self._size, len(kept)) :]
