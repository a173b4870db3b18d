"""Errors that you can fix: one line with the key, the problem and the remedy."""

from collections.abc import Sequence


class ConfigError(Exception):
    """A setting that cannot work; raised before a model is loaded whenever possible.

    Not a ValueError: on one, the config parser tries the next type and hides the message.

    Args:
        key: the config key, as typed on the command line (``data.group_size``).
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{key}: {problem}; {remedy}")
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
