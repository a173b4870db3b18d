"""What an arm of a comparison is, and what a world is in which arms are compared."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lsp_lightning.paths import resolve

#: Folder of the presets that arms start from.
PRESETS = "pkg:lsp_lightning/reproduce/presets"


@dataclass(frozen=True)
class Stage:
    """A training from a preset; the second stage of an arm starts from the first one's adapter."""

    name: str
    """Part of the name of its run."""
    preset: str
    """The preset's name."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that it changes, nested as in a config."""


@dataclass(frozen=True)
class Arm:
    """One row of the comparison."""

    name: str
    """As typed after ``--arms``: the names of its stages, joined by ``-``."""
    label: str
    """As printed."""
    about: str
    """What it is, or what it is a control for, in one phrase."""
    stages: tuple[Stage, ...] = ()
    """Its trainings, one after the other; empty for the base."""
    temperature: float = 1.0
    """Temperature of the answers that are scored."""
    changes: str | None = None
    """An ablation: the arm that it differs from in one setting. None for a main arm."""
    control: str | None = None
    """The arm that shows what would have happened without its last stage's method."""

    def runs(self) -> tuple[str, ...]:
        """The name of the run of each stage; arms that begin alike share their first runs."""
        names = [stage.name for stage in self.stages]
        return tuple("-".join(names[: i + 1]) for i in range(len(names)))


#: What an arm of twice the same stage shows.
CONTINUED = "control: the first stage goes on for as many rounds"


def two_stages(
    first: Stage, second: Stage, label: str, about: str, control: str | None = None
) -> Arm:
    """A main arm of two stages, named after them."""
    return Arm(f"{first.name}-{second.name}", label, about, (first, second), control=control)


@dataclass(frozen=True)
class Costs:
    """What was measured once on a known machine, to estimate time and disk."""

    round: Mapping[str, float]
    """Seconds of a round on one core, by preset."""
    start: float
    """Seconds of a run before and after its rounds."""
    measure: float
    """Seconds of scoring an arm."""
    curve: float
    """Seconds of its pass@k curve."""
    calibration: float
    """Seconds of :func:`lsp_lightning.reproduce.estimate.calibrate` there."""
    megabytes: float
    """Disk of a run."""


@dataclass(frozen=True)
class World:
    """A model with tasks, and the arms that are compared in it."""

    name: str
    arms: tuple[Arm, ...]
    preset: str
    """Preset of the base, and of the Challenger of arms whose queries come from a file."""
    tasks: str
    """File of the tasks that are reported."""
    rounds: int
    """Rounds of a stage."""
    seeds: tuple[int, ...]
    """Seeds of the main arms; ablations have the first :attr:`ablation_seeds` of them."""
    costs: Costs
    out: str
    """Default folder."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all runs."""
    ablation_seeds: int = 2
    draws: int = 8
    """Sampled answers to each task."""
    curve_draws: int = 0
    """Answers to some tasks for pass@k of main arms; 0 for no curve."""
    curve_every: int = 4
    """Every so many tasks are in the curve."""
    queries: int = 512
    """Queries that the trained Challenger writes afterwards."""

    def arm(self, name: str) -> Arm:
        """The arm of this name; KeyError without one."""
        return {arm.name: arm for arm in self.arms}[name]

    def seeds_of(self, arm: Arm, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds that an arm is played with, out of those that were asked for."""
        return seeds if arm.changes is None else seeds[: self.ablation_seeds]


def preset_config(name: str) -> dict[str, Any]:
    """The settings of a preset."""
    return copy.deepcopy(_read_preset(name))


@cache
def _read_preset(name: str) -> dict[str, Any]:
    import yaml

    text = resolve(f"{PRESETS}/{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One config over another: mappings are merged, unless the upper one names another class."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and "class_path" not in value:
            value = merged(old, value)
        result[key] = value
    return result
