"""A stand-in for 4-bit linear layers, with the same bytes and temporaries in both passes."""

from typing import Any

import torch
from torch import Tensor, nn

#: Bytes of a quantized weight: 4 bits, an 8-bit scale for each block of 64, and a float32 scale for
#: each 256 of those: 4.127 bits (NF4 with double quantization, arXiv 2305.14314).
BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)


class PackedLinear(nn.Linear):
    """A linear layer whose frozen weight is unpacked during each pass.

    Args:
        layer: the layer that it replaces, on the meta device.
        compute_type: the type that the weight is unpacked to.
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
        """Like ``Linear.forward``, computed in the compute type; returns the input's type."""
        given = input.dtype
        shape = (self.out_features, self.in_features)
        out: Any = _UnpackedMatmul.apply(  # type: ignore[no-untyped-call]
            input.to(self.compute_type), self.weight, self.bias, shape
        )
        result: Tensor = out.to(given)
        # peft copies the output of a 4-bit layer before it adds to it
        return result.clone()


class _UnpackedMatmul(torch.autograd.Function):
    """As in bitsandbytes: the whole weight is unpacked in the forward and in the backward pass."""

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
    """Replace every linear layer except the head, as bitsandbytes does.

    Args:
        model: a model on the meta device.
        compute_type: the type that weights are unpacked to.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer is not head:
                setattr(parent, name, PackedLinear(layer, compute_type))
