"""The policy with other weights for a while: its own from earlier, or an adapter from a folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import Policy, causal_lm
from lsp_lightning.models.start_adapter import attach

#: Tensors by the names of the policy's trained parameters.
Weights = Mapping[str, Tensor]

_TRAINED, _OTHER = "default", "other"


def trained_weights(policy: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that is trained, on the CPU, by parameter name."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    }


@contextmanager
def holding(policy: nn.Module, weights: Weights) -> Iterator[None]:
    """Put ``weights`` in the place of the trained ones, and restore these bit for bit at the end.

    The values change in place, so whatever holds on to a parameter (an optimiser, a CUDA graph)
    stays valid. Do not enter it between a forward pass of the policy and its backward pass.

    Args:
        policy: the policy.
        weights: what :func:`trained_weights` returned.
    """
    parameters = dict(policy.named_parameters())
    own = {name: parameters[name].detach().clone() for name in weights}
    try:
        _write(parameters, weights)
        yield
    finally:
        _write(parameters, own)


def _write(parameters: Mapping[str, nn.Parameter], weights: Weights) -> None:
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


@contextmanager
def adapter_from(policy: Policy, folder: str, key: str) -> Iterator[Any]:
    """The causal LM with the adapter of a folder in place of the trained one, in eval mode.

    Args:
        policy: the policy; it has an adapter itself.
        folder: an adapter of the same base, in peft's layout; its rank may differ.
        key: what an error message names.

    Raises:
        ConfigError: the adapter does not fit the base.
    """
    model: Any = policy.model
    with inference_state(model, policy.device.type):  # around it all: peft leaves the eval mode on
        try:
            attach(model, folder, _OTHER)
        except ConfigError as error:
            raise ConfigError(key, error.problem, error.remedy) from error
        model.set_adapter(_OTHER, inference_mode=True)
        try:
            yield causal_lm(model)
        finally:
            model.set_adapter(_TRAINED)
            model.delete_adapter(_OTHER)
