"""Adapters at less cost: folded into copies of the weights to sample, in one step to train."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Share of a layer's own work that its adapter must add to be worth a copy of the weight. In layers
#: so small the copy is small too; in large ones the adapter is next to nothing.
_WORTH_FOLDING = 0.05


@contextmanager
def merged_lora(model: nn.Module) -> Iterator[None]:
    """Layers compute with one matrix where they had three, the base's and the adapter's two.

    No weight changes: a layer calls something else for a while. In float32 only, where it changes
    results by rounding; in 16 bits small updates would be lost, and 4-bit weights have no room.

    Args:
        model: with adapters of peft, or without; in eval mode, and read without gradients.
    """

    def one_matrix(layer: Any) -> Callable[..., Tensor] | None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        added = layer.lora_A[name].weight.numel() + layer.lora_B[name].weight.numel()
        if base.weight.dtype != torch.float32 or added < _WORTH_FOLDING * base.weight.numel():
            return None
        with torch.no_grad():
            weight = base.weight + layer.get_delta_weight(name)
        return partial(nn.functional.linear, weight=weight, bias=base.bias)

    with _instead(model, one_matrix):
        yield


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Layers add their adapter's part in place, forward and backward.

    peft scales, adds and differentiates each in an operation of its own: on a CPU these passes over
    memory take as long as the small products. For layers of one type, without dropout; the others
    stay as they are. It must last until the backward pass is done, which may run layers again.

    Args:
        model: with adapters of peft, or without.
    """

    def in_place(layer: Any) -> Callable[..., Tensor] | None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        a, b = layer.lora_A[name], layer.lora_B[name]
        one_type = base.weight.dtype == a.weight.dtype == b.weight.dtype
        cast = torch.is_autocast_enabled(base.weight.device.type)
        drops = layer.training and not isinstance(layer.lora_dropout[name], nn.Identity)
        trained = any(parameter.requires_grad for parameter in base.parameters())
        if not one_type or cast or drops or trained:
            return None
        apply: Callable[..., Tensor] = _Fused.apply
        rest = (base.weight, base.bias, a.weight, b.weight, layer.scaling[name])
        return lambda x: apply(x, *rest)

    with _instead(model, in_place):
        yield


@contextmanager
def _instead(
    model: nn.Module, choose: Callable[[Any], Callable[..., Tensor] | None]
) -> Iterator[None]:
    """Plain adapted layers call what is chosen for them, for a while."""
    from peft.tuners.lora import Linear

    changed = []
    try:
        for layer in model.modules():
            if isinstance(layer, Linear) and _is_plain(layer):
                forward = choose(layer)
                if forward is not None:
                    layer.forward = forward
                    changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


def _is_plain(layer: Any) -> bool:
    """Whether a layer of peft computes ``W x + scaling * B A x`` now, with one adapter."""
    active = layer.active_adapters
    if layer.disable_adapters or layer.merged or "forward" in vars(layer):
        return False
    if type(layer.get_base_layer()) is not nn.Linear or layer.fan_in_fan_out:
        return False
    if len(active) != 1 or active[0] not in layer.lora_A:
        return False
    varied = active[0] in getattr(layer, "lora_variant", {})  # DoRA and the like
    return not varied and layer.lora_B[active[0]].bias is None


class _Fused(torch.autograd.Function):
    """``W x + bias + scaling * B A x`` with a frozen W."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        """(..., out) from (..., in)."""
        flat = x.reshape(-1, x.shape[-1])
        inner = flat @ a.T
        out = nn.functional.linear(flat, weight, bias).addmm_(inner, b.T, alpha=scaling)
        ctx.save_for_backward(flat, inner, weight, a, b)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, A and B."""
        flat, inner, weight, a, b = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        grad_inner = (grad @ b).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_inner, a).view(ctx.shape)
        grad_b = (grad.T @ inner).mul_(ctx.scaling)
        return grad_x, None, None, grad_inner.T @ flat, grad_b, None
