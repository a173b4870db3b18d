"""Models without weights: what their tensors take, and short ones to run dry."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lsp_lightning.models import loading as pretrained
from lsp_lightning.models.policy import with_adapter
from lsp_lightning.models.settings import Lora, ReferenceChoice
from lsp_lightning.paths import resolve
from lsp_lightning.planning.packed import pack_linear_layers
from lsp_lightning.prefix.hooks import INNER, LAYERS, register, takes_trees

CAUSAL_LM, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and what is done to it."""

    source: str
    """Folder or hub id."""
    dtype: torch.dtype | None
    """Of its weights; None is the one it was saved in."""
    packed: bool = False
    """Whether its linear layers are in 4 bits."""
    kind: str = CAUSAL_LM
    """The auto class of transformers."""
    lora: Lora | None = None
    """The adapter that is trained."""
    init_adapter: str | None = None
    """Folder of an adapter to start from."""
    reference: ReferenceChoice = "start"
    """Whether the start adapter is kept beside the trained one."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""
    key: str = "model.base"
    """The config key that names it."""

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained, and not all weights."""
        return self.lora is not None or self.init_adapter is not None


@dataclass(frozen=True)
class Sizes:
    """What a model's tensors take."""

    parameters: int
    """Weights, without adapters."""
    frozen: int
    """Bytes of what is not trained: weights, buffers, and a frozen twin of the adapter."""
    trained: int
    """Bytes of what is trained."""
    trained_parameters: int
    """How many numbers that is."""
    layers: int
    """Decoder layers."""


@functools.lru_cache(maxsize=64)
def sizes(spec: ModelSpec) -> Sizes:
    """Bytes of the whole model."""
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
    model = pretrained.skeleton(_config(source, key), torch.float32, kind)
    return sum(p.numel() for p in model.parameters())


def build(spec: ModelSpec, layers: Sequence[int] | None) -> Any:
    """The model on the meta device, as a run would have it.

    Args:
        spec: the model.
        layers: which of its layers to keep, by index; None keeps all.
    """
    config = _config(spec.source, spec.key)
    if layers is not None:
        config = with_layers(config, layers)
    if spec.kind == CLASSIFIER:
        config.num_labels = 1
        config.get_text_config().pad_token_id = 1  # looked for behind each row's last token
    dtype = spec.dtype or config.dtype or torch.float32
    model = pretrained.skeleton(config, dtype, spec.kind)
    model.requires_grad_(not spec.adapted and spec.kind == CAUSAL_LM)
    if spec.kind == CAUSAL_LM:
        _take_trees(model)
    if spec.packed:
        pack_linear_layers(model, dtype)
    if spec.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    with torch.device("meta"):
        if spec.init_adapter is not None:
            return _with_start_adapter(model, spec)
        return with_adapter(model, spec.lora, None, "start") if spec.lora else model


def _take_trees(model: Any) -> None:
    """Give a model our attention where a run would, by its config.

    A run tries it out, see :func:`lsp_lightning.models.capabilities.enable_prefix_sharing`, which
    needs weights. The plan is wrong where a model is not what its config says: it then assumes
    shared prompts, and the run computes a prompt for each completion.
    """
    config = model.config.get_text_config()
    able = (
        config._attn_implementation in INNER
        and set(getattr(config, "layer_types", None) or ()) <= LAYERS
        and model._supports_attention_backend  # its attention is looked up by name
        and not model._is_stateful
    )
    if able:
        config._attn_implementation = register(config._attn_implementation)


@functools.lru_cache(maxsize=64)
def shares_prompts(spec: ModelSpec) -> bool:
    """Whether a causal LM computes a prompt once for all behind it."""
    model = pretrained.skeleton(_config(spec.source, spec.key), torch.float32)
    _take_trees(model)
    return takes_trees(model)


def _with_start_adapter(model: Any, spec: ModelSpec) -> nn.Module:
    """The model with an adapter of the start adapter's shape, and its twin; nothing is loaded."""
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
    """What each decoder layer is: equal where two layers of a model do the same work."""
    config = _config(source, key)
    text = config.get_text_config()
    count = int(text.num_hidden_layers)
    columns = [value for value in vars(text).values() if _is_by_layer(value, count)]
    shapes = _layer_shapes(pretrained.skeleton(config, torch.float32), count)
    return tuple((*(str(column[i]) for column in columns), shapes[i]) for i in range(count))


def with_layers(config: Any, kept: Sequence[int]) -> Any:
    """A copy of a config with some of its layers, by index."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    count = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if _is_by_layer(value, count):
            setattr(text, name, [value[i] for i in kept])
    text.num_hidden_layers = len(kept)
    vision = getattr(config, "vision_config", None)
    if vision is not None:  # a tower that no text goes through takes time to build
        vision.num_hidden_layers = 1
    return config


def short_models(spec: ModelSpec) -> list[tuple[float, tuple[int, ...]]]:
    """Models of few layers, with the factors by which what they take sums to the whole model's.

    What a pass takes is linear in the number of layers of each kind: a first model has one of each
    (two, if all are alike), the others one more. A model whose layers cannot be told apart by its
    config is taken whole.
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
    if sum(len(kept) for _, kept in parts) >= len(kinds):  # as much work as the whole
        return whole
    config = _config(spec.source, spec.key)
    for _, kept in parts:
        model = pretrained.skeleton(with_layers(config, kept), torch.float32)
        if _layer_shapes(model, len(kept)) != [kinds[i][-1] for i in kept]:
            return whole
    return parts


def whole_model(spec: ModelSpec) -> list[tuple[float, tuple[int, ...]]]:
    """The model with all of its layers, in the form of :func:`short_models`."""
    return [(1.0, tuple(range(len(layer_kinds(spec.source, spec.key)))))]


@functools.lru_cache(maxsize=64)
def _loaded(source: str, key: str) -> Any:
    return pretrained.load_config(source, key)


def _config(source: str, key: str) -> Any:
    config = copy.deepcopy(_loaded(source, key))
    # experts as a loop would ask which tokens go where, and these tokens have no contents
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
