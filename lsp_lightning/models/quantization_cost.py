"""Measure what 4 bits cost a base: its KL from the unquantized base on a few lines of text.

The cost depends on the model: .003 nats a token for one, 1 nat for another of the same family. The
model is not loaded twice: each layer reads its unquantized weight from the files when it computes,
and frees it afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.errors import warn
from lsp_lightning.models.hub import source
from lsp_lightning.models.logits import head_logits, hidden_states
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.quantization import full_weight, linear_layers
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.text.padding import pad_right

#: Lines to measure on: prose, arithmetic, code, a list.
LINES = (
    "The river rises in the hills, crosses a wide valley of small farms, and reaches the sea at a "
    "town that was once a harbour for fishing boats.",
    "A train leaves at 9:40 and travels 180 km at 60 km per hour. It arrives after 3 hours, at "
    "12:40, because 180 / 60 = 3.",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n",
    "To make tea, boil fresh water, warm the pot, add one spoon of leaves for each cup, wait four "
    "minutes and pour. Add milk or lemon if you like.",
)
#: Nats a token from which a warning is printed.
TOO_MUCH = 0.1
#: Largest relative difference between a weight and its 4-bit form; it is about .1, and about 1.4
#: for the weight of another layer.
_SAME_WEIGHT = 0.5


class _NotFound(Exception):
    """No tensor of the files is the weight of a layer."""


def tell_cost(model: Any, base: str, tokenizer: Any) -> None:
    """Print what 4 bits cost a loaded base, and warn if it is above :data:`TOO_MUCH`.

    Args:
        model: the quantized causal LM, without adapters.
        base: folder or Hub id that it was loaded from.
        tokenizer: its tokenizer.
    """
    try:
        nats = quantization_cost(model, base, tokenizer)
    except _NotFound as error:
        print(f"4 bits: the cost is not measured ({error})", flush=True)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print("4 bits: the cost is not measured (it does not fit into memory)", flush=True)
        return
    print(
        f"4 bits: {nats:.3f} nats a token from the unquantized base (mean KL, {len(LINES)} lines)",
        flush=True,
    )
    if not nats <= TOO_MUCH:
        warn(
            f"model.quantization: 4 bits change this base a lot ({nats:.2f} nats a token); "
            "set it to null, or use a larger base"
        )


def quantization_cost(model: Any, base: str, tokenizer: Any) -> float:
    """Mean KL(unquantized || quantized) of the next token over :data:`LINES`, in nats.

    Args:
        model: see :func:`tell_cost`.
        base: see :func:`tell_cost`.
        tokenizer: see :func:`tell_cost`.
    """
    device = next(model.parameters()).device
    rows = [list(tokenizer(line)["input_ids"]) for line in LINES]
    ids, mask = (x.to(device) for x in pad_right(rows, 0))
    with inference_state(model, device.type):
        quantized = hidden_states(model, ids)
        with unquantized(model, base):
            plain = hidden_states(model, ids)
        total, count = 0.0, 0
        for states, states_4bit, real in zip(plain, quantized, mask, strict=True):
            p, q = (
                head_logits(model, h[real]).float().log_softmax(-1) for h in (states, states_4bit)
            )
            total += float((p.exp() * (p - q)).sum())
            count += len(p)
    return total / count


@contextmanager
def unquantized(model: Any, base: str) -> Iterator[None]:
    """Let every 4-bit layer compute with its weight from the base's files, one at a time."""
    files, packed = _tensors(base, model.dtype), set(linear_layers(model))
    changed = []
    try:
        for name, module in model.named_modules():
            if module in packed:
                module.forward = partial(_plain_forward, module, name, files)
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def _plain_forward(layer: Any, name: str, files: dict[str, Path], x: Tensor) -> Tensor:
    weight = _weight(layer, name, files)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return nn.functional.linear(x, weight.to(x.dtype), bias)


def _weight(layer: Any, name: str, files: dict[str, Path]) -> Tensor:
    """The weight (out, in) of a layer, from the files.

    Names in the files may differ from those of the modules. So the names with the longest common
    end are tried, and the weight must resemble its 4-bit form.
    """
    packed = full_weight(layer)
    parts = f"{name}.weight".split(".")
    for start in range(len(parts) - 1):
        end = ".".join(parts[start:])
        for key in _ending(end, list(files)):
            found = _read(files[key], key).to(packed.device, packed.dtype)
            for weight in (found, found.T) if found.dim() == 2 else ():
                if weight.shape == packed.shape:
                    difference = (weight - packed).float().norm() / weight.float().norm()
                    if difference < _SAME_WEIGHT:
                        return weight
    raise _NotFound(f"no file has the weight of {name}")


def _ending(end: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name == end or name.endswith(f".{end}")]


def _tensors(base: str, dtype: torch.dtype) -> dict[str, Path]:
    """The file of each tensor of a base, by the tensor's name."""
    from safetensors import safe_open
    from transformers.utils import cached_file

    place, options = source(base, dtype)
    folder = Path(str(cached_file(place, "config.json", **options))).parent
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found.update(dict.fromkeys(file.keys(), path))
    return found


def _read(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor
