"""The settings of ``lsp-lightning evaluate``, checked before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import Trainer

from lsp_lightning.datamodule import SelfPlayDataModule, check_solutions
from lsp_lightning.errors import ConfigError, require_at_least, require_number, warn
from lsp_lightning.evaluation.benchmarks import Benchmark, is_benchmark, load_benchmarks
from lsp_lightning.evaluation.heldout import heldout_reward
from lsp_lightning.evaluation.solved import MOST_DRAWS
from lsp_lightning.game.known_queries import Query, read_queries
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.rewards import Reward, VerifiableReward
from lsp_lightning.types import Sampling

_JUDGES = (
    "give --judge, such as lsp_lightning.LocalJudge, or lsp_lightning.PreferenceReward with "
    "--judge.model FOLDER"
)
#: Answers to each prompt or task if none are asked for.
_DRAWS = 4


@dataclass(frozen=True)
class Typed:
    """The flags as they were typed."""

    prompts: str | None
    tasks: str | None
    judge: Reward | None
    draws: int | None
    temperature: float | None
    limit: int | None


@dataclass(frozen=True)
class Part:
    """Queries of one file, and the reward that scores the answers to them."""

    name: str
    """The file as it was typed, or the config key."""
    queries: tuple[Query, ...]
    """The queries, each once."""
    reward: Reward
    """The judge, or a binary reward."""

    @property
    def label(self) -> str:
        """A short name: a file's without folder and ending."""
        return self.name if self.name in ("data.test", "data.heldout") else Path(self.name).stem


@dataclass(frozen=True)
class Plan:
    """What is evaluated."""

    prompts: Part | None
    """Prompts for win rates."""
    tasks: tuple[Part, ...]
    """Tasks for pass@k."""
    benchmarks: Mapping[str, Benchmark]
    """Benchmarks by the names that were typed."""
    sampling: Sampling
    """How answers are sampled."""
    draws: int
    """Answers to each query."""
    benchmark_draws: int
    """Answers to each task of HumanEval; one is greedy."""
    limit: int | None
    """Most queries of a file."""

    @property
    def rewards(self) -> list[Reward]:
        """The rewards that are needed, each once."""
        parts = [*([self.prompts] if self.prompts else []), *self.tasks]
        return list({id(part.reward): part.reward for part in parts}.values())


def read_plan(typed: Typed, module: SelfPlayModule, data: SelfPlayDataModule) -> Plan:
    """What the flags ask for.

    Raises:
        ConfigError: a flag is wrong, a file cannot be read, or no reward can score its queries.
    """
    draws = _DRAWS if typed.draws is None else typed.draws
    require_at_least(draws, 1, "draws", "each prompt needs an answer")
    if draws > MOST_DRAWS:
        raise ConfigError("draws", f"is {draws}", f"set at most {MOST_DRAWS}")
    if typed.limit is not None:
        require_at_least(typed.limit, 1, "limit", "an evaluation needs a query")
    sampling = data.solver
    if typed.temperature is not None:
        require_number(typed.temperature, "temperature", above=0)
        sampling = replace(sampling, temperature=typed.temperature)
    elif sampling.temperature == 0:
        problem = "is 0, so all draws of a prompt would be equal"
        raise ConfigError("data.solver.temperature", problem, "give --temperature 1")
    files, names = _split(typed.tasks)
    prompts, tasks = _parts(typed, files, names, module, data)
    if typed.judge is not None and prompts is None:
        raise ConfigError("judge", "is set, but only tasks are scored", "give --prompts FILE")
    loaded = load_benchmarks(names, typed.limit) if names else []
    benchmarks = dict(zip(names, loaded, strict=True))
    return Plan(prompts, tasks, benchmarks, sampling, draws, typed.draws or 1, typed.limit)


def _split(tasks: str | None) -> tuple[list[str], list[str]]:
    """Files of tasks, and names of benchmarks, out of ``--tasks``."""
    if tasks is None:
        return [], []
    found = [name.strip() for name in tasks.split(",")]
    if not all(found):
        raise ConfigError("tasks", f"{tasks!r} has an empty name", "write FILE,FILE")
    if len(set(found)) < len(found):
        raise ConfigError("tasks", f"{tasks!r} names one twice", "name each once")
    names = [name for name in found if is_benchmark(name) and not _is_file(name)]
    return [name for name in found if name not in names], names


def _is_file(name: str) -> bool:
    """Whether a name without an ending is a file of tasks."""
    return not name.endswith((".yaml", ".yml")) and Path(name).is_file()


def prepare(plan: Plan, module: SelfPlayModule, trainer: Trainer) -> None:
    """Start what the rewards need, and check that they can score the queries.

    Raises:
        ConfigError: a reward cannot run here (no server, no sandbox), or cannot use a solution.
    """
    for reward in plan.rewards:
        reward.setup(trainer, module, "evaluate")
    for part in plan.tasks:
        if isinstance(part.reward, VerifiableReward):
            check_solutions(part.queries, part.reward.verifier, f"tasks {part.name!r}")


def _parts(
    typed: Typed,
    files: Sequence[str],
    names: Sequence[str],
    module: SelfPlayModule,
    data: SelfPlayDataModule,
) -> tuple[Part | None, tuple[Part, ...]]:
    """The files to evaluate; without a flag those of the run."""
    if typed.prompts is not None or files or names:
        prompts, tasks = None, tuple[Part, ...]()
        if typed.prompts is not None:
            found = read_queries(typed.prompts, "prompts")
            prompts = _prompts(typed.prompts, found, _judge(typed.judge, module), typed)
        if files:
            reward = _binary_of(module, data)
            tasks = tuple(_tasks(f, read_queries(f, "tasks"), reward, typed) for f in files)
        return prompts, tasks
    key, queries = ("data.test", data.test) if data.test else ("data.heldout", data.heldout)
    if not queries:
        raise ConfigError(
            "evaluate",
            "there is nothing to evaluate on: the run has no data.test and no data.heldout",
            "give --prompts FILE for win rates, or --tasks FILE for pass@k",
        )
    if typed.judge is not None or _binary(module, data) is None:
        return _prompts(key, queries, _judge(typed.judge, module), typed), ()
    return None, (_tasks(key, queries, _binary_of(module, data), typed),)


def _binary(module: SelfPlayModule, data: SelfPlayDataModule) -> Reward | None:
    """The run's binary reward: the one that scores held-out tasks, or else the first one."""
    found = heldout_reward(module.rewards, data.heldout_reward)
    if found is not None and found[1] == "solved":
        return found[0]
    usable = (r for r in module.rewards if r.enters != "challenger" and not r.needs_group)
    return next((reward for reward in usable if reward.binary), None)


def _binary_of(module: SelfPlayModule, data: SelfPlayDataModule) -> Reward:
    found = _binary(module, data)
    if found is None:
        raise ConfigError(
            "tasks",
            "no reward of this run scores 0 or 1, so none says whether a task is solved",
            "add a VerifiableReward with weight 0 to model.rewards, or give --prompts FILE",
        )
    return found


def _judge(judge: Reward | None, module: SelfPlayModule) -> Reward:
    """The reward that compares answers; that of the run if none is given."""
    if judge is None:
        comparable = (r for r in module.rewards if r.comparable and r.enters != "challenger")
        found = next(comparable, None)
        if found is None:
            raise ConfigError("judge", "no reward of this run can compare two answers", _JUDGES)
        if found.weight:
            warn(
                f"judge: {found.name!r} is also what this run trains on, so its win rate says "
                "little about the answers; give another one by --judge"
            )
        return found
    if judge.enters == "challenger":
        raise ConfigError("judge", f"{judge.name!r} scores queries, not answers", _JUDGES)
    if judge.needs_passage:
        problem = f"{judge.name!r} scores answers about a passage, and prompts have none"
        raise ConfigError("judge", problem, _JUDGES)
    return judge


def _prompts(name: str, queries: Sequence[Query], judge: Reward, typed: Typed) -> Part:
    chosen = _once(name, queries, typed.limit)
    scorable = [q for q in chosen if judge.needs_group or judge.scores_alone(q.solution)]
    if not scorable:
        problem = f"{judge.name!r} needs solutions, and no prompt of {name!r} has one"
        raise ConfigError("judge", problem, _JUDGES)
    _warn_of_rest(name, chosen, scorable, judge)
    return Part(name, tuple(scorable), judge)


def _tasks(name: str, queries: Sequence[Query], reward: Reward, typed: Typed) -> Part:
    chosen = _once(name, queries, typed.limit)
    scorable = [query for query in chosen if reward.scores_alone(query.solution)]
    if not scorable:
        problem = f"none of the {len(chosen)} tasks of {name!r} has a solution that"
        raise ConfigError("tasks", f"{problem} {reward.name!r} needs", "add solutions")
    _warn_of_rest(name, chosen, scorable, reward)
    return Part(name, tuple(scorable), reward)


def _warn_of_rest(
    name: str, chosen: Sequence[Query], scorable: Sequence[Query], reward: Reward
) -> None:
    if len(scorable) < len(chosen):
        count = f"{len(scorable)} of {len(chosen)}"
        warn(f"{name}: {reward.name!r} can score {count} queries; the others have no solution")


def _once(name: str, queries: Sequence[Query], limit: int | None) -> list[Query]:
    """Each query once: the first of its text. With a limit, so many, spread over the file."""
    first: dict[str, Query] = {}
    for query in queries:
        first.setdefault(query.text, query)
    found = list(first.values())
    if len(found) < len(queries):
        warn(f"{name}: {len(queries) - len(found)} queries are repeated; each counts once")
    if limit is None or limit >= len(found):
        return found
    return [found[i * len(found) // limit] for i in range(limit)]
