"""Reading a model without training it: its state, and rows laid out for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def inference_state(model: torch.nn.Module, device_type: str) -> Iterator[None]:
    """Eval mode, no gradients, no autocast; what was there before comes back.

    ``no_grad`` and not ``inference_mode``: models may keep buffers they make here (long-context
    rotary tables), and training could not use them afterwards.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its own dropout off: what is trained must be the function that sampled."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(vars(holder).items()) if holder is not None else ():
                if ("drop" in name or "jitter" in name) and isinstance(value, float):
                    setattr(holder, name, 0.0)
    return model


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows of like length in batches of at most ``budget`` padded tokens.

    Longest first, so that what does not fit into memory is found out at once. A row longer than the
    budget is a batch of its own.
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
    """Prompts as ids (n, P) int64 and mask (n, P) bool, padded on the left."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros((len(prompts), longest), dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = True
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows as ids (n, S) int64 and mask (n, S) bool, padded on the right."""
    ids, mask = pad_left([row[::-1] for row in rows], pad_id)
    return ids.flip(1), mask.flip(1)
