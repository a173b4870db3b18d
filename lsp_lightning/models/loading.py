"""Load models and tokenizers: only safetensors, no code from the Hub, errors of one line."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.models import quantization
from lsp_lightning.models.modes import without_dropout
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.paths import resolve
from lsp_lightning.text.chat import ChatCodec, turn_end_ids

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KEY = "model.base"
_CPU = torch.device("cpu")


def check_base(base: str, key: str = _KEY) -> None:
    """Check a model folder or Hub id as far as possible without loading it.

    Raises:
        ConfigError: the folder does not exist, or has no config or no safetensors weights.
    """
    try:
        folder = resolve(base)
    except ModuleNotFoundError as error:
        raise ConfigError(
            key, f"the package in {base!r} is not installed", "check the name after 'pkg:'"
        ) from error
    if not folder.is_dir():
        if _HUB_ID.fullmatch(base) and not base.startswith("."):
            return
        raise ConfigError(
            key, f"no folder {base!r}", "give a model folder, or a Hub id such as Qwen/Qwen3-1.7B"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            key, f"folder {base!r} has no config.json", "give a Hugging Face model folder"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            key,
            f"folder {base!r} has no safetensors weights (pickled weights can run code)",
            "save the model again with save_pretrained(..., safe_serialization=True)",
        )


def check_policy(
    base: str,
    with_lora: bool,
    init_adapter: str | None,
    quantized: Quantization | None = None,
) -> None:
    """Check the policy's folders as far as possible without loading anything.

    Raises:
        ConfigError: see :func:`check_base`; or ``init_adapter`` is not a LoRA adapter in peft's
            layout; or there is no LoRA, but an adapter or quantization.
    """
    check_base(base)
    if quantized and not with_lora:
        raise ConfigError(
            "model.quantization",
            "needs LoRA, because 4-bit weights cannot be trained",
            "set model.lora",
        )
    if init_adapter is None:
        return
    key, folder = "model.init_adapter", resolve(init_adapter)
    if not with_lora:
        raise ConfigError(key, "needs LoRA", "leave model.lora at its default")
    if not (folder / "adapter_config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ConfigError(
            key,
            f"{init_adapter!r} is not a peft adapter (adapter_config.json and *.safetensors)",
            "give the 'adapter' folder of a finished run",
        )
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    more = ("modules_to_save", "trainable_token_indices", "megatron_config")
    biased = config.get("bias", "none") != "none"
    if config.get("peft_type") != "LORA" or biased or any(config.get(k) for k in more):
        raise ConfigError(
            key,
            f"{init_adapter!r} is not plain LoRA (another peft type, biases, or whole modules)",
            "give a plain LoRA adapter",
        )


def load_config(base: str, key: str = _KEY) -> Any:
    """The config of a model: its architecture and sizes, without weights.

    Raises:
        ConfigError: it could not be loaded.
    """
    from transformers import AutoConfig

    with _one_line(base, key):
        return AutoConfig.from_pretrained(_source(base), trust_remote_code=False)


def load_model(
    base: str,
    dtype: torch.dtype,
    quantized: Quantization | None = None,
    device: torch.device = _CPU,
) -> Any:
    """A causal LM in eval mode.

    A quantized model is on ``device``. Others are on the CPU, or on the device of a surrounding
    ``torch.device(...)`` context, which Lightning's Trainer opens.

    Raises:
        ConfigError: it could not be loaded (missing, gated, no safetensors) or not be quantized.
    """
    from transformers import AutoModelForCausalLM

    check_base(base)
    return without_dropout(_load(AutoModelForCausalLM, base, _KEY, dtype, quantized, device))


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

    check_base(model, key)
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
    if getattr(config, "quantization_config", None):
        raise ConfigError(
            key,
            f"{base!r} is already quantized",
            "give the original model; model.quantization quantizes it while loading",
        )
    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if quantized is None:
        with _one_line(base, key):
            return kind.from_pretrained(_source(base), **options)
    compute_type = dtype if isinstance(dtype, torch.dtype) else config.dtype or torch.float32
    shapes = skeleton(config, torch.float32, kind.__name__)
    if device.type == "cpu":
        quantization.check_sizes(shapes, key)
    options["dtype"] = compute_type
    options["quantization_config"] = quantization.settings(shapes, compute_type)
    options["device_map"] = {"": str(device)}  # each layer is quantized where it will be used
    with _one_line(base, key):
        model = kind.from_pretrained(_source(base), **options)
    return quantization.guard(model)


def load_codec(
    base: str, model: Any, template_kwargs: Mapping[str, Any], key: str = _KEY
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
    tokenizer = load_tokenizer(base, key)
    ChatCodec(tokenizer, template_kwargs, (), key).check()
    generation = getattr(model, "generation_config", None)
    configured = getattr(generation, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    named = [*stops, tokenizer.eos_token_id, *turn_end_ids(tokenizer, template_kwargs, key)]
    stop_ids = sorted({i for i in named if i is not None})
    if not stop_ids:
        raise ConfigError(
            key, f"{base!r} has no token that ends a turn", "set eos_token_id in its config"
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    return ChatCodec(tokenizer, template_kwargs, stop_ids, key), pad_id


def load_tokenizer(base: str, key: str) -> Any:
    """The tokenizer of a model.

    Raises:
        ConfigError: it could not be loaded.
    """
    from transformers import AutoTokenizer

    with _one_line(base, key):
        return AutoTokenizer.from_pretrained(_source(base), trust_remote_code=False)


def _source(base: str) -> str:
    folder = resolve(base)
    return str(folder) if Path(folder).is_dir() else base


@contextmanager
def _one_line(base: str, key: str) -> Iterator[None]:
    """Turn the errors of transformers' loaders into one line with the key and the remedy."""
    try:
        yield
    except (OSError, ValueError) as error:
        text, page = str(error).lower(), f"https://huggingface.co/{base}"
        if "gated" in text:
            remedy = f"accept its licence at {page}, then log in: hf auth login"
        elif "not a valid model identifier" in text:
            remedy = f"check that {page} exists; if it is private, log in: hf auth login"
        elif os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
            remedy = f"unset HF_HUB_OFFLINE, or download it while online: hf download {base}"
        else:
            remedy = "check the folder, or the Hub id and your connection"
        first_line = (
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        )
        raise ConfigError(key, f"cannot load {base!r} ({first_line})", remedy) from error
