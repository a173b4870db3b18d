"""Paths in a config: a file or folder, or ``pkg:package/rest`` for a path inside a package."""

from importlib.resources import files
from pathlib import Path

from lsp_lightning.errors import ConfigError

_PACKAGE_SCHEME = "pkg:"


def resolve(path: str) -> Path:
    """Turn a path of a config into a local path.

    Raises:
        ModuleNotFoundError: ``pkg:`` names a package that is not installed.
    """
    if path.startswith(_PACKAGE_SCHEME):
        package, _, rest = path.removeprefix(_PACKAGE_SCHEME).partition("/")
        return Path(str(files(package))) / rest
    return Path(path).expanduser()


def require_path(path: str, key: str) -> Path:
    """The local path that a config names, whether or not something is there.

    Raises:
        ConfigError: it cannot be a path here, or its package is not installed.
    """
    try:
        resolved = resolve(path)
        resolved.is_file()  # some names are refused only when the system is asked
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(
            key, f"the package in {path!r} is not installed", "check the name after 'pkg:'"
        ) from error
    except (OSError, RuntimeError) as error:  # a name that is too long, no home folder
        raise ConfigError(key, f"no path {path!r} ({error})", "give an existing path") from error
    return resolved


def require_file(path: str, key: str) -> Path:
    """The local path of an existing file.

    Raises:
        ConfigError: the file does not exist, or its package is not installed.
    """
    resolved = require_path(path, key)
    if not resolved.is_file():
        problem = f"{path!r} is a folder" if resolved.is_dir() else f"no file {path!r}"
        raise ConfigError(key, problem, "give the path of an existing file")
    return resolved
