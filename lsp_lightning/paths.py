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


def require_file(path: str, key: str) -> Path:
    """The local path of an existing file.

    Raises:
        ConfigError: the file does not exist, or its package is not installed.
    """
    remedy = "give the path of an existing file"
    try:
        resolved = resolve(path)
        exists, is_folder = resolved.is_file(), resolved.is_dir()
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigError(
            key, f"the package in {path!r} is not installed", "check the name after 'pkg:'"
        ) from error
    except (OSError, RuntimeError) as error:  # a name that is too long, no home folder
        raise ConfigError(key, f"no file {path!r} ({error})", remedy) from error
    if not exists:
        problem = f"{path!r} is a folder" if is_folder else f"no file {path!r}"
        raise ConfigError(key, problem, remedy)
    return resolved
