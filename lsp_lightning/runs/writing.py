"""Write a run's files so that neither a crash nor a full disk leaves half a file."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsp_lightning.errors import ConfigError, WriteError, system_error, warn


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a WriteError that names the file.

    Raises:
        WriteError: the system could not write it.
    """
    try:
        yield
    except (ConfigError, WriteError):
        raise
    except Exception as error:  # each library has its own class
        found = system_error(error)
        if found is None:
            raise
        raise WriteError(path, found.strerror or str(found)) from error


def put_in_place(partial: Path, path: Path, before: Path | None = None) -> None:
    """Rename a whole file over ``path``, after flushing it to the disk.

    Args:
        partial: the new file, in the same folder.
        path: its name from now on.
        before: where the file that had this name is kept; None drops it.
    """
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    if before is not None and path.is_file():
        _keep(path, before)
    partial.replace(path)
    _flush_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file so that a crash leaves the old one or the new one. -> where to write."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    put_in_place(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves the old one or the new one."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def set_aside(path: Path) -> None:
    """Rename a damaged file that the run does not need, and warn."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    warn(f"{str(path)!r} is damaged; the run continues without it and keeps it as {aside.name!r}")


def _keep(path: Path, before: Path) -> None:
    """Move a file to another name. It gets a second name first, so it always has one."""
    second = before.with_name(before.name + ".partial")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # this file system has no hard links
        path.replace(before)
    else:
        second.replace(before)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; Windows cannot open a folder."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            # some network drives flush files only
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(opened)
