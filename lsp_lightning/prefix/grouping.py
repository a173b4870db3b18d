"""Which completions continue the same prompt, so that attention reads its keys once for all."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grouping:
    """n completions as a table with a row for each of Q prompts and g columns.

    g is the largest number of completions that one prompt has. Prompts with fewer leave cells
    empty.
    """

    prompts_n: Tensor
    """(n,) int64, the prompt of each completion; completions of one prompt are consecutive."""
    columns: int
    """g."""
    cells_n: Tensor | None
    """(n,) int64, the cell of each completion; None if no cell is empty and cell i is i."""
    contents: Tensor | None
    """(Q * g,) int64, the completion in each cell, 0 in empty ones; None if no cell is empty."""

    @classmethod
    def of(cls, prompts_n: Tensor, prompts: int) -> Self:
        """The grouping of completions by their prompt; ``prompts`` is the number of prompts."""
        counts = torch.bincount(prompts_n, minlength=prompts)
        columns, n = int(counts.max()), len(prompts_n)
        if n == prompts * columns:
            return cls(prompts_n, columns, None, None)
        numbers = torch.arange(n, device=prompts_n.device)
        rank = numbers - (counts.cumsum(0) - counts)[prompts_n]
        cells_n = prompts_n * columns + rank
        contents = cells_n.new_zeros(prompts * columns)
        contents[cells_n] = numbers
        return cls(prompts_n, columns, cells_n, contents)

    def to_prompts(self, x: Tensor) -> Tensor:
        """Rearrange (n, groups, r, d) by completion to (Q, groups, g * r, d) by prompt."""
        _, groups, r, d = x.shape
        table = x if self.contents is None else x.index_select(0, self.contents)
        table = table.view(-1, self.columns, groups, r, d).transpose(1, 2)
        return table.reshape(-1, groups, self.columns * r, d)

    def to_completions(self, x: Tensor) -> Tensor:
        """Rearrange (Q, groups, g * r, d) by prompt to (n, groups, r, d) by completion."""
        prompts, groups, _, d = x.shape
        table = x.view(prompts, groups, self.columns, -1, d).transpose(1, 2).flatten(0, 1)
        return table if self.cells_n is None else table.index_select(0, self.cells_n)
