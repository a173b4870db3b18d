"""``lsp-lightning reproduce``: play the comparisons of the paper again, and say what is seen."""

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lsp_lightning.cli.output import INTERRUPTED
from lsp_lightning.cli.threads import usable_cores
from lsp_lightning.errors import ConfigError, in_one_line
from lsp_lightning.reproduce.arms import Arm, World, preset_config
from lsp_lightning.reproduce.comparison import Comparison, Job, Play, read_identity
from lsp_lightning.reproduce.estimate import Forecast, calibrate, clock, disk
from lsp_lightning.reproduce.pool import Failure, Pool, Running, Watcher
from lsp_lightning.reproduce.smollm2 import MAKE, smollm2_world
from lsp_lightning.reproduce.tiny import tiny_world
from lsp_lightning.text.terminal import cut, escaped, width_of

_WORLDS = {"tiny": tiny_world, "smollm2": smollm2_world}
_USAGE = (
    "write lsp-lightning reproduce [--world tiny | smollm2] [--out FOLDER] [--arms NAME ...] "
    "[--seeds N ...] [--rounds N] [--processes N] [--model FILE] [--table] [--json]"
)
_MOST_SEEDS = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError("reproduce", in_one_line(message), _USAGE)


def reproduce(args: Sequence[str]) -> int:
    """Play, score and compare arms. -> the exit status: 1 if a run failed.

    Raises:
        ConfigError: a flag is wrong, or the folder is for something else.
    """
    typed = _parser().parse_args(args)
    comparison = _comparison(typed)
    status = 0
    if not typed.table:
        arms, seeds = _arms(typed.arms, comparison.world), _seeds(typed.seeds, comparison.world)
        _check_numbers(typed)
        _check_model(comparison)
        comparison.claim()
        try:
            status = _play(comparison, comparison.jobs(arms, seeds), typed.processes)
        except KeyboardInterrupt:
            again = shlex.join(["lsp-lightning", "reproduce", *args])
            print(f"\nstopped; to go on where it was:\n  {again}", file=sys.stderr)
            return INTERRUPTED
    _show(comparison, typed.json)
    return status


def _parser() -> _Parser:
    tiny, other = tiny_world(), smollm2_world()
    names = ", ".join(arm.name for arm in tiny.arms)
    parser = _Parser(
        prog="lsp-lightning reproduce",
        description=f"{reproduce_help()} Start it again after an interruption, and it goes on.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--world", choices=list(_WORLDS), default="tiny", help="which model plays; default: tiny")
    add("--out", type=Path, help=f"folder of all runs; default: {tiny.out}, {other.out}")
    add("--arms", nargs="+", metavar="NAME", help=f"default: all. In the tiny world: {names}")
    default = f"{shlex.join(map(str, tiny.seeds))}; smollm2: {shlex.join(map(str, other.seeds))}"
    ablations = f"arms that change one setting have the first {tiny.ablation_seeds}"
    add("--seeds", nargs="+", type=int, metavar="N", help=f"default: {default}; {ablations}")
    rounds = f"of each stage; default: {tiny.rounds}; smollm2: {other.rounds}"
    add("--rounds", type=int, metavar="N", help=rounds)
    cores = min(2, usable_cores())
    add("--processes", type=int, metavar="N", default=cores, help="at a time, one thread each")
    add("--model", metavar="FILE", help="another file or folder of the model (smollm2)")
    add("--table", action="store_true", help="play nothing; show what has been measured so far")
    add("--json", action="store_true", help="print results.json instead of the tables")
    return parser


def reproduce_help() -> str:
    """What the command does, in one sentence."""
    return "Play the paper's comparisons again: arms and seeds, scores, intervals, verdicts."


def _comparison(typed: argparse.Namespace) -> Comparison:
    """What is to be compared, and where; with ``--table`` as the folder says."""
    world: World = _WORLDS[typed.world]()
    out = typed.out or Path(world.out)
    if typed.table:
        given = {"arms": typed.arms, "seeds": typed.seeds, "rounds": typed.rounds}
        if unused := [f"--{name}" for name, value in given.items() if value is not None]:
            problem = f"cannot be combined with {', '.join(unused)}"
            raise ConfigError("reproduce --table", problem, "leave them out; it shows all")
        found = read_identity(out)
        if found["world"] not in _WORLDS:
            problem = f"{str(out)!r} is of an unknown world, {found['world']!r}"
            raise ConfigError("reproduce --out", problem, "give another folder")
        return Comparison(_WORLDS[found["world"]](), out, found["rounds"], found["model"])
    rounds = world.rounds if typed.rounds is None else typed.rounds
    if typed.model and typed.world == "tiny":
        problem = "the tiny world has a model of its own"
        raise ConfigError("reproduce --model", problem, "leave it out, or add --world smollm2")
    return Comparison(world, out, rounds, typed.model)


