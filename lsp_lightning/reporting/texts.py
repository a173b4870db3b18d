"""Text of a run for a page: escaped, cut, numbers short. A run may be a stranger's."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsp_lightning.errors import in_one_line
from lsp_lightning.text.terminal import escaped

#: A larger file of results was not written by this package.
_MOST_BYTES = 20_000_000


def shown(text: object, limit: int) -> str:
    """A text with its line breaks, in which every control or invisible character is spelled out.

    Args:
        text: any text, such as a model's answer.
        limit: most characters; the end says how many more there were.
    """
    whole = str(text)
    # the escapes of what is cut off cost nothing: an answer may have megabytes
    lines = whole[:limit].replace("\r\n", "\n").replace("\t", "    ").split("\n")
    page = "\n".join(map(escaped, lines))
    cut_off = max(len(whole), len(page)) - limit
    return page if cut_off <= 0 else f"{page[:limit].rstrip()} ... ({cut_off:,} more)"


def short(value: object) -> float | None:
    """A number with four digits; None for what is no finite number, which JSON cannot hold."""
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def figure(value: float | None) -> str:
    """A number as a reader wants it: 0.34, 12.5, 1,204; "-" for none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or 0.01 <= abs(value) < 10:
        return f"{value:.2f}"
    if abs(value) < 0.01:
        return f"{value:.1g}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def read_json(path: Path, skipped: Callable[[str], None]) -> Any:
    """What a JSON file holds; None if it cannot be read.

    Args:
        path: the file.
        skipped: called with one line about a file that cannot be read.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("not a file")
        if path.stat().st_size > _MOST_BYTES:
            raise OSError(f"larger than {_MOST_BYTES // 10**6} MB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        skipped(f"skipped {path.name}: {in_one_line(str(error))[:200]}")
        return None
