"""A model's state while it is only read, and its own dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
