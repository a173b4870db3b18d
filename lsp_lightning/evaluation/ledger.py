"""Results of long work in a JSON Lines file, so that a command that was stopped goes on there."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsp_lightning.errors import warn


def digest(*parts: object) -> str:
    """A key that is equal only for equal parts, which are plain values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Ledger:
    """Results by key; each batch is on the disk before the next one is worked on.

    A line that is damaged (a crash, a full disk) is skipped with one warning, and its work is done
    again.

    Args:
        path: the file; it and its folder need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, Any] = {}
        if path.is_file():
            self._read()

    def _read(self) -> None:
        bad = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                entry: Any = None
                # a crash leaves any bytes; deep nesting is a RecursionError
                with suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self._found[entry["key"]] = entry.get("value")
                else:
                    bad += 1
        if bad:
            warn(f"{str(self.path)!r}: {bad} damaged lines are skipped; their work is done again")

    def get(self, key: str) -> Any:
        """The result, or None. It comes from a file, so the caller checks its form."""
        return self._found.get(key)

    def add(self, entries: Mapping[str, Any]) -> None:
        """Append results and flush them to the disk."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"key": k, "value": v}) + "\n" for k, v in entries.items()]
        with self.path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # the last line was cut off
                    lines.insert(0, "\n")
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._found |= entries
