"""Eval mode without gradients, and a base model without dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def inference_state(model: torch.nn.Module, device_type: str) -> Iterator[None]:
    """Eval mode without gradients and autocast; restores the modes at the end.

    ``no_grad`` instead of ``inference_mode``: models may keep buffers that they make here (rotary
    tables for long contexts), and training could not use inference tensors.
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
    """Switch the base model's dropout off: training must use the function that sampled."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(vars(holder).items()) if holder is not None else ():
                if ("drop" in name or "jitter" in name) and isinstance(value, float):
                    setattr(holder, name, 0.0)
    return model
