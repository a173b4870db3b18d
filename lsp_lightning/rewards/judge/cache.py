"""What a judge has said before, so that nobody asks it twice."""

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from lsp_lightning.errors import ConfigError

#: Replies that are kept in memory; the oldest go first. A file keeps all.
_IN_MEMORY = 10_000


class ReplyCache:
    """Replies by the content of what was asked, in memory or in an SQLite file.

    A copy, deep or pickled, opens the same file; in memory it begins empty.

    Args:
        path: the file, created if it is missing; None for memory.
        key: config key to name in errors.
        about: what a reply depends on beside its prompt, plain values.

    Raises:
        ConfigError: no folder for the file, or a file that is something else.
    """

    def __init__(self, path: str | None, key: str, about: tuple[str | float, ...]) -> None:
        self._arguments = (path, key, about)
        self._bounded = path is None
        self._about = about
        self._lock = Lock()
        self._database = _open(path, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def find(self, prompts: Iterable[str]) -> dict[str, str]:
        """The replies that are known, by prompt."""
        query = "SELECT reply FROM replies WHERE key = ?"
        try:
            with self._lock:
                execute = self._database.execute
                rows = {p: execute(query, (self._key(p),)).fetchone() for p in prompts}
        except sqlite3.Error as error:
            self._complain(error)
            return {}
        return {prompt: row[0] for prompt, row in rows.items() if row is not None}

    def keep(self, replies: Mapping[str, str]) -> None:
        """Remember replies by prompt."""
        rows = [(self._key(prompt), reply) for prompt, reply in replies.items()]
        try:
            with self._lock, self._database:
                self._database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)
                if self._bounded:
                    self._database.execute(
                        "DELETE FROM replies WHERE rowid <= (SELECT MAX(rowid) FROM replies) - ?",
                        (_IN_MEMORY,),
                    )
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: sqlite3.Error) -> None:
        """Without the cache a run is dearer; it must not end for that."""
        warnings.warn(f"the cache of replies fails ({error}); the judge is asked", stacklevel=3)

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(json.dumps([*self._about, prompt]).encode()).hexdigest()


def _open(path: str | None, key: str) -> sqlite3.Connection:
    file = Path(path or ":memory:").expanduser()
    if not file.parent.is_dir():
        raise ConfigError(key, f"no folder {str(file.parent)!r}", "create it first")
    try:
        # rounds may be judged in other threads than the one that makes the reward
        database = sqlite3.connect(file, timeout=5, check_same_thread=False)
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)"
            )
        database.execute("SELECT key, reply FROM replies LIMIT 1")
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        state = str(error)
    if state != "ok":
        raise ConfigError(
            key, f"{path!r} is no cache of replies ({state})", "delete it or give another path"
        )
    return database
