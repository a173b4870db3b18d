"""Models without weights: the bytes of their tensors, and short models for dry runs."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lsp_lightning.models import loading
from lsp_lightning.models.policy import with_adapter
from lsp_lightning.models.settings import Lora, ReferenceChoice
from lsp_lightning.paths import resolve
from lsp_lightning.planning.packed import pack_linear_layers
from lsp_lightning.planning.published import planned_config
from lsp_lightning.prefix.sharing import set_sharing, sharing_by_config

CAUSAL_LM, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class ModelSpec:
    """A model and how a run loads it."""

    source: str
    """Folder or Hub id."""
    dtype: torch.dtype | None
    """The type of its weights; None is the type it was saved in."""
    packed: bool = False
    """Whether its linear layers are stored in 4 bits."""
    kind: str = CAUSAL_LM
    """The auto class of transformers that builds it."""
    lora: Lora | None = None
    """The adapter that is trained, or None."""
    init_adapter: str | None = None
    """Folder of the adapter to start from, or None."""
    reference: ReferenceChoice = "start"
    """"start" keeps a frozen copy of the start adapter."""
    checkpointing: bool = False
    """Whether activations are recomputed in the backward pass."""
    key: str = "model.base"
    """The config key of the model."""

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained instead of all weights."""
        return self.lora is not None or self.init_adapter is not None


@dataclass(frozen=True)
class Sizes:
    """The numbers of weights, bytes and layers of a model."""

    parameters: int
    """Number of weights, without adapters."""
    frozen: int
    """Bytes of everything that is not trained: weights, buffers, a frozen copy of the adapter."""
    trained: int
    """Bytes of the trained weights."""
    trained_parameters: int
    """Number of weights that are trained."""
    layers: int
    """Decoder layers."""


@functools.lru_cache(maxsize=64)
def sizes(spec: ModelSpec) -> Sizes:
    """The size of the whole model."""
    model = build(spec, None)
    tensors = [*model.parameters(), *model.buffers()]
    trained = [t for t in tensors if spec.kind == CAUSAL_LM and t.requires_grad]
    frozen = [t for t in tensors if not (spec.kind == CAUSAL_LM and t.requires_grad)]
    return Sizes(
        parameters=_base_parameters(spec.source, spec.kind, spec.key),
        frozen=sum(t.numel() * t.element_size() for t in frozen),
        trained=sum(t.numel() * t.element_size() for t in trained),
        trained_parameters=sum(t.numel() for t in trained),
        layers=len(layer_kinds(spec.source, spec.key)),
    )


@functools.lru_cache(maxsize=64)
def _base_parameters(source: str, kind: str, key: str) -> int:
    model = loading.skeleton(_config(source, key), torch.float32, kind)
    return sum(p.numel() for p in model.parameters())


def build(spec: ModelSpec, layers: Sequence[int] | None) -> Any:
    """The model on the meta device, set up as in a run.

    Args:
        spec: the model.
        layers: indices of the layers to keep; None keeps all.
    """
    config = _config(spec.source, spec.key)
    if layers is not None:
        config = with_layers(config, layers)
    if spec.kind == CLASSIFIER:
        config.num_labels = 1
        config.get_text_config().pad_token_id = 1  # the head needs it to find the end of a row
    dtype = spec.dtype or config.dtype or torch.float32
    model = loading.skeleton(config, dtype, spec.kind)
    model.requires_grad_(not spec.adapted and spec.kind == CAUSAL_LM)
    if spec.kind == CAUSAL_LM:
        set_sharing(model, sharing_by_config(model))
    if spec.packed:
        pack_linear_layers(model, dtype)
    if spec.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    with torch.device("meta"):
        if spec.init_adapter is not None:
            return _with_start_adapter(model, spec)
        return with_adapter(model, spec.lora, None, "start") if spec.lora else model


@functools.lru_cache(maxsize=64)
def shares_prompts(spec: ModelSpec) -> bool:
    """Whether a causal LM computes a prompt once for all completions, judging by its config.

    A run also tests it with weights. If that test fails, the plan is wrong for this model.
    """
    model = loading.skeleton(_config(spec.source, spec.key), torch.float32)
    return sharing_by_config(model).available


