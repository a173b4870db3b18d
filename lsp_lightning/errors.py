"""The errors a user can mend: one line that names the key and the remedy."""

from collections.abc import Sequence


class ConfigError(Exception):
    """A setting that cannot work, found before any model is loaded where that is possible.

    Not a ValueError: parsers take those for "try the next type" and would hide the line.

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
    """Whether a setting is one of the names it can have.

    Raises:
        ConfigError: it is not.
    """
    if value not in choices:
        raise ConfigError(key, f"is {value!r}", f"set one of {', '.join(choices)}")


def require_at_least(value: int, least: int, key: str, reason: str) -> None:
    """Whether a setting reaches its least value.

    Raises:
        ConfigError: it does not, for this reason.
    """
    if not isinstance(value, int):  # null passes for many types
        raise ConfigError(key, f"is {value!r}", f"set a whole number, {least} or more")
    if value < least:
        raise ConfigError(key, f"is {value}, but {reason}", f"set {least} or more")


class OutOfMemory(Exception):
    """Memory ran out, and there is nothing left that could be done in smaller parts.

    Args:
        key: the config key that says how much is done at once.
        longest: tokens of the single row that does not fit.
    """

    def __init__(self, key: str, longest: int) -> None:
        super().__init__(
            f"{key}: a single row of {longest} tokens does not fit into memory; "
            "lower max_new_tokens, or ask `plan` what else can be changed"
        )
