"""Crowding: which of the pool's texts are most alike, so that one of them makes room."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from lsp_lightning.text.compared import compared
from lsp_lightning.text.similarity import similarity_table

#: A text, and how often it stood in the list before: texts may repeat.
_Entry = tuple[str, int]


class Crowd:
    """Chooses which of similar texts leave a list.

    It remembers the similarities of the last list, so the next call compares only texts that are
    new. The memory is four bytes for each pair.
    """

    def __init__(self) -> None:
        self._rows: dict[_Entry, tuple[int, str]] = {}  # the row of each text, and what is compared
        self._alike = torch.empty(0, 0)  # -1: a text with itself, or a row without a text

    def leaving(self, texts: Sequence[str], count: int) -> list[int]:
        """The places of those that leave, one after another.

        Each time it is the earlier one of the two most similar texts that are left. If pairs are
        equally similar, it is the earliest text of them all.

        Args:
            texts: the list.
            count: how many leave, fewer than there are.
        """
        entries = _entries(texts)
        self._keep(entries)
        rows = torch.tensor([self._rows[entry][0] for entry in entries])
        places = []
        for _ in range(count):
            nearest = self._alike.amax(dim=1)[rows]
            places.append(int(nearest.argmax()))
            self._forget(entries[places[-1]])
        return places

    def _keep(self, entries: Sequence[_Entry]) -> None:
        """Know these texts and no others."""
        for entry in self._rows.keys() - set(entries):
            self._forget(entry)
        new = [entry for entry in entries if entry not in self._rows]
        old_rows = torch.tensor([row for row, _ in self._rows.values()], dtype=torch.long)
        old_forms = [form for _, form in self._rows.values()]
        new_rows = torch.tensor(self._free_rows(len(new)), dtype=torch.long)
        new_forms = [compared(text) for text, _ in new]
        across = similarity_table(new_forms, old_forms)
        self._alike[new_rows[:, None], old_rows] = across
        self._alike[old_rows[:, None], new_rows] = across.T
        within = similarity_table(new_forms, new_forms).fill_diagonal_(-1.0)
        self._alike[new_rows[:, None], new_rows] = within
        self._rows.update(zip(new, zip(new_rows.tolist(), new_forms, strict=True), strict=True))

    def _free_rows(self, count: int) -> list[int]:
        """Rows without a text; the table grows if it has too few."""
        used, known = len(self._alike), {row for row, _ in self._rows.values()}
        if (size := len(known) + count) > used:
            self._alike = _grown(self._alike, size)
        return [row for row in range(len(self._alike)) if row not in known][:count]

    def _forget(self, entry: _Entry) -> None:
        row, _ = self._rows.pop(entry)
        self._alike[row, :] = self._alike[:, row] = -1.0


def _entries(texts: Sequence[str]) -> list[_Entry]:
    seen: defaultdict[str, int] = defaultdict(int)
    entries = []
    for text in texts:
        entries.append((text, seen[text]))
        seen[text] += 1
    return entries


def _grown(table: Tensor, size: int) -> Tensor:
    """The table with rows and columns of -1 after its own."""
    grown = table.new_full((size, size), -1.0)
    grown[: len(table), : len(table)] = table
    return grown
