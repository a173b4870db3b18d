"""Loading models and tokenizers: safetensors only, no code from the hub, one-line faults."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lsp_lightning.chat import ChatCodec
from lsp_lightning.errors import ConfigError
from lsp_lightning.paths import resolve

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KEY = "model.base"


def check_base(base: str, key: str = _KEY) -> None:
    """What can be known of a model folder or hub id without loading it.

    Raises:
        ConfigError: no such folder, or one without a config or without safetensors weights.
    """
    try:
        folder = resolve(base)
    except ModuleNotFoundError as error:
        raise ConfigError(key, f"no package for {base!r}", "check the name after 'pkg:'") from error
    if not folder.is_dir():
        if _HUB_ID.fullmatch(base) and not base.startswith("."):
            return
        raise ConfigError(
            key, f"no folder {base!r}", "give a model folder, or a hub id like Qwen/Qwen3-1.7B"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            key, f"folder {base!r} has no config.json", "give a Hugging Face model folder"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            key,
            f"folder {base!r} has no safetensors weights (pickled ones can run code)",
            "save the model again with save_pretrained(..., safe_serialization=True)",
        )


def check_policy(base: str, with_lora: bool, init_adapter: str | None) -> None:
    """What can be known of the policy's folders without loading anything.

    Raises:
        ConfigError: see :func:`check_base`; or ``init_adapter`` is no adapter in peft's layout.
    """
    check_base(base)
    if init_adapter is None:
        return
    key, folder = "model.init_adapter", resolve(init_adapter)
    if not with_lora:
        raise ConfigError(key, "needs LoRA", "leave model.lora at its default")
    if not (folder / "adapter_config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ConfigError(
            key,
            f"{init_adapter!r} is not a peft adapter (adapter_config.json, *.safetensors)",
            "give the 'adapter' folder of a finished run",
        )
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise ConfigError(
            key, f"{init_adapter!r} is more than LoRA matrices", "give a plain LoRA adapter"
        )


def load_model(base: str, dtype: torch.dtype) -> Any:
    """The causal LM, in eval mode, on the CPU.

    Raises:
        ConfigError: it cannot be had (missing, gated, without safetensors).
    """
    from transformers import AutoModelForCausalLM

    check_base(base)
    with _one_line(base, _KEY):
        return AutoModelForCausalLM.from_pretrained(
            _source(base), dtype=dtype, use_safetensors=True, trust_remote_code=False
        )


def load_classifier(model: str, key: str) -> Any:
    """A sequence classifier with one label, in eval mode, on the CPU, as it was saved.

    Raises:
        ConfigError: it cannot be had, or has another number of labels.
    """
    from transformers import AutoModelForSequenceClassification

    check_base(model, key)
    with _one_line(model, key):
        classifier = AutoModelForSequenceClassification.from_pretrained(
            _source(model), dtype="auto", use_safetensors=True, trust_remote_code=False
        )
    labels = classifier.config.num_labels
    if labels != 1:
        raise ConfigError(key, f"{model!r} has {labels} labels", "give a reward model with one")
    return classifier.eval()


def load_codec(
    base: str, model: Any, template_kwargs: Mapping[str, Any], key: str = _KEY
) -> tuple[ChatCodec, int]:
    """The model's chat codec, which knows what ends a turn, and its padding id.

    Raises:
        ConfigError: no tokenizer, or nothing that ends a turn.
    """
    tokenizer = load_tokenizer(base, key)
    generation = getattr(model, "generation_config", None)
    configured = getattr(generation, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    stop_ids = sorted({i for i in [*stops, tokenizer.eos_token_id] if i is not None})
    if not stop_ids:
        raise ConfigError(
            key, f"{base!r} names no token that ends a turn", "set eos_token_id in its config"
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    return ChatCodec(tokenizer, template_kwargs, stop_ids), pad_id


def load_tokenizer(base: str, key: str) -> Any:
    """The tokenizer of a model.

    Raises:
        ConfigError: it cannot be had.
    """
    from transformers import AutoTokenizer

    with _one_line(base, key):
        return AutoTokenizer.from_pretrained(_source(base), trust_remote_code=False)


def _source(base: str) -> str:
    folder = resolve(base)
    return str(folder) if Path(folder).is_dir() else base


@contextmanager
def _one_line(base: str, key: str) -> Iterator[None]:
    """The loaders' many ways to fail, as one line that names the key."""
    try:
        yield
    except (OSError, ValueError) as error:
        if "gated" in str(error).lower():
            remedy = "accept its licence on the hub and log in (hf auth login)"
        else:
            remedy = "check the id and the connection, or give a folder"
        first_line = (
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        )
        raise ConfigError(key, f"cannot load {base!r} ({first_line})", remedy) from error