def _with_start_adapter(model: Any, spec: ModelSpec) -> nn.Module:
    """The model with an adapter shaped like the start adapter, and its copy; nothing is loaded."""
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig.from_pretrained(str(resolve(spec.init_adapter or "")))
    adapter.inference_mode = False
    wrapped: Any = get_peft_model(model, adapter)
    if spec.reference == "start":
        wrapped.add_adapter("reference", copy.deepcopy(adapter))
        wrapped.set_adapter("default")
    peft_model: nn.Module = wrapped
    return peft_model


@functools.lru_cache(maxsize=64)
def layer_kinds(source: str, key: str) -> tuple[Any, ...]:
    """A description of each decoder layer, equal for layers that do the same work."""
    config = _config(source, key)
    text = config.get_text_config()
    count = int(text.num_hidden_layers)
    columns = [value for value in vars(text).values() if _is_by_layer(value, count)]
    shapes = _layer_shapes(loading.skeleton(config, torch.float32), count)
    return tuple((*(str(column[i]) for column in columns), shapes[i]) for i in range(count))


def with_layers(config: Any, kept: Sequence[int]) -> Any:
    """A copy of a config with only some of its layers, given by index."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    count = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if _is_by_layer(value, count):
            setattr(text, name, [value[i] for i in kept])
    text.num_hidden_layers = len(kept)
    vision = getattr(config, "vision_config", None)
    if vision is not None:  # no text goes through the vision tower, and building it takes time
        vision.num_hidden_layers = 1
    return config


def short_models(spec: ModelSpec) -> list[tuple[float, tuple[int, ...]]]:
    """Models of few layers, as (factor, layers), that stand for the whole model.

    The cost of a pass is linear in the number of layers of each kind. The first model has one layer
    of each kind (two if all are of one kind); each other model has one more of one kind. The costs
    times the factors sum to the cost of the whole model. If short models would have other layer
    shapes, or save no work, the whole model is run.
    """
    kinds = layer_kinds(spec.source, spec.key)
    whole = [(1.0, tuple(range(len(kinds))))]
    places: dict[Any, list[int]] = {}
    for i, kind in enumerate(kinds):
        places.setdefault(kind, []).append(i)
    first = sorted(where[0] for where in places.values())
    if len(places) == 1:
        first = list(range(min(2, len(kinds))))
    parts = [(1.0, tuple(first))]
    for where in places.values():
        have = sum(i in first for i in where)
        if have == len(where):
            continue
        more = len(where) - have
        kept = tuple(sorted([*first, where[have]]))
        parts[0] = (parts[0][0] - more, parts[0][1])
        parts.append((float(more), kept))
    if sum(len(kept) for _, kept in parts) >= len(kinds):  # no less work than the whole model
        return whole
    config = _config(spec.source, spec.key)
    for _, kept in parts:
        model = loading.skeleton(with_layers(config, kept), torch.float32)
        if _layer_shapes(model, len(kept)) != [kinds[i][-1] for i in kept]:
            return whole
    return parts


def whole_model(spec: ModelSpec) -> list[tuple[float, tuple[int, ...]]]:
    """The model with all its layers, in the form of :func:`short_models`."""
    return [(1.0, tuple(range(len(layer_kinds(spec.source, spec.key)))))]


@functools.lru_cache(maxsize=64)
def _loaded(source: str, key: str) -> Any:
    return planned_config(source, key)


def _config(source: str, key: str) -> Any:
    config = copy.deepcopy(_loaded(source, key))
    # a loop over experts needs to know the tokens of each, but in a dry run routing has no data
    config.get_text_config()._experts_implementation = "batched_mm"
    return config


def _is_by_layer(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count


def _layer_shapes(model: nn.Module, count: int) -> list[Any]:
    """The shapes of each decoder layer's weights."""
    lists = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        return [None] * count
    return [
        tuple((name, tuple(p.shape)) for name, p in layer.named_parameters()) for layer in lists[-1]
    ]
