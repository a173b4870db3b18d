"""Print a model's text on a terminal: escaped, on one line, cut or wrapped to a width."""

import os
import unicodedata
from typing import TextIO

from lsp_lightning.errors import printable

#: Printable characters that show nothing, beyond those of the categories below.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_LINE_BREAK = "\u23ce"
#: Marks over one letter that a terminal still shows legibly; more would paint over other lines.
_MARKS = 2
_WIDTH = 80


def escaped(text: str) -> str:
    r"""The text on one line, with every character that could control a terminal spelled out.

    Control characters (ESC), marks of the text direction, zero-width and other invisible
    characters become ``\x1b``, ``\u202e`` and so on. A line break becomes a return symbol. More
    than two combining marks in a row are spelled out too.
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\n", _LINE_BREAK).replace("\t", " ")
    shown: list[str] = []
    marks = 0
    for char in printable(text, keep=""):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if char in _INVISIBLE or marks > _MARKS:
            char = char.encode("unicode_escape").decode("ascii")
        shown.append(" " if category == "Zs" else char)
    return "".join(shown)


def cut(text: str, width: int) -> str:
    """The beginning of an escaped text, at most ``width`` columns wide; "..." ends what is cut."""
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += _columns_of(char)
        if used > width - 3:
            break
        kept.append(char)
    return ("".join(kept).rstrip() + "...")[: max(width, 0)]


def width_of(stream: TextIO) -> int:
    """Columns of the terminal that a stream writes to; for a file or a pipe $COLUMNS, or 80."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (OSError, ValueError, AttributeError):  # no terminal; closed; not a file
        typed = os.environ.get("COLUMNS", "")
        return int(typed) if typed.isdecimal() and int(typed) > 0 else _WIDTH


def columns(text: str) -> int:
    """Columns that an escaped text takes on a terminal; wide characters take two."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrap(text: str, width: int, lines: int) -> list[str]:
    """An escaped text as at most ``lines`` lines of ``width`` columns; "..." ends what is cut."""
    wrapped: list[str] = []
    while len(wrapped) < lines - 1 and columns(text) > width:
        end, used = 0, 0
        while end < len(text) and used + _columns_of(text[end]) <= width:
            used += _columns_of(text[end])
            end += 1
        space = text.rfind(" ", 0, end + 1)
        end = space if space > width // 2 else max(end, 1)
        wrapped.append(text[:end])
        text = text[end:].lstrip(" ")
    return [*wrapped, cut(text, width)]
