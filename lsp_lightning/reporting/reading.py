"""Everything that a run's folder holds for a report. What is missing or damaged becomes a note."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from lsp_lightning.errors import ConfigError
from lsp_lightning.reporting.results import CrossPlay, Evaluation, read_crossplay, read_evaluations
from lsp_lightning.reporting.texts import shown
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.transcripts import read_transcripts

_REMEDY = "give the folder of a run, such as runs/tiny_lsp"
#: Most characters of the config on the page.
_MOST_CONFIG = 100_000
#: Most warnings on the page; the last ones are kept.
_MOST_WARNINGS = 200
#: What a report cannot show without a file.
_LACKING = {
    "metrics.csv": "no round has ended yet, so there are no curves",
    "config.yaml": "the settings are unknown",
}

Found = TypeVar("Found")


@dataclass(frozen=True)
class Warned:
    """A warning that the run printed about a collapse."""

    round: int | None
    """The round in which it was printed, from 0."""
    symptom: str
    text: str


@dataclass(frozen=True)
class Run:
    """The contents of a run's folder; a file that is absent leaves its field empty."""

    name: str
    """Its folder's name, escaped; with more of the path if two runs share it."""
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    """The config as it was written, escaped."""
    metrics: Sequence[dict[str, float]] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    """Empty while the run is playing."""
    rows: Sequence[dict[str, Any]] = ()
    """The rows of the transcripts, in the order of the rounds."""
    evaluations: Sequence[Evaluation] = ()
    crossplay: CrossPlay | None = None
    warnings: Sequence[Warned] = ()
    notes: Sequence[str] = ()
    """What could not be read or is not there yet, one line each, escaped."""

    @property
    def rounds(self) -> int:
        """How many rounds were played so far, by the metrics or else by the transcripts."""
        steps = [row["step"] for row in self.metrics if "step" in row and "reward" in row]
        steps += [row["round"] for row in self.rows[-1:]]
        return int(max(steps)) + 1 if steps else 0


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs, each with a name of its own.

    Raises:
        ConfigError: a folder is missing, is not a run's, or is given twice.
    """
    folders = [Path(path).resolve() for path in paths]
    for path, folder in zip(paths, folders, strict=True):
        _check_is_run(path)
        if folders.count(folder) > 1:
            raise ConfigError("report", f"{path!r} is given twice", "give each run once")
    return [read_run(f, name) for f, name in zip(folders, _names(folders), strict=True)]


def read_run(path: Path, name: str) -> Run:
    """Read all files of a run's folder; damaged ones are left out and noted."""
    folder, notes = RunFolder(path), list[str]()

    def read(file: Path, reader: Callable[[], Found], absent: Found) -> Found:
        if not file.exists():
            return absent
        try:
            return reader()
        except ConfigError as error:
            notes.append(error.problem)
            return absent

    config_text = read(folder.config_path, lambda: _config_text(folder), "")
    found = Run(
        name=name,
        config=read(folder.config_path, folder.config, {}),
        config_text=shown(config_text, _MOST_CONFIG),
        metrics=read(folder.metrics_path, folder.metrics, []),
        summary=read(folder.summary_path, folder.summary, {}),
        rows=read_transcripts(folder.transcripts_path, notes.append),
        evaluations=read_evaluations(folder.evaluations_path, notes.append),
        crossplay=read_crossplay(folder.crossplay_path, notes.append),
        warnings=_warnings(folder.warnings_path, notes.append),
    )
    for file, is_there in ((folder.metrics_path, found.metrics), (folder.config_path, config_text)):
        if not is_there and not file.exists():
            notes.append(f"no {file.name}: {_LACKING[file.name]}")
    if not found.rows:
        notes.append("no transcripts: play a round first; transcripts.every: 0 keeps none")
    if found.metrics and not folder.summary_path.exists():
        notes.append("no summary.json: the run has not ended, or was killed")
    # the messages quote files
    notes = [shown(note.replace(str(path), name), 500) for note in notes]
    return replace(found, notes=notes)


def _config_text(folder: RunFolder) -> str:
    try:
        is_file = folder.config_path.is_file()  # opening a pipe would wait for ever
        return folder.config_path.read_text(encoding="utf-8") if is_file else ""
    except (OSError, UnicodeDecodeError):
        return ""  # reading its settings says why


def _check_is_run(path: str) -> None:
    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise ConfigError("run", f"no folder {path!r}", _REMEDY)
    parts = (folder.config_path, folder.metrics_path, folder.transcripts_path)
    if not any(part.exists() for part in parts):
        raise ConfigError("run", f"{path!r} is not the folder of a run", _REMEDY)


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as it takes to tell the runs apart."""
    most = max(len(folder.parts) for folder in folders)
    for count in range(1, most + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return [shown(name, 80) for name in names]


def _warnings(path: Path, skipped: Callable[[str], None]) -> list[Warned]:
    if not path.exists():
        return []
    lines = _json_lines(path, skipped)
    found = []
    for line in lines[-_MOST_WARNINGS:]:
        number = line.get("round")
        known = number if type(number) is int else None
        symptom, text = (shown(line.get(key, ""), 1000) for key in ("symptom", "text"))
        found.append(Warned(known, symptom, text))
    if len(lines) > _MOST_WARNINGS:
        skipped(f"{path.name}: the last {_MOST_WARNINGS} of {len(lines):,} warnings are shown")
    return found


def _json_lines(path: Path, skipped: Callable[[str], None]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, without its damaged lines."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        skipped(f"skipped {path.name}: {error.strerror}")
        return []
    found, damaged = [], 0
    for line in filter(bytes.strip, content.split(b"\n")):
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            damaged += 1
    if damaged:
        skipped(f"skipped {damaged} damaged lines of {path.name}")
    return found
