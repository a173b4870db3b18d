"""LoRA layers made faster: merged into copies of the weights to sample, fused to train."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Smallest share of a layer's work that its adapter must add to be worth a merged copy. Such layers
#: are small, and so is the copy; in large layers the adapter adds almost nothing.
_WORTH_MERGING = 0.05


@contextmanager
def merged_lora(model: nn.Module) -> Iterator[None]:
    """For sampling, let adapted layers compute with one merged matrix instead of three.

    The weights do not change. It works on float32 layers only, where results change by rounding: in
    16 bits small updates would be lost, and there is no memory for copies of 4-bit weights.

    Args:
        model: with or without peft adapters, in eval mode; read without gradients.
    """

    def merged(layer: Any) -> Callable[..., Tensor] | None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        added = layer.lora_A[name].weight.numel() + layer.lora_B[name].weight.numel()
        if base.weight.dtype != torch.float32 or added < _WORTH_MERGING * base.weight.numel():
            return None
        with torch.no_grad():
            weight = base.weight + layer.get_delta_weight(name)
        return partial(nn.functional.linear, weight=weight, bias=base.bias)

    with _replaced_forwards(model, merged):
        yield


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """For training, let adapted layers add their adapter in place, forward and backward.

    peft scales, adds and differentiates in separate operations; on a CPU these passes over memory
    take as long as the small products. Layers with mixed types, autocast, dropout or a trained
    base are left unchanged. Keep the context open until the backward pass is done, because that may
    run layers again.

    Args:
        model: with or without peft adapters.
    """

    def fused(layer: Any) -> Callable[..., Tensor] | None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        a, b = layer.lora_A[name], layer.lora_B[name]
        one_type = base.weight.dtype == a.weight.dtype == b.weight.dtype
        cast = torch.is_autocast_enabled(base.weight.device.type)
        drops = layer.training and not isinstance(layer.lora_dropout[name], nn.Identity)
        trained = any(parameter.requires_grad for parameter in base.parameters())
        if not one_type or cast or drops or trained:
            return None
        rest = (base.weight, base.bias, a.weight, b.weight, layer.scaling[name])
        return partial(_fused, rest=rest)

    with _replaced_forwards(model, fused):
        yield


@contextmanager
def _replaced_forwards(
    model: nn.Module, choose: Callable[[Any], Callable[..., Tensor] | None]
) -> Iterator[None]:
    """Replace the forward of plain LoRA layers by what ``choose`` returns, then restore it."""
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
    """Whether a peft layer computes ``W x + scaling * B A x`` now, with one adapter."""
    active = layer.active_adapters
    if layer.disable_adapters or layer.merged or "forward" in vars(layer):
        return False
    if type(layer.get_base_layer()) is not nn.Linear or layer.fan_in_fan_out:
        return False
    if len(active) != 1 or active[0] not in layer.lora_A:
        return False
    varied = active[0] in getattr(layer, "lora_variant", {})  # DoRA and similar
    return not varied and layer.lora_B[active[0]].bias is None


def _fused(x: Tensor, rest: tuple[Any, ...]) -> Tensor:
    """:class:`_Fused` for (..., in) -> (..., out).

    The views are made outside of the function: models may change the result in place (Gemma 3n),
    and autograd forbids that for a view that a custom function returns.
    """
    apply: Callable[..., Tensor] = _Fused.apply
    return apply(x.reshape(-1, x.shape[-1]), *rest).view(*x.shape[:-1], -1)


class _Fused(torch.autograd.Function):
    """``W x + bias + scaling * B A x`` with a frozen W, in few operations."""

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
        """(n, in) -> (n, out)."""
        inner = x @ a.T
        ctx.save_for_backward(x, inner, weight, a, b)
        ctx.scaling = scaling
        return nn.functional.linear(x, weight, bias).addmm_(inner, b.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, A and B."""
        x, inner, weight, a, b = ctx.saved_tensors
        grad_inner = (grad @ b).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_inner, a)
        grad_b = (grad.T @ inner).mul_(ctx.scaling)
        return grad_x, None, None, grad_inner.T @ x, grad_b, None
