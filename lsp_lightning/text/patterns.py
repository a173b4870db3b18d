"""Regular expressions for text of a model, which may be made to match slowly."""

import regex

from lsp_lightning.errors import ConfigError

_SECONDS = 0.05


class Pattern:
    """A regular expression of the regex package with a time limit; ``.`` matches line breaks too.

    Args:
        pattern: the expression.
        key: the config key, for the error.

    Raises:
        ConfigError: it is not a regular expression.
    """

    def __init__(self, pattern: str, key: str) -> None:
        try:
            self._pattern = regex.compile(pattern, regex.DOTALL)
        except regex.error as error:
            raise ConfigError(
                key, f"is not a regular expression ({error})", "fix the pattern"
            ) from error

    def matches(self, text: str) -> bool | None:
        """Whether it matches the whole text; None if that takes longer than 50 ms."""
        try:
            return self._pattern.fullmatch(text, timeout=_SECONDS) is not None
        except TimeoutError:
            return None
