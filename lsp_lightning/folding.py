"""Adapters folded into copies of the weights, for the time of a rollout."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

#: Share of a layer's own work that its adapter must add to be worth a copy of the weight. In layers
#: so small the copy is small too; in large ones the adapter is next to nothing.
_WORTH_FOLDING = 0.05


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Layers compute with one matrix where they had three, the base's and the adapter's two.

    No weight changes: a layer calls something else for a while. In float32 only, where it changes
    results by rounding; in 16 bits small updates would be lost, and 4-bit weights have no room.

    Args:
        model: with adapters of peft, or without; in eval mode, and read without gradients.
    """
    from peft.tuners.lora import Linear

    layers = [m for m in model.modules() if isinstance(m, Linear) and _pays(m)]
    try:
        with torch.no_grad():
            for layer in layers:
                base: Any = layer.get_base_layer()
                weight = base.weight + layer.get_delta_weight(layer.active_adapters[0])
                forward = partial(nn.functional.linear, weight=weight, bias=base.bias)
                layer.forward = forward
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _pays(layer: Any) -> bool:
    """Whether a layer of peft is a plain one whose adapter costs something."""
    base, active = layer.get_base_layer(), layer.active_adapters
    if type(base) is not nn.Linear or base.weight.dtype != torch.float32:
        return False
    if layer.disable_adapters or layer.merged or len(active) != 1 or active[0] not in layer.lora_A:
        return False
    if active[0] in getattr(layer, "lora_variant", {}):  # DoRA and the like compute otherwise
        return False
    added = sum(part[active[0]].weight.numel() for part in (layer.lora_A, layer.lora_B))
    return bool(added >= _WORTH_FOLDING * base.weight.numel())
