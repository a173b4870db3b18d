"""What decides a model's answers and a reward's scores, as short texts that can be compared."""

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.evaluation.ledger import digest
from lsp_lightning.models.policy import Policy
from lsp_lightning.paths import resolve

_PACKAGE = "lsp_lightning"
#: Bytes of a tensor that are hashed at once.
_CHUNK = 2**26
#: Deepest nesting of a reward's settings.
_DEEPEST = 20


def weights_of(policy: Policy) -> tuple[str, str]:
    """Checksums of the policy and of its reference: weights, number format and kind of device."""
    trained = policy.trained_state()
    if policy.has_adapter:
        frozen = {k: v for k, v in policy.state_dict().items() if k not in trained}
        own = {k: v for k, v in trained.items() if ".reference" in k}
        reference = _checksum(frozen | own)
        both = digest(reference, _checksum({k: v for k, v in trained.items() if k not in own}))
    else:
        both = _checksum(trained)
        with policy.reference() as model:
            reference = _checksum(model.state_dict())
    more = str(policy.dtype), policy.device.type, list(policy.codec.stop_ids)
    return digest(both, *more), digest(reference, *more)


def _checksum(state: Mapping[str, Tensor]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        for part in torch.split(flat, _CHUNK):
            found.update(part.cpu().numpy().tobytes())
    return found.hexdigest()


def settings_of(value: object, depth: int = 0) -> Any:
    """An object's settings as plain values: those of a reward before it is connected.

    Private attributes count too. Of a path that exists, size and time of change are added, and of
    code outside of this package the checksum of its file, so that a changed file is noticed.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return [str(value), *_files(str(value))]
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(k): settings_of(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [settings_of(v, depth + 1) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if inspect.isroutine(value) or inspect.isclass(value):
        return _code([value])
    if dataclasses.is_dataclass(value) or type(value).__module__.split(".")[0] not in (
        *sys.stdlib_module_names,
        "torch",
    ):
        named = getattr(value, "__dict__", {})
        inner = {k: settings_of(v, depth + 1) for k, v in sorted(named.items())}
        return [_code(type(value).__mro__), inner]
    return type(value).__qualname__  # a lock, a pool of threads: decides nothing


def _code(objects: Iterable[Any]) -> list[str]:
    """The names of classes or functions; with a checksum of their files if they are not ours."""
    found = []
    for item in objects:
        module = getattr(item, "__module__", None) or ""
        name = f"{module}.{getattr(item, '__qualname__', '')}"
        path = getattr(sys.modules.get(module), "__file__", None)
        ours = module.split(".")[0] in (_PACKAGE, *sys.stdlib_module_names, "lightning", "torch")
        if path and not ours:
            name += hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
        found.append(name)
    return found


def _files(text: str) -> list[str]:
    """Size and time of change of the file, or of the files in the folder, that a text names."""
    if not text.strip("./ ") or len(text) > 1000 or "\n" in text:
        return []
    try:
        path = resolve(text)
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
        return [f"{file.name} {(s := file.stat()).st_size} {s.st_mtime_ns}" for file in files]
    except (OSError, ValueError, ImportError, RuntimeError):
        return []  # not a path