def _arms(names: Sequence[str] | None, world: World) -> list[Arm]:
    """The arms of these names, in the order of the world."""
    known = [arm.name for arm in world.arms]
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            remedy = hint or f"choose some of {', '.join(known)}"
            problem = f"there is no arm {name!r} in the world {world.name}"
            raise ConfigError("reproduce --arms", problem, remedy)
    return [arm for arm in world.arms if names is None or arm.name in names]


def _seeds(seeds: Sequence[int] | None, world: World) -> list[int]:
    found = list(dict.fromkeys(world.seeds if seeds is None else seeds))
    if min(found) < 0 or len(found) > _MOST_SEEDS:
        problem = f"are {' '.join(map(str, found[:5]))} ..."
        raise ConfigError("reproduce --seeds", problem, f"give up to {_MOST_SEEDS} from 0 on")
    return found


def _check_numbers(typed: argparse.Namespace) -> None:
    for name in ("rounds", "processes"):
        value = getattr(typed, name)
        if value is not None and value < 1:
            raise ConfigError(f"reproduce --{name}", f"is {value}", "set 1 or more")


def _check_model(comparison: Comparison) -> None:
    """Raise ConfigError unless the model is there."""
    base = comparison.model or preset_config(comparison.world.preset)["model"]["base"]
    if not base.startswith("pkg:") and not Path(base).exists():
        remedy = f"download it ({MAKE}), or give its path by --model"
        raise ConfigError("reproduce --model", f"no file {base!r}", remedy)


def _play(comparison: Comparison, jobs: Sequence[Job], processes: int) -> int:
    """Do what is left to do. -> 1 if something failed."""
    left = [job for job in jobs if not comparison.is_done(job)]
    _tell_adopted(comparison, jobs)
    if not left:
        print("everything has been played and measured", file=sys.stderr)
        return 0
    pace = calibrate() / comparison.world.costs.calibration
    forecast = Forecast(comparison, left, processes, pace)
    runs = sum(isinstance(job, Play) for job in left)
    print(
        f"{_counted(runs, 'run')} to play, {_counted(len(left) - runs, 'policy', 'policies')} to "
        f"score, {processes} at a time: about "
        f"{clock(forecast.seconds_left())} and {disk(comparison, left) / 1e6:,.0f} MB in "
        f"{comparison.out}/",
        file=sys.stderr,
    )
    failures = Pool(comparison, processes, _Progress(forecast, len(left))).run(left)
    if not failures:
        return 0
    failed = _counted(len(failures), "job")
    print(f"error: {failed} failed, see above; fix it and start again", file=sys.stderr)
    return 1


def _tell_adopted(comparison: Comparison, jobs: Sequence[Job]) -> None:
    """Name the finished runs that came from elsewhere."""
    plays = [job.run for job in jobs if isinstance(job, Play) and comparison.is_played(job.run)]
    if adopted := [run for run in plays if not comparison.config_path(run).is_file()]:
        names = ", ".join(adopted)
        print(f"taken as they are, without comparing settings: {names}", file=sys.stderr)


class _Progress(Watcher):
    """A line for each job that has ended; on a terminal also one that is updated in place."""

    def __init__(self, forecast: Forecast, total: int) -> None:
        self._forecast, self._total, self._ended = forecast, total, 0
        self._live = sys.stderr.isatty()

    def ended(self, job: Job, seconds: float) -> None:
        """Say what is done, and how long the rest takes."""
        self._forecast.ended(job, seconds)
        left = clock(self._forecast.seconds_left())
        self._say(f"{_named(job)} in {clock(seconds)}; about {left} left")

    def failed(self, failure: Failure) -> None:
        """Say what failed; the rest goes on."""
        self._forecast.ended(failure.job, None)
        self._say(f"FAILED: {_named(failure.job)}: {failure.reason}")

    def looked(self, running: Sequence[Running]) -> None:
        """Update the line on a terminal."""
        if self._live and running:
            told = ", ".join(f"{_named(one.job)} ({clock(one.seconds)})" for one in running)
            left = clock(self._forecast.seconds_left(running))
            line = f"[{self._ended}/{self._total}] about {left} left: {told}"
            print(f"\r\x1b[K{cut(line, width_of(sys.stderr) - 1)}", end="", file=sys.stderr)

    def _say(self, text: str) -> None:
        self._ended += 1
        clear = "\r\x1b[K" if self._live else ""
        line = escaped(f"[{self._ended}/{self._total}] {text}")
        print(f"{clear}{line}", file=sys.stderr, flush=True)


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _named(job: Job) -> str:
    return f"{'play' if isinstance(job, Play) else 'score'} {job.run}"


def _show(comparison: Comparison, as_json: bool) -> None:
    """Write the results and print them."""
    from lsp_lightning.reproduce.results import write_results

    results, table = write_results(comparison)
    print(json.dumps(results) if as_json else table, end="\n" if as_json else "")
    names = "results.json, results.md and plots.html"
    print(f"written to {comparison.out}/: {names}", file=sys.stderr)
