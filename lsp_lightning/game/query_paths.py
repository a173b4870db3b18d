"""What to write instead of a path that is no file: a URL, a pattern, the name of a dataset."""

import re
from pathlib import Path

from lsp_lightning.errors import ConfigError

#: A path that may be meant as the name of a dataset: name, owner/name or owner/name:config:split.
_DATASET = re.compile(r"(?:datasets/)?((?:[\w-]+/)?[\w-]+(?:\.\d+)?)(?::\w+)*")
_DATASET_URL = re.compile(r"https?://huggingface\.co/datasets/((?:[\w.-]+/)?[\w.-]+)(?:/.*)?")


def check_path(path: str, key: str) -> None:
    """Raise ConfigError if a path is no file, but something else that is known."""
    problem = f"no file {path!r}"
    hub, dataset = _DATASET_URL.fullmatch(path), _DATASET.fullmatch(path)
    if hub:
        raise ConfigError(key, problem, _of_hub(hub[1]))
    if path.startswith("file://"):
        raise ConfigError(key, problem, f"write the path alone: {path.removeprefix('file://')}")
    if "://" in path:
        raise ConfigError(key, problem, "download it, and give the path of the file")
    if _exists(path):
        return
    if set("*?") & set(path):
        raise ConfigError(key, problem, "give one file; join several into one first")
    if dataset:
        raise ConfigError(key, problem, _of_hub(dataset[1]))


def _of_hub(name: str) -> str:
    return f"for a dataset of the Hugging Face Hub write hf:{name}:SPLIT, such as hf:{name}:train"


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # a name that cannot be; require_file says so
        return False
