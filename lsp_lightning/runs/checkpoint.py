"""Reading a run's checkpoint without the module that wrote it."""

import functools
import shlex
import zipfile
from pathlib import Path
from typing import Any, TypeGuard

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.runs.folder import LAST, PREVIOUS

#: Parts of a checkpoint, with their types.
_PARTS: dict[str, type] = {
    "state_dict": dict,
    "lsp_lightning": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}
_REMEDY = f"give a run's checkpoints/{LAST}"


def read_checkpoint(path: str, mmap: bool = True) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. It is never a pickle, which could run any code.

    Args:
        path: the file.
        mmap: leave the tensors on the disk until they are used.

    Raises:
        ConfigError: the file is damaged, or is not a checkpoint of this package. The message names
            the other checkpoint of the run if that is whole.
    """
    damage = _damage(path)
    if damage is not None:
        raise ConfigError("ckpt_path", f"{path!r} {damage}", _other(path))
    found = _load(path, mmap)
    if found is None:
        raise ConfigError("ckpt_path", f"{path!r} is not a checkpoint", _other(path))
    if not _is_of_a_run(found):
        raise ConfigError("ckpt_path", f"{path!r} is not an lsp-lightning checkpoint", _REMEDY)
    return found


def _is_of_a_run(found: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a file's content has the parts of a checkpoint, each of its type."""
    if not isinstance(found, dict) or not {"state_dict", "lsp_lightning"} <= set(found):
        return False
    if not all(isinstance(found.get(name, kind()), kind) for name, kind in _PARTS.items()):
        return False
    states = [*found.get("optimizer_states", []), *found.get("lr_schedulers", [])]
    states += found.get("callbacks", {}).values()
    tensors = found["state_dict"].values()
    return all(isinstance(t, torch.Tensor) for t in tensors) and all(
        isinstance(state, dict) for state in states
    )


def _load(path: str, mmap: bool) -> Any:
    """What the file holds, of plain types; None if it cannot be read as that."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except Exception:  # a file of any content may raise anything
        return None


def _damage(path: str) -> str | None:
    """What is wrong with a file; None if its bytes are those that were written."""
    try:
        state = Path(path).stat()
    except OSError:
        return "is not a checkpoint"
    return _wrong_bytes(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _wrong_bytes(path: str, size: int, changed: int) -> str | None:
    """Compare the file with its checksums. torch does not; a flipped bit would load silently.

    Args:
        path: the file.
        size: its size in bytes.
        changed: when it was changed; a file that was not changed is compared once.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return "is not a checkpoint"
        with zipfile.ZipFile(path) as archive:
            # torch compresses nothing, so more bytes than the file has are a trap
            if sum(part.file_size for part in archive.infolist()) > size:
                return "is not a checkpoint"
            part = archive.testzip()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except Exception:  # damaged bytes may raise anything
        return f"is damaged or incomplete ({size:,} bytes)"
    return None if part is None else f"is damaged (wrong checksum of {part.rpartition('/')[2]})"


def _other(path: str) -> str:
    """What to do about a damaged checkpoint: use the run's other one, if that is whole."""
    folder = Path(path).parent
    for name, which in ((LAST, "the last one"), (PREVIOUS, "the one before it")):
        other = folder / name
        if other.name != Path(path).name and _damage(str(other)) is None:
            return f"use {which}: --ckpt_path {shlex.quote(str(other))}"
    return _REMEDY
