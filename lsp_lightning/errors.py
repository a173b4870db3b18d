"""Errors that you can fix: one line with the key, the problem and the remedy. And warnings."""

import errno
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence

#: Most characters of the problem in a ConfigError: it may quote a value of any length.
_LONGEST = 2000
#: Control characters, invisible marks, halves of a surrogate pair, private use, line separators.
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
#: What a full or broken disk says.
_STORAGE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG))
#: How libraries in Rust (safetensors) quote an error of the system.
_QUOTED = re.compile(r"\(os error (\d{1,4})\)")


def printable(text: str, keep: str = "\n\t") -> str:
    """A text that is safe on a terminal and in a log, with unsafe characters as escapes.

    Escape sequences, marks that change the direction of text, zero-width characters and lone
    surrogates become ``\\x1b``, ``\\u202e`` and so on. Printable text of any script stays.

    Args:
        text: any text, such as an exception that quotes a player's answer.
        keep: unsafe characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in _UNPRINTABLE
        else c.encode("unicode_escape").decode("ascii")
        for c in text.replace("\r\n", "\n")
    )


def in_one_line(text: str) -> str:
    """A printable text without line breaks: each becomes a space."""
    return printable(" ".join(line.strip() for line in text.splitlines() if line.strip()), keep="")


class ConfigError(Exception):
    """A setting that cannot work; raised before a model is loaded whenever possible.

    Its text is one printable line, whatever the problem quotes. Not a ValueError: on one, the
    config parser tries the next type and hides the message.

    Args:
        key: the config key, as typed on the command line (``data.group_size``).
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        cut = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."
        super().__init__(in_one_line(f"{key}: {cut}; {remedy}"))
        self.key = key
        self.problem = problem
        self.remedy = remedy


def require_one_of(value: str, choices: Sequence[str], key: str) -> None:
    """Raise ConfigError unless a setting is one of its choices."""
    if value not in choices:
        raise ConfigError(key, f"is {value!r}", f"set one of {', '.join(choices)}")


def require_at_least(value: int, least: int, key: str, reason: str) -> None:
    """Raise ConfigError unless a setting is a whole number of at least ``least``.

    Args:
        value: the setting.
        least: the smallest value that works.
        key: the config key.
        reason: why a smaller value cannot work, for the message.
    """
    if not isinstance(value, int):  # the config parser accepts null for many types
        raise ConfigError(key, f"is {value!r}", f"set a whole number, {least} or more")
    if value < least:
        raise ConfigError(key, f"is {value}, but {reason}", f"set {least} or more")


def require_number(
    value: float,
    key: str,
    *,
    least: float | None = None,
    above: float | None = None,
    otherwise: str = "",
) -> None:
    """Raise ConfigError unless a setting is a finite number, and not too small.

    NaN passes a check like ``if value < least``, so it needs this one.

    Args:
        value: the setting.
        key: the config key.
        least: the smallest value that works, if there is one.
        above: a value that the setting must exceed, if there is one.
        otherwise: the end of the remedy: what else can be set.
    """
    wanted = "a finite number"
    if least is not None:
        wanted += f", {least} or more"
    if above is not None:
        wanted += f" above {above}"
    works = isinstance(value, int | float) and math.isfinite(value)
    works = works and (least is None or value >= least) and (above is None or value > above)
    if not works:
        raise ConfigError(key, f"is {value!r}", f"set {wanted}{otherwise}")


class Diverged(Exception):
    """Training cannot continue: a weight is not finite, or no round has a finite gradient.

    Args:
        cause: what is not finite, and in which round.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"training diverged: {cause}; lower the learning rate (model.optimizer.init_args.lr) "
            "or the scale of the rewards, and start again or resume from an earlier checkpoint "
            "(checkpoints/previous.ckpt, if the run has one)"
        )


class OutOfMemory(Exception):
    """Memory ran out, and the work cannot be split into smaller parts.

    Args:
        key: the config key of the token budget.
        longest: tokens of the single row that does not fit.
    """

    def __init__(self, key: str, longest: int) -> None:
        super().__init__(
            f"{key}: a single row of {longest} tokens does not fit into memory; "
            "lower max_new_tokens, or run `lsp-lightning plan` to see what else to change"
        )


class SelfPlayWarning(UserWarning):
    """A warning of this package."""


def _through_filters(message: str) -> None:
    """Show a warning as Python does, but without a line of code: filters that other libraries set
    for their modules must not hide it."""
    warnings.warn_explicit(message, SelfPlayWarning, __package__, 1, module=__package__)


#: Shows a warning; the command line prints one line instead.
show_warning: Callable[[str], None] = _through_filters
_warned: set[str] = set()


def warn(message: str, kind: str | None = None) -> None:
    """Warn once in this process.

    Args:
        message: one line: the key, what is wrong, what to do.
        kind: what makes it the same warning as an earlier one; None is the message itself. Pass it
            if the message contains a count or the number of a round.
    """
    if (kind or message) not in _warned:
        _warned.add(kind or message)
        show_warning(message)


class WriteError(Exception):
    """A file of a run could not be written. What was written before is kept.

    Args:
        path: the file.
        reason: what the system says.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(
            in_one_line(
                f"cannot write {os.fspath(path)!r}: {reason}; "
                "free space or fix the disk, and try again"
            )
        )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it, from the last to the first; each once.

    Chains can be rings: TensorBoard and Lightning make one when a disk is full.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def system_error(error: BaseException) -> OSError | None:
    """The error of the operating system behind an exception, in its own words; None without one.

    Libraries wrap it (torch), say it in other words (Arrow), or quote its number (safetensors).
    """
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return OSError(cause.errno, os.strerror(cause.errno), cause.filename)
        quoted = _QUOTED.search(str(cause))
        if quoted:
            return OSError(int(quoted[1]), os.strerror(int(quoted[1])))
    return None


def storage_failure(error: BaseException) -> str | None:
    """What the system says if a full or broken disk is behind an exception; else None."""
    found = system_error(error)
    return found.strerror if found is not None and found.errno in _STORAGE else None
