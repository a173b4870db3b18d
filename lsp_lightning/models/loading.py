"""Load models and tokenizers: only safetensors, no code from the Hub, errors of one line."""

from collections.abc import Mapping
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.models import quantization
from lsp_lightning.models.hub import one_line, quiet, source
from lsp_lightning.models.modes import without_dropout
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.sources import KEY, check_base, check_tokenizer, check_unquantized
from lsp_lightning.models.start_adapter import check_start_adapter
from lsp_lightning.text.chat import ChatCodec, turn_end_ids
from lsp_lightning.text.vocabulary import check_vocabulary

_CPU = torch.device("cpu")


def check_policy(
    base: str,
    with_lora: bool,
    init_adapter: str | None,
    quantized: Quantization | None = None,
) -> None:
    """Check the policy's folders as far as possible without loading anything.

    Raises:
        ConfigError: see :func:`lsp_lightning.models.sources.check_base` and
            :func:`lsp_lightning.models.start_adapter.check_start_adapter`; or there is no LoRA, but
            an adapter or quantization.
    """
    check_base(base)
    check_tokenizer(base)
    if quantized and not with_lora:
        raise ConfigError(
            "model.quantization",
            "needs LoRA, because 4-bit weights cannot be trained",
            "set model.lora",
        )
    if init_adapter is None:
        return
    if not with_lora:
        raise ConfigError("model.init_adapter", "needs LoRA", "leave model.lora at its default")
    check_start_adapter(init_adapter)


def load_config(base: str, key: str = KEY) -> Any:
    """The config of a model: its architecture and sizes, without weights.

    Raises:
        ConfigError: it could not be loaded.
    """
    from transformers import AutoConfig

    with one_line(base, key):
        place, options = source(base)
        return AutoConfig.from_pretrained(place, trust_remote_code=False, **options)


def load_model(
    base: str,
    dtype: torch.dtype,
    quantized: Quantization | None = None,
    device: torch.device = _CPU,
    key: str = KEY,
) -> Any:
    """A causal LM in eval mode.

    A quantized model is on ``device``. Others are on the CPU, or on the device of a surrounding
    ``torch.device(...)`` context, which Lightning's Trainer opens.

    Raises:
        ConfigError: it could not be loaded (missing, gated, no safetensors) or not be quantized.
    """
    from transformers import AutoModelForCausalLM

    check_base(base, key)
    return without_dropout(_load(AutoModelForCausalLM, base, key, dtype, quantized, device))


def load_classifier(
    model: str,
    key: str,
    quantized: Quantization | None = None,
    device: torch.device = _CPU,
) -> Any:
    """A sequence classifier with one label in eval mode, in the type it was saved in.

    A quantized model is on ``device``, others are on the CPU.

    Raises:
        ConfigError: it could not be loaded or not be quantized, or does not have exactly one label.
    """
    from transformers import AutoModelForSequenceClassification

    check_base(model, key, "classifier")
    kind = AutoModelForSequenceClassification
    classifier = _load(kind, model, key, "auto", quantized, device)
    labels = classifier.config.num_labels
    if labels != 1:
        raise ConfigError(key, f"{model!r} has {labels} labels", "give a reward model with one")
    return classifier.eval()


def skeleton(config: Any, dtype: torch.dtype, kind: str = "AutoModelForCausalLM") -> Any:
    """A model's modules and shapes on the meta device: no weights, no memory.

    Args:
        config: from :func:`load_config`.
        dtype: the type of its floating-point weights.
        kind: the auto class of transformers that builds it.
    """
    import transformers

    with torch.device("meta"):
        return getattr(transformers, kind).from_config(config, dtype=dtype)


def _load(
    kind: Any,
    base: str,
    key: str,
    dtype: torch.dtype | str,
    quantized: Quantization | None,
    device: torch.device,
) -> Any:
    config = load_config(base, key)
    check_unquantized(vars(config), base, key)
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if quantized is None:
        return _weights(kind, base, key, options)
    compute_type = dtype if isinstance(dtype, torch.dtype) else config.dtype or torch.float32
    shapes = skeleton(config, torch.float32, kind.__name__)
    if device.type == "cpu":
        quantization.check_sizes(shapes, key)
    options["dtype"] = compute_type
    options["quantization_config"] = quantization.settings(shapes, compute_type)
    options["device_map"] = {"": str(device)}  # each layer is quantized where it will be used
    model: Any = quantization.guard(_weights(kind, base, key, options))
    return model


def _weights(kind: Any, base: str, key: str, options: Mapping[str, Any]) -> Any:
    """The model with its weights. Raise ConfigError if the folder does not have all of them."""
    with one_line(base, key), quiet():
        place, access = source(base, options["dtype"])
        model, found = kind.from_pretrained(place, output_loading_info=True, **access, **options)
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would leave them random
        raise ConfigError(
            key,
            f"{base!r} has no weights for {missing[0]} of a {type(model).__name__}",
            "give a complete model of this kind",
        )
    return model


def load_codec(
    base: str, model: Any, template_kwargs: Mapping[str, Any], key: str = KEY
) -> tuple[ChatCodec, int]:
    """The chat codec of a model, with the tokens that end a turn, and its padding id.

    Args:
        base: folder or Hub id.
        model: the loaded model, whose generation config is read; None if there is none.
        template_kwargs: fixed arguments of the chat template.
        key: the config key of ``base``.

    Raises:
        ConfigError: the tokenizer could not be loaded, its chat template fails, or no token ends a
            turn.
    """
    tokenizer, rows = load_tokenizer(base, key), None
    if model is not None:
        rows = rows_of(model)
        check_vocabulary(tokenizer, rows, base, key)
    ChatCodec(tokenizer, template_kwargs, (), key, rows).check()
    generation = getattr(model, "generation_config", None)
    configured = getattr(generation, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    named = [*stops, tokenizer.eos_token_id, *turn_end_ids(tokenizer, template_kwargs, key)]
    stop_ids = sorted({i for i in named if i is not None and (rows is None or i < rows)})
    if not stop_ids:
        raise ConfigError(
            key, f"{base!r} has no token that ends a turn", "set eos_token_id in its config"
        )
    pad_id = tokenizer.pad_token_id
    if pad_id is None or (rows is not None and pad_id >= rows):  # a pad token may be an added one
        pad_id = stop_ids[0]
    return ChatCodec(tokenizer, template_kwargs, stop_ids, key, rows), pad_id


def rows_of(model: Any) -> int:
    """How many ids a model can read: the rows of its input embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def load_tokenizer(base: str, key: str) -> Any:
    """The tokenizer of a model.

    Raises:
        ConfigError: it could not be loaded.
    """
    from transformers import AutoTokenizer

    check_tokenizer(base, key)
    with one_line(base, key):
        place, options = source(base)
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
