"""The run's figures: metrics.csv, which a resumed run goes on with, and TensorBoard's curves."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


class RunTable(CSVLogger):
    """``metrics.csv``, flushed every round.

    Args:
        folder: the run's folder.
        keep: go on with the rows of earlier rounds; rows of rounds that are played again are
            dropped.
    """

    def __init__(self, folder: str | Path, keep: bool = False) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._path = Path(folder) / "metrics.csv"
        self._old_rows: list[dict[str, Any]] = []
        if keep and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._old_rows = list(csv.DictReader(file))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        """Add a row; before the first one, the kept rows of earlier rounds."""
        if self._old_rows and step is not None:
            earlier = [row for row in self._old_rows if int(row["step"]) < step]
            self._old_rows = []
            self.experiment.metrics.extend(
                {k: v for k, v in row.items() if v != ""} for row in earlier
            )
        super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the run's settings are in config.yaml."""


class RunCurves(TensorBoardLogger):
    """TensorBoard events in the run's folder itself.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="")

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's settings are in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Flush the events; no second file of settings."""
        self.experiment.flush()
