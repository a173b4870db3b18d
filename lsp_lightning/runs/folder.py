"""A run's folder: the names of its files, and their contents as plain values.

Imports nothing heavy: the command line reads a run's config before torch is loaded.
"""

import csv
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError, warn

#: A file that reserves a folder for a run that has not written anything yet.
CLAIM = ".claimed"
#: The two checkpoints that a run keeps.
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"

#: How the config of a run begins, and what comes last in it: a run may lack either, but not both.
_WRITTEN_BY_A_RUN = "# lightning.pytorch=="
_LAST_SETTINGS = re.compile(r"^(?:examples:\n .*\n|ckpt_path:)", re.MULTILINE)
_REMEDY = "give the folder of a run, such as runs/tiny_lsp"


class RunFolder:
    """The folder of a run. Each file is read when its method is called.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> "RunFolder":
        """The folder of the run that wrote a checkpoint into ``checkpoints/``."""
        return cls(Path(checkpoint).resolve().parent.parent)

    @property
    def config_path(self) -> Path:
        """All settings of the run, as YAML that ``fit --config`` takes."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The metrics of each round, as CSV."""
        return self.path / "metrics.csv"

    @property
    def summary_path(self) -> Path:
        """Rounds, seconds and held-out scores, as JSON; written when the run ends."""
        return self.path / "summary.json"

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint of the last round."""
        return self.path / "checkpoints" / LAST

    @property
    def previous_checkpoint_path(self) -> Path:
        """The checkpoint before the last, in case that one is damaged."""
        return self.path / "checkpoints" / PREVIOUS

    @property
    def snapshots_path(self) -> Path:
        """Folder of the adapters that a run keeps, see ``checkpoint.snapshots``."""
        return self.path / "snapshots"

    def snapshot_path(self, rounds: int) -> Path:
        """Folder of the adapter after so many rounds."""
        return self.snapshots_path / f"round-{rounds:05}"

    def snapshots(self) -> dict[int, Path]:
        """The folders of the kept adapters by the number of rounds that they had played."""
        found = {}
        for path in sorted(self.snapshots_path.glob("round-*")):
            number = path.name.removeprefix("round-")
            if number.isdecimal() and path.is_dir():
                found[int(number)] = path
        return dict(sorted(found.items()))

    @property
    def transcripts_path(self) -> Path:
        """Folder of the queries and answers, as Parquet files."""
        return self.path / "transcripts"

    @property
    def crossplay_path(self) -> Path:
        """The result of ``crossplay``, as JSON."""
        return self.path / "crossplay.json"

    @property
    def predictions_path(self) -> Path:
        """The answers that ``predict`` wrote, as JSON lines."""
        return self.path / "predictions.jsonl"

    @property
    def evaluations_path(self) -> Path:
        """Folder of the results of ``evaluate``, one JSON file each."""
        return self.path / "evaluations"

    @property
    def warnings_path(self) -> Path:
        """The warnings about a collapse, as JSON lines."""
        return self.path / "warnings.jsonl"

    @property
    def report_path(self) -> Path:
        """The page that ``report`` writes by default."""
        return self.path / "report.html"

    @property
    def wandb_id_path(self) -> Path:
        """The id of this run at W&B; written if the run has a WandbLogger."""
        return self.path / "wandb_id"

    @property
    def export_path(self) -> Path:
        """Folder that ``export`` writes to by default."""
        return self.path / "export"

    def weights_path(self, has_adapter: bool) -> Path:
        """Folder of the trained adapter, or of the model if all weights were trained."""
        return self.path / ("adapter" if has_adapter else "model")

    def config(self) -> dict[str, Any]:
        """The run's settings.

        Raises:
            ConfigError: there is no config, or it cannot be read.
        """
        import yaml

        text = self._text(self.config_path)
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise self._unreadable(self.config_path, error) from error
        if not isinstance(found, dict):
            raise self._unreadable(self.config_path, "not a mapping of keys to values")
        return found

    def config_is_whole(self) -> bool:
        """Whether the config ends where a run ends it; True for one that no run has written.

        YAML that is cut off at the end of a line is YAML too, with fewer settings.
        """
        with suppress(OSError, UnicodeDecodeError):
            text = self.config_path.read_text(encoding="utf-8")
            if text.startswith(_WRITTEN_BY_A_RUN):
                return _LAST_SETTINGS.search(text) is not None
        return True

    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv``, each with the metrics that were logged at its ``step``.

        There is a row for each round and for each scoring of the held-out tasks.

        Raises:
            ConfigError: there are no metrics, or they cannot be read.
        """
        table = csv.DictReader(self._text(self.metrics_path).splitlines())
        try:
            return [{name: float(value) for name, value in row.items() if value} for row in table]
        except (TypeError, ValueError, csv.Error) as error:  # cut off by a crash, changed by hand
            raise self._unreadable(self.metrics_path, error) from error

    def summary(self) -> dict[str, Any]:
        """Rounds, seconds and held-out scores of a run that has ended.

        Raises:
            ConfigError: the run has not ended, or its summary cannot be read.
        """
        text = self._text(self.summary_path)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise self._unreadable(self.summary_path, error) from error
        if not isinstance(found, dict):
            raise self._unreadable(self.summary_path, "not a JSON object")
        return found

    def warnings(self) -> list[dict[str, Any]]:
        """The warnings of a collapse: each has a ``round``, a ``symptom`` and a ``text``.

        Empty if there are none; lines that are no warnings are skipped.
        """
        with suppress(OSError, UnicodeDecodeError):
            lines = self.warnings_path.read_text(encoding="utf-8").split("\n")
            return [found for line in lines if (found := _warning(line)) is not None]
        return []

    def transcripts(self, skipped: Callable[[str], None] = warn) -> list[dict[str, Any]]:
        """One row for each answer: its round, query, text, scores and findings about the query.

        ``R`` and ``Q`` are None where they could not be judged. A query that the gate refused has
        one row without an answer (None), and the reason as ``refused``. The run may still be
        playing.

        Args:
            skipped: called with one line about each file that cannot be read.

        Raises:
            ConfigError: the folder is not a run's, or holds no transcripts.
        """
        from lsp_lightning.runs.transcripts import read_transcripts

        if not self.path.is_dir():
            raise ConfigError("run", f"no folder {str(self.path)!r}", _REMEDY)
        if not any(path.exists() for path in (self.config_path, self.transcripts_path)):
            raise ConfigError("run", f"{str(self.path)!r} is not the folder of a run", _REMEDY)
        rows = read_transcripts(self.transcripts_path, skipped)
        if not rows:
            remedy = "play a round first; transcripts.every: 0 keeps none"
            raise ConfigError("run", f"no transcripts in {str(self.path)!r}", remedy)
        return rows

    def _text(self, path: Path) -> str:
        if not self.path.is_dir():
            raise ConfigError("run", f"no folder {str(self.path)!r}", _REMEDY)
        if not path.is_file():
            remedy = "give the folder of a run that has written it"
            raise ConfigError("run", f"no {path.name} in {str(self.path)!r}", remedy)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: Path, reason: object) -> ConfigError:
        problem = f"cannot read {str(path)!r} ({reason})"
        return ConfigError("run", problem, "fix or restore the file")


def _warning(line: str) -> dict[str, Any] | None:
    """A line of ``warnings.jsonl``; None if it is not a warning."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(found.get("round")) is not int:
        return None
    whole = all(isinstance(found.get(name), str) for name in ("symptom", "text"))
    return found if whole else None
