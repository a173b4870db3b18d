"""Scores of one arm with one seed: what is to be measured, and what was found.

Imports nothing heavy: :mod:`lsp_lightning.reproduce.measure` does the work in its own process.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: The file in the folder of a run.
MEASURED = "measured.json"
#: Settings that name folders, which may be moved.
_PLACES = ("config", "challenger", "adapter", "met_in")


@dataclass(frozen=True)
class Spec:
    """What is measured, and how."""

    config: dict[str, Any]
    """The settings of the run, or of a run from the base."""
    challenger: dict[str, Any]
    """The Challenger that writes queries if the run has none."""
    adapter: str | None
    """Folder of the trained adapter; None measures the base."""
    met_in: tuple[str, ...]
    """Folders of the runs that trained it."""
    tasks: str
    """File of the tasks."""
    temperature: float
    """Temperature of sampled answers."""
    draws: int
    """Sampled answers to each task."""
    curve_draws: int
    """Sampled answers to some tasks, for pass@k; 0 for none."""
    curve_every: int
    """Every so many tasks get these."""
    queries: int
    """Queries that the Challenger writes; 0 for none."""
    seed: int
    """Fixes all that is sampled."""

    def identity(self) -> dict[str, Any]:
        """What decides the result, beside the weights."""
        return {name: value for name, value in asdict(self).items() if name not in _PLACES}

    def is_answered_by(self, path: Path) -> bool:
        """Whether a file has the result of exactly this."""
        try:
            return bool(json.loads(path.read_text(encoding="utf-8"))["spec"] == self.identity())
        except (OSError, ValueError, KeyError, TypeError):  # none, damaged, or not of this kind
            return False


@dataclass(frozen=True)
class Measured:
    """What was found. Tasks are in the order of their file."""

    right: tuple[int, ...]
    """Right ones of the sampled answers to each task."""
    draws: int
    """Sampled answers to each task."""
    greedy: tuple[int, ...]
    """1 for each task whose greedy answer is right, else 0."""
    met: tuple[int, ...]
    """1 for each task that was a query of the training, else 0."""
    levels: tuple[int, ...]
    """The level of each task; empty if tasks have none."""
    curve: tuple[int, ...]
    """Right ones of the many answers to the tasks of the curve."""
    curve_draws: int
    """Answers to each of these; 0 for no curve."""
    curve_every: int
    """These are every so many tasks, from the first one."""
    queries: Mapping[str, float]
    """Figures of the queries that the Challenger wrote; empty if it wrote none."""

    def write(self, path: Path, spec: Spec) -> None:
        """Write it; each list of numbers as a text, which is short and compares well."""
        from lsp_lightning.runs.writing import write_text

        values = {
            name: " ".join(map(str, value)) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"spec": spec.identity(), **values}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read it again.

        Raises:
            ValueError: the file is not of this kind.
        """
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found.pop("spec")
            lists = ("right", "greedy", "met", "levels", "curve")
            found |= {name: tuple(map(int, found[name].split())) for name in lists}
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} has no measurement ({error})") from error
