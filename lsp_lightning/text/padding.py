"""Group rows of token ids into batches, and pad them to rectangular tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows of similar length into batches of at most ``budget`` tokens, padding included.

    -> row indices of each batch, longest rows first, so that running out of memory shows at once. A
    row longer than the budget gets a separate batch.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad prompts on the left. -> ids (n, P) int64 and mask (n, P) bool, false on padding."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros((len(prompts), longest), dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = True
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad rows on the right. -> ids (n, S) int64 and mask (n, S) bool, false on padding."""
    ids, mask = pad_left([row[::-1] for row in rows], pad_id)
    return ids.flip(1), mask.flip(1)
