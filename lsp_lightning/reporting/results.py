"""The results of ``evaluate`` and ``crossplay`` that lie in a run's folder, checked and escaped."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsp_lightning.reporting.texts import read_json, short, shown

#: Most files, rows of a table, and players on the page.
_MOST_FILES, _MOST_ROWS, _MOST_PLAYERS = 50, 500, 100
_CELL, _NOTE, _SETTINGS = 200, 2000, 20_000


@dataclass(frozen=True)
class Evaluation:
    """A table of results, as text."""

    title: str
    note: str
    """How to read it."""
    made: str
    """When, and after how many rounds."""
    columns: list[str]
    rows: list[list[str]]
    settings: str
    """What was evaluated and how, as JSON."""


@dataclass(frozen=True)
class CrossPlay:
    """Each player as Challenger against each player as Solver. ``P`` players."""

    players: list[str]
    solve_rate: list[list[float | None]]
    """(P, P): [challenger][solver], mean R as a share of its range; None: not judged."""
    standard_error: list[list[float | None]]
    """(P, P)"""
    ratings: list[list[str]]
    """A row for each player: its name and, where known, its ratings and malformed queries."""
    columns: list[str]
    """The header of ``ratings``."""
    note: str
    games: str
    """How many queries and answers each cell stands for."""


def read_evaluations(folder: Path, skipped: Callable[[str], None]) -> list[Evaluation]:
    """The evaluations of a run, in the order of their files' names.

    Args:
        folder: the folder of the JSON files; it need not exist.
        skipped: called with one line about each file that cannot be read.
    """
    paths = sorted(folder.glob("*.json"))
    if len(paths) > _MOST_FILES:
        skipped(f"the first {_MOST_FILES} of {len(paths)} files of {folder.name}/ are shown")
    found = []
    for path in paths[:_MOST_FILES]:
        value = read_json(path, skipped)
        evaluation = _evaluation(value, path.stem)
        if evaluation is not None:
            found.append(evaluation)
        elif value is not None:
            skipped(f"skipped {path.name}: it holds no table of results")
    return found


def _evaluation(value: Any, name: str) -> Evaluation | None:
    table = value.get("table") if isinstance(value, dict) else None
    if not isinstance(table, dict):
        return None
    columns, rows = table.get("columns"), table.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return None
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        return None
    made = [shown(value.get("created", ""), 40)]
    if type(value.get("rounds")) is int:
        made.append(f"after {value['rounds']:,} rounds")
    settings = value.get("settings")
    return Evaluation(
        title=shown(value.get("title") or name, _CELL),
        note=shown(value.get("note") or "", _NOTE),
        made=", ".join(filter(None, made)),
        columns=[_cell(column) for column in columns],
        rows=[[_cell(cell) for cell in row] for row in rows[:_MOST_ROWS]],
        settings=shown(json.dumps(settings, indent=1), _SETTINGS) if settings else "",
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else shown(value, _CELL)


def read_crossplay(path: Path, skipped: Callable[[str], None]) -> CrossPlay | None:
    """The cross-play of a run; None if there is none.

    Args:
        path: the JSON file; it need not exist.
        skipped: called with one line if it cannot be read.
    """
    if not path.exists():
        return None
    value = read_json(path, skipped)
    found = _crossplay(value)
    if found is None and value is not None:
        skipped(f"skipped {path.name}: it holds no matrix of players")
    return found


def _crossplay(value: Any) -> CrossPlay | None:
    players = value.get("players") if isinstance(value, dict) else None
    if not isinstance(players, list) or not 0 < len(players) <= _MOST_PLAYERS:
        return None
    size = len(players)
    rates = _matrix(value.get("solve_rate"), size)
    if rates is None:
        return None
    names = [shown(player, 60) for player in players]
    found = value.get("ratings")
    ratings = found if isinstance(found, dict) else {}
    table: dict[str, list[str] | None] = {
        "as Solver": _intervals(ratings.get("solver"), size),
        "as Challenger": _intervals(ratings.get("challenger"), size),
        "malformed queries": _shares(value.get("malformed"), size),
    }
    filled = {name: column for name, column in table.items() if column is not None}
    counts = (value.get("n"), value.get("group_size"))
    known = all(type(count) is int for count in counts)
    return CrossPlay(
        players=names,
        solve_rate=rates,
        standard_error=_matrix(value.get("standard_error"), size) or [[None] * size] * size,
        ratings=[[names[i], *(column[i] for column in filled.values())] for i in range(size)],
        columns=["player", *filled] if filled else [],
        note=shown(value.get("note") or "", _NOTE),
        games="{:,} queries of each Challenger x {:,} answers".format(*counts) if known else "",
    )


def _matrix(value: Any, size: int) -> list[list[float | None]] | None:
    """Numbers of the right shape, or None."""
    if not isinstance(value, list) or len(value) != size:
        return None
    if not all(isinstance(row, list) and len(row) == size for row in value):
        return None
    return [[short(cell) for cell in row] for row in value]


def _intervals(value: Any, size: int) -> list[str] | None:
    """Ratings with their intervals as text."""
    if not isinstance(value, list) or len(value) != size:
        return None
    cells = []
    for item in value:
        found = item if isinstance(item, dict) else {}
        numbers = [short(found.get(key)) for key in ("rating", "low", "high")]
        rating, low, high = numbers
        text = "-" if rating is None else f"{rating:+.2f}"
        if rating is not None and low is not None and high is not None:
            text += f" [{low:+.2f}, {high:+.2f}]"
        cells.append(text)
    return cells


def _shares(value: Any, size: int) -> list[str] | None:
    if not isinstance(value, list) or len(value) != size:
        return None
    numbers = [short(item) for item in value]
    return ["-" if number is None else f"{number:.0%}" for number in numbers]
