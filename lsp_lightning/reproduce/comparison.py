"""The folder of a comparison: its runs, the work that they need, and what has been done."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lsp_lightning.errors import ConfigError
from lsp_lightning.reproduce.arms import Arm, World, merged, preset_config
from lsp_lightning.reproduce.measured import MEASURED, Spec
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text

_OUT = "reproduce --out"
#: The second stage of an arm has another seed: so much more.
_SHIFT = 1000


@dataclass(frozen=True)
class Play:
    """Train a stage of an arm."""

    run: str
    """Name of its run, with the seed."""
    preset: str
    config: dict[str, Any]
    """All its settings."""
    after: str | None
    """The run whose adapter it starts from."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The runs that must have been played."""
        return (self.after,) if self.after else ()


@dataclass(frozen=True)
class Measure:
    """Score an arm."""

    run: str
    """Name of the run whose adapter is scored; the name of an arm of the base, with the seed."""
    needs: tuple[str, ...]
    """The runs that must have been played; none for the base."""
    spec: Spec
    """What is scored, and how."""


Job = Play | Measure


@dataclass(frozen=True)
class Comparison:
    """A world that is played in a folder."""

    world: World
    out: Path
    rounds: int
    """Rounds of each stage."""
    model: str | None = None
    """Another base than the preset's."""

    def folder(self, run: str) -> RunFolder:
        """The folder of a run, given with its seed."""
        return RunFolder(self.out / "runs" / run)

    def config_path(self, run: str) -> Path:
        """The file with all settings of a run."""
        return self.out / "runs" / f"{run}.yaml"

    def log_path(self, run: str) -> Path:
        """What the commands of a run printed."""
        return self.out / "runs" / f"{run}.log"

    def claim(self) -> None:
        """Write what the folder is for.

        Raises:
            ConfigError: it is for something else, or cannot be written.
        """
        path, mine = self.out / "comparison.json", self._identity()
        try:
            (self.out / "runs").mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                write_text(path, json.dumps(mine) + "\n")
        except OSError as error:
            problem = f"cannot write to {str(self.out)!r} ({error.strerror})"
            raise ConfigError(_OUT, problem, "give a folder that you can write to") from error
        if (found := read_identity(self.out)) != mine:
            told = ", ".join(f"{name} {value}" for name, value in found.items())
            problem = f"{str(self.out)!r} has a comparison with {told}"
            raise ConfigError(_OUT, problem, "give another folder, or these settings")

    def _identity(self) -> dict[str, Any]:
        return {"world": self.world.name, "rounds": self.rounds, "model": self.model}

    def jobs(self, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Job]:
        """All work for some arms, seed by seed; a run that arms share is in it once."""
        found: dict[tuple[type, str], Job] = {}
        for seed in seeds:
            for arm in arms:
                if seed in self.world.seeds_of(arm, tuple(seeds)):
                    for job in self._jobs_of(arm, seed):
                        found.setdefault((type(job), job.run), job)
        return list(found.values())

    def _jobs_of(self, arm: Arm, seed: int) -> Iterator[Job]:
        runs = [f"{run}-{seed}" for run in arm.runs()]
        config = self._config(f"{arm.name}-{seed}", preset_config(self.world.preset), seed)
        for i, (run, stage) in enumerate(zip(runs, arm.stages, strict=True)):
            settings = merged(preset_config(stage.preset), stage.changes)
            config = self._config(run, settings, seed + _SHIFT * i)
            before = runs[i - 1] if i else None
            if before:
                adapter = self.folder(before).weights_path(has_adapter=True)
                config["model"]["init_adapter"] = str(adapter)
            yield Play(run, stage.preset, config, before)
        scored = runs[-1] if runs else f"{arm.name}-{seed}"
        spec = Spec(
            config=config,
            challenger=merged(preset_config(self.world.preset), {})["data"]["queries"],
            adapter=str(self.folder(scored).weights_path(has_adapter=True)) if runs else None,
            met_in=tuple(str(self.folder(run).path) for run in runs),
            tasks=self.world.tasks,
            temperature=arm.temperature,
            draws=self.world.draws,
            curve_draws=self.world.curve_draws if arm.changes is None else 0,
            curve_every=self.world.curve_every,
            queries=self.world.queries if arm.temperature == 1 else 0,
            seed=seed,
        )
        yield Measure(scored, tuple(runs), spec)

    def _config(self, run: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        model = {"base": self.model} if self.model else {}
        trainer = {
            "max_steps": self.rounds,
            "default_root_dir": str(self.folder(run).path),
            "logger": False,  # metrics.csv is enough here
        }
        changes = {"seed_everything": seed, "model": model, "trainer": trainer}
        return merged(merged(settings, self.world.settings), changes)

    def is_done(self, job: Job) -> bool:
        """Whether a job's result is there.

        Raises:
            ConfigError: it is there, but was made with other settings.
        """
        folder = self.folder(job.run)
        if isinstance(job, Measure):
            return job.spec.is_answered_by(folder.path / MEASURED)
        path = self.config_path(job.run)
        kept = path.is_file() and folder.path.exists()
        if kept and _read_deciding(path) != _deciding(job.config):
            problem = f"{str(folder.path)!r} was played with other settings"
            raise ConfigError(_OUT, problem, "give another folder, or delete this run")
        return self.is_played(job.run)

    def is_played(self, run: str) -> bool:
        """Whether a run has ended after all its rounds."""
        try:
            return bool(self.folder(run).summary().get("rounds") == self.rounds)
        except ConfigError:  # no summary
            return False


def read_identity(out: Path) -> dict[str, Any]:
    """What a folder is for: the world, rounds and model of its runs.

    Raises:
        ConfigError: it is not the folder of a comparison.
    """
    path = out / "comparison.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["rounds"], int):
            raise TypeError("rounds")
        return {name: found[name] for name in ("world", "rounds", "model")}
    except FileNotFoundError as error:
        problem = f"nothing has been played in {str(out)!r}"
        raise ConfigError(_OUT, problem, "leave out --table, or give another folder") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"{str(path)!r} cannot be read"
        raise ConfigError(_OUT, problem, "give another folder") from error


def _read_deciding(path: Path) -> dict[str, Any] | None:
    """The settings in a run's file; None if it is damaged."""
    try:
        return _deciding(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run without the paths of folders, which may be moved."""
    model = {name: value for name, value in config["model"].items() if name != "init_adapter"}
    trainer = {n: v for n, v in config["trainer"].items() if n != "default_root_dir"}
    return {**config, "model": model, "trainer": trainer}
