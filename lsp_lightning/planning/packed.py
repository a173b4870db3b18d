"""A stand-in for 4-bit linear layers: the same bytes, and the same temporaries in both passes."""

from typing import Any

import torch
from torch import Tensor, nn

#: Bytes that a quantised weight takes: 4 bits, an 8-bit scale for each block of 64, and a float32
#: scale for each 256 of those (NF4 with double quantisation, arXiv 2305.14314): 4.127 bits.
BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)


class PackedLinear(nn.Linear):
    """A linear layer whose frozen weight is unpacked for the time of a pass.

    Args:
        layer: the layer it stands for, on the meta device.
        compute_type: what the weight is unpacked to.
    """

    def __init__(self, layer: nn.Linear, compute_type: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.compute_type = compute_type
        size = int(layer.weight.numel() * BYTES_PER_WEIGHT)
        packed = torch.empty(size, dtype=torch.uint8, device=layer.weight.device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """As :meth:`torch.nn.Linear.forward`, in the compute type."""
        given = input.dtype
        shape = (self.out_features, self.in_features)
        out: Any = _UnpackedMatmul.apply(  # type: ignore[no-untyped-call]
            input.to(self.compute_type), self.weight, self.bias, shape
        )
        result: Tensor = out.to(given)
        # peft copies what a 4-bit layer returns before it adds to it
        return result.clone()


class _UnpackedMatmul(torch.autograd.Function):
    """What bitsandbytes does: the whole weight is unpacked, forward and again backward."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, packed: Tensor, bias: Tensor | None, shape: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = shape
        unpacked = packed.new_empty(shape, dtype=input.dtype)
        return torch.nn.functional.linear(input, unpacked, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (packed,) = ctx.saved_tensors
        return grad @ packed.new_empty(ctx.shape, dtype=grad.dtype), None, None, None


def pack_linear_layers(model: nn.Module, compute_type: torch.dtype) -> None:
    """Put a stand-in for every linear layer but the head, as bitsandbytes would.

    Args:
        model: on the meta device.
        compute_type: what weights are unpacked to.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer is not head:
                setattr(parent, name, PackedLinear(layer, compute_type))
