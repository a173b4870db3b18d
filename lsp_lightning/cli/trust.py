"""What the config beside a checkpoint may do, unless you add ``--trust``.

A config is code: it names classes and functions that are imported and called. You are
responsible for a config that you give by ``--config``. The one beside a checkpoint may be a
stranger's, so it may name only classes of this package, optimisers, schedulers, loggers and
callbacks of torch, Lightning and bitsandbytes, and whatever you type in the same command.
"""

import ipaddress
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lsp_lightning.errors import ConfigError

#: Flag of every command that takes a checkpoint.
TRUST = "--trust"
#: What to do about a config that may not do something.
REMEDY = f"add {TRUST} if you trust this folder, or give your own config by --config"

#: Modules whose classes a config may always name; the parser checks the kind that a key needs.
_MODULES = (
    "torch.optim",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.cli.ReduceLROnPlateau",
    "lightning.fabric.loggers",
    "bitsandbytes.optim",
)
_OTHER_CLASSES = ("lsp_lightning.tinyworld.verifier.TinyWorldVerifier",)
#: Settings that name a folder to write to.
_WRITTEN = ("adapter_folder", "save_dir", "dirpath", "root_dir", "out")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


class Permissions:
    """What one command's config may do.

    Args:
        folder: the folder of the run that the config comes from.
        args: what the user typed; the values in it are allowed.
    """

    def __init__(self, folder: Path, args: Sequence[str]) -> None:
        self._folder = folder.resolve()
        self._typed = list(_typed_values(args))

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Let the config parser import nothing but what the config may name."""
        from jsonargparse import set_parsing_settings
        from jsonargparse._common import parsing_settings

        before = dict(parsing_settings)
        try:
            allowed = [*_MODULES, *_package_classes(), *self._typed_objects()]
            set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=allowed)
            yield
        finally:
            parsing_settings.update(before)

    def check(self, config: Any) -> None:
        """Check the parsed config of a command.

        Raises:
            ConfigError: it sends texts or a key to another machine, or writes outside the run's
                folder.
        """
        _check_files(self._folder)
        self.check_values(config)

    def check_values(self, config: Any) -> None:
        """The same for the config alone, without a look at the folder's files."""
        for key, value in leaves_of(config):
            name = re.split(r"[.\[]", key)[-1]
            if not isinstance(value, str | Path) or self._is_typed(str(value)):
                continue
            if name == "api_key_env":
                raise ConfigError(key, "the run's config sends your key to a server", REMEDY)
            if "://" in str(value) and not _is_local(str(value)):
                raise ConfigError(key, "the run's config names another machine", REMEDY)
            writes = name in _WRITTEN or key.startswith(("trainer.logger", "trainer.callbacks"))
            if writes and not self._is_inside(str(value)):
                problem = f"the run's config writes to {str(value)!r}, outside the run's folder"
                raise ConfigError(key, problem, REMEDY)

    def _is_typed(self, value: str) -> bool:
        return any(value == typed or f'"{value}"' in typed for typed in self._typed)

    def _is_inside(self, value: str) -> bool:
        """Whether a value is a name, a path below the working directory, or in the run's folder."""
        path = Path(value)
        if "~" in value or ".." in path.parts:
            return False
        return not path.is_absolute() or path.resolve().is_relative_to(self._folder)

    def _typed_objects(self) -> Iterator[str]:
        """Import paths that the user typed, and where the objects behind them are defined."""
        from jsonargparse._util import canonical_import_paths, import_object

        for value in self._typed:
            for path in _DOTTED.findall(value):
                if path == value or f'"{path}"' in value:
                    yield path
                    with suppress(Exception):  # the parser reports it where it is needed
                        if not Path(path).exists():  # a file such as tasks.jsonl
                            yield from canonical_import_paths(import_object(path, check_path=False))


def _check_files(folder: Path) -> None:
    """Raise ConfigError if a command that writes into a run's folder could write elsewhere."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            outside = path.is_symlink() and not path.resolve().is_relative_to(folder)
            if outside or not (path.is_symlink() or path.is_file() or path.is_dir()):
                what = "is a link out of the run's folder" if outside else "is not a file"
                remedy = f"remove it, or add {TRUST} if you trust this folder"
                raise ConfigError("ckpt_path", f"{str(path)!r} {what}", remedy)


def needs_trust(config: Any) -> bool:
    """Whether a command needs ``--trust`` to take this parsed config from a run's folder."""
    try:
        Permissions(Path(config.trainer.default_root_dir or ""), ()).check_values(config)
    except ConfigError:
        return True
    exported = set(_package_classes())
    allowed = tuple(f"{module}." for module in _MODULES)
    named = (path for _, value in leaves_of(config) for path in _code_paths(value))
    return any(path not in exported and not f"{path}.".startswith(allowed) for path in named)


def _code_paths(value: Any) -> Iterable[str]:
    """Import paths of the code that a value of a parsed config is or names."""
    from jsonargparse._util import canonical_import_paths

    if isinstance(value, str):
        # of the texts that look like import paths, those that can be followed from a module
        return [value] if _DOTTED.fullmatch(value) and _is_imported(value) else []
    # the parser leaves a function or a class in place of its path
    is_code = callable(value) and not isinstance(value, os.PathLike)
    return canonical_import_paths(value) if is_code else []


def _is_imported(path: str) -> bool:
    """Whether a dotted path leads from an imported module to an object."""
    parts = path.split(".")
    for k in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:k]))
        if found is not None:
            with suppress(Exception):
                for name in parts[k:]:
                    found = getattr(found, name)
                return True
    return False


def _package_classes() -> Iterator[str]:
    """Every path of every class that this package exports."""
    import inspect
    from importlib import import_module

    package = import_module("lsp_lightning")
    yield from _OTHER_CLASSES
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value):
            parts = value.__module__.split(".")
            yield from (".".join([*parts[:k], name]) for k in range(1, len(parts) + 1))


def _typed_values(args: Sequence[str]) -> Iterator[str]:
    """The values of all flags, except for the checkpoint: its folder's name is not the user's."""
    for before, arg in zip(["", *args], args, strict=False):
        flag, equals, value = arg.partition("=")
        if not arg.startswith("--"):
            flag, value = before, arg
        elif not equals:
            continue
        if flag != "--ckpt_path":
            with suppress(ValueError):  # JSON: quotes around every text
                value = json.dumps(json.loads(value)) if value[:1] in ("{", "[") else value
            yield value


def leaves_of(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The keys and values of a nested config."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves_of(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves_of(inner, f"{key}[{i}]")
    else:
        yield key, value


def _is_local(url: str) -> bool:
    """Whether a URL is of this machine."""
    with suppress(ValueError):
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False
