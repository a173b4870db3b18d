"""A run's metrics: the table metrics.csv, and curves for TensorBoard."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lsp_lightning.errors import system_error, warn
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import replacing, set_aside, writing

Row = dict[str, Any]


class RunTable(Logger):
    """Writes ``metrics.csv`` in the run's folder; each row is on the disk as soon as it is logged.

    A resumed run keeps the rows of earlier rounds and drops those of rounds that it plays again.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._path = RunFolder(folder).metrics_path
        self._columns: list[str] = []
        self._started = False
        self._ahead: Row | None = None

    @property
    def name(self) -> str:
        """Empty: files go into the run's folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty: files go into the run's folder itself."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Append a row.

        Raises:
            WriteError: it could not be written (a full disk).
        """
        row: Row = {"step": step or 0, **{k: float(v) for k, v in metrics.items()}}
        ahead, self._ahead = self._ahead, None
        with writing(self._path):
            if ahead is None or ahead["step"] != row["step"]:
                self._append(row)
            elif not set(row) <= set(ahead):  # a user's callback logs more
                self._rewrite(self._rows()[:-1], {**ahead, **row})
                self._append({**ahead, **row})

    def log_ahead(self, metrics: Mapping[str, Tensor | float], step: int) -> None:
        """Append a round's row now. Lightning logs it again, but only after the checkpoint is
        written; a run that is killed in between would lose the row."""
        self.log_metrics(metrics, step)
        self._ahead = {"step": step, **metrics}

    def _append(self, row: Row) -> None:
        if not self._started:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._rewrite([old for old in self._rows() if int(old["step"]) < row["step"]], row)
            self._started = True
        elif not set(row) <= set(self._columns):
            self._rewrite(self._rows(), row)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the run's settings are in config.yaml."""

    def _rows(self) -> list[Row]:
        """The rows of the file. A damaged file is set aside: training does not need it."""
        if not self._path.is_file():
            return []
        try:
            text = self._path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a crash may have cut off the last line
            rows = list(csv.DictReader(io.StringIO(whole, newline=""), strict=True))
            for row in rows:
                int(row["step"])
                for value in row.values():
                    float(value or 0)
        except (ValueError, KeyError, TypeError, csv.Error):
            set_aside(self._path)
            return []
        return rows

    def _rewrite(self, rows: list[Row], new: Row) -> None:
        """Write the table again, with columns for ``new`` too."""
        names = {name for row in (*rows, new) for name in row}
        self._columns = ["step", *sorted(names - {"step"})]
        with replacing(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, self._columns)
            writer.writeheader()
            writer.writerows(rows)


class RunCurves(TensorBoardLogger):
    """Writes TensorBoard events into the run's folder itself.

    They repeat ``metrics.csv``, so the run continues without them if they cannot be written.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="")
        self._failed = False

    @property
    def log_dir(self) -> str:
        """The run's folder. TensorBoardLogger would take a ``$`` in it for a variable."""
        return str(self.save_dir)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a point to each curve."""
        self._attempt(partial(super().log_metrics, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write the settings as text, which TensorBoard shows beside the curves."""
        self.experiment.add_text("config", f"```\n{json.dumps(params, indent=2, default=str)}\n```")

    @rank_zero_only
    def save(self) -> None:
        """Flush the events, and write no second file of settings."""
        self._attempt(lambda: self.experiment.flush())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file of events."""
        self._attempt(partial(super().finalize, status))

    def _attempt(self, write: Callable[[], None]) -> None:
        """Call ``write`` unless a call before failed; warn if this one does."""
        if self._failed:
            return
        try:
            write()
        except Exception as error:  # TensorBoard and Lightning wrap it in their own
            found = system_error(error)
            if found is None:
                raise
            self._failed = True
            warn(
                f"cannot write the TensorBoard events in {str(self.save_dir)!r}: "
                f"{found.strerror}; the run continues without them"
            )
