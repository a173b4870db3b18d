"""The form in which texts are compared with each other."""

from lsp_lightning.text.fencing import fold

#: Only the beginning of a text is compared, so that long texts stay cheap.
_COMPARED_CHARACTERS = 500


def beginning(text: str) -> str:
    """The part of a text that is looked at."""
    return text[:_COMPARED_CHARACTERS]


def compared(text: str) -> str:
    """The form in which texts are compared: without case, white space and invisible characters."""
    return " ".join(fold(beginning(text)).casefold().split())
