"""Check a model's folder before anything is loaded: missing or damaged files, other models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.families import check_family, check_layers
from lsp_lightning.models.gguf import is_gguf
from lsp_lightning.models.gguf_folder import described
from lsp_lightning.paths import require_path, resolve

KEY = "model.base"
ADAPTER_CONFIG = "adapter_config.json"
#: Files, one of which every tokenizer of transformers has.
_TOKENIZERS = ("tokenizer*.json", "vocab.*", "*.model", "*.tiktoken")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_CAUSAL_LM = "give the folder of a causal LM"
_AS_FOLDER = "give a Hugging Face folder with safetensors weights"
#: Bytes before the header of a safetensors file, which hold the header's length.
_LENGTH_BYTES = 8
_POINTER = b"version "  # how a Git LFS pointer begins


def is_hub_id(base: str) -> bool:
    """Whether a model that is not a folder has the form of a Hub id: OWNER/NAME."""
    owner, slash, name = base.partition("/")
    parts = (owner, name)
    plain = all(p and p.replace("-", "").replace(".", "").replace("_", "").isalnum() for p in parts)
    return bool(slash) and plain and not base.startswith(".") and not name.endswith(".gguf")


def check_base(base: str, key: str = KEY, kind: str = "causal LM") -> None:
    """Check a model folder or Hub id as far as possible without loading it.

    Args:
        base: folder or Hub id.
        key: its config key.
        kind: what the model must be, "causal LM" or "classifier".

    Raises:
        ConfigError: the folder does not exist, is an adapter or of another kind of model, or lacks
            a config or undamaged safetensors weights.
    """
    folder = require_path(base, key)
    if is_gguf(folder):
        if kind != "causal LM":
            raise ConfigError(key, f"{base!r} is GGUF, which only model.base takes", _AS_FOLDER)
        described(base, key)
        return
    if folder.is_file():
        raise _is_a_file(base, folder, key)
    if not folder.is_dir():
        if is_hub_id(base):
            return
        raise ConfigError(
            key, f"no folder {base!r}", "give a model folder, or a Hub id such as Qwen/Qwen3-1.7B"
        )
    check_no_adapter(base, read_json(folder / ADAPTER_CONFIG, key), key)
    config = read_json(folder / "config.json", key)
    if config is None:
        raise _without_config(base, folder, key)
    check_unquantized(config, base, key)
    if kind == "causal LM":
        check_family(config, base, key)
    check_layers(config, _check_weights(base, folder, key), base, key)


def check_tokenizer(base: str, key: str = KEY) -> None:
    """Raise ConfigError for a folder without a tokenizer."""
    folder = resolve(base)
    if folder.is_dir() and not any(any(folder.glob(name)) for name in _TOKENIZERS):
        raise ConfigError(
            key,
            f"folder {base!r} has no tokenizer",
            "copy tokenizer.json and tokenizer_config.json of the model into it",
        )


def check_unquantized(config: Mapping[str, Any], base: str, key: str) -> None:
    """Raise ConfigError if a model's weights are quantized already, judging by its config."""
    if config.get("quantization_config"):
        raise ConfigError(
            key,
            f"{base!r} is already quantized",
            "give the original model; model.quantization quantizes it while loading",
        )


def check_no_adapter(base: str, adapter: Mapping[str, Any] | None, key: str) -> None:
    """Raise ConfigError if the model is an adapter.

    Args:
        base: folder or Hub id.
        adapter: the content of its ``adapter_config.json``; None if it has none.
        key: its config key.
    """
    if adapter is None:
        return
    of = adapter.get("base_model_name_or_path") or "the model it was trained on"
    remedy = f"set {key} to that model and merge the adapter first"
    if key == KEY:
        local = f"to {base}" if resolve(base).is_dir() else f"to a folder (hf download {base})"
        remedy = f"set model.base to {of} and model.init_adapter {local}"
    raise ConfigError(key, f"{base!r} is an adapter of {of}", remedy)


def read_json(path: Path, key: str) -> dict[str, Any] | None:
    """The mapping in a JSON file, or None if there is no such file.

    Raises:
        ConfigError: the file is not a JSON mapping.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            key, f"{str(path)!r} is not JSON", "restore it from the model's source"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(
            key, f"{str(path)!r} is not a JSON mapping", "restore it from the model's source"
        )
    return found


def _is_a_file(base: str, path: Path, key: str) -> ConfigError:
    """The error for a file given as a model."""
    remedy = _CAUSAL_LM
    if path.suffix in _WEIGHTS:
        remedy = f"give its folder, {str(path.parent)!r}, with config.json and tokenizer"
    return ConfigError(key, f"{base!r} is a file", remedy)


def _without_config(base: str, folder: Path, key: str) -> ConfigError:
    """The error for a folder without config.json."""
    if not any(folder.iterdir()):
        return ConfigError(key, f"folder {base!r} is empty, without config.json", _CAUSAL_LM)
    if (folder / "model_index.json").is_file():
        return ConfigError(key, f"{base!r} is a diffusion pipeline", _CAUSAL_LM)
    files = sorted(folder.glob("*.gguf"))
    if files:
        problem = f"folder {base!r} has no config.json, but GGUF files"
        return ConfigError(key, problem, f"give one of them, such as {str(files[0])!r}")
    return ConfigError(
        key, f"folder {base!r} has no config.json", "give a Hugging Face model folder"
    )


def _check_weights(base: str, folder: Path, key: str) -> int:
    """Raise ConfigError unless a folder has all of its safetensors files, and none is cut off.

    Returns:
        How many tensors they hold.
    """
    files = {path.name: path for path in folder.glob("*.safetensors")}
    index = read_json(folder / "model.safetensors.index.json", key) or {}
    places = index.get("weight_map")
    named = set(map(str, places.values())) if isinstance(places, dict) else set()
    missing = sorted(named - set(files))
    if missing and "model.safetensors" not in files:
        raise ConfigError(
            key, f"folder {base!r} lacks {missing[0]}", "copy or download the folder again"
        )
    if not files:
        raise ConfigError(
            key,
            f"folder {base!r} has no safetensors weights (pickled weights can run code)",
            "save the model again with save_pretrained(..., safe_serialization=True)",
        )
    return sum(check_complete(path, key) for path in files.values())


def check_complete(path: Path, key: str) -> int:
    """Raise ConfigError unless a safetensors file is as long as its header says.

    Returns:
        How many tensors it holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        header = file.read(length) if length <= size - _LENGTH_BYTES else b""
    if start == _POINTER:
        raise ConfigError(key, f"{str(path)!r} is a Git LFS pointer", "run git lfs pull there")
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
        expected = _LENGTH_BYTES + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        ends, expected = [], -1
    if size != expected:
        raise ConfigError(
            key, f"{str(path)!r} is damaged or incomplete", "copy or download it again"
        )
    return len(ends)
