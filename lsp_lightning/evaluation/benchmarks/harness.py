"""Tasks of lm-evaluation-harness (PyPI: lm-eval), by name or from a YAML file."""

import difflib
import logging
import math
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.benchmarks.base import KEY, Benchmark, Side
from lsp_lightning.evaluation.benchmarks.humaneval import NAME as HUMANEVAL
from lsp_lightning.evaluation.benchmarks.results import BenchmarkScore, Estimate
from lsp_lightning.types import Sampling

#: The seed of few-shot examples and of data sets that are shuffled; the harness's default.
_SEED = 1234
#: Resamples for the standard error of metrics that are not a mean of tasks.
_RESAMPLES = 1000
_LOGGERS = ("lm_eval", "huggingface_hub", "datasets")
_INSTALL = "pip install 'lsp-lightning[benchmarks]'"


@dataclass(frozen=True)
class HarnessBenchmark(Benchmark):
    """A task, group or tag of the harness, with its data set loaded."""

    name: str
    """Its name, or the name of its YAML file."""
    loaded: Mapping[str, Any]
    """What the harness's TaskManager loaded."""
    limit: int | None
    """Take only the first tasks of each data set; None takes all."""

    def run(
        self, before: Side, after: Side, sampling: Sampling, draws: int, seed: int
    ) -> list[BenchmarkScore]:
        """See :meth:`Benchmark.run`; the task says how answers are sampled."""
        first, second = (
            self._evaluate(side, seed, f"{Path(self.name).name} {label}")
            for side, label in ((before, "before"), (after, "after"))
        )
        # of a group that has scores of its own, only these
        names = [self.name] if self.name in first.get("groups", {}) else list(first["results"])
        return [
            self._score(name, key, first, second)
            for name in names
            for key in first["results"][name]
            if "," in key and "_stderr," not in key
        ]

    def _evaluate(self, side: Side, seed: int, label: str) -> Mapping[str, Any]:
        """The harness's results of one model."""
        from lm_eval import evaluate

        from lsp_lightning.evaluation.benchmarks.harness_model import PolicyLM

        for task in self.loaded["tasks"].values():
            task.set_fewshot_seed(seed=_SEED)  # both models get the same examples
        with _quiet():
            results: Mapping[str, Any] = evaluate(
                PolicyLM(side, seed, label),
                self.loaded,
                limit=self.limit,
                bootstrap_iters=_RESAMPLES,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
            )
        return results

    def _score(
        self, name: str, key: str, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> BenchmarkScore:
        """One metric of a task or group; paired if it is the mean of its tasks' scores."""
        metric, _, chosen = key.partition(",")
        label = metric if chosen == "none" else f"{metric} ({chosen})"
        better = before["higher_is_better"].get(name, {}).get(metric) is not False
        each = [self._by_task(name, key, results) for results in (before, after)]
        if each[0] is not None and each[1] is not None:
            return BenchmarkScore.paired(name, label, each[0], each[1], better)
        error = f"{metric}_stderr,{chosen}"
        first, second = (
            Estimate.normal(
                float(results["results"][name][key]), _number(results["results"][name], error)
            )
            for results in (before, after)
        )
        n = int(before["results"][name]["sample_len"])
        return BenchmarkScore(name, label, n, first, second, higher_is_better=better)

    def _by_task(self, name: str, key: str, results: Mapping[str, Any]) -> torch.Tensor | None:
        """The score of each task, (tasks,); None unless the harness's figure is their mean."""
        metric, _, chosen = key.partition(",")
        leaves = [name] if name in results["samples"] else list(self.loaded["tasks"])
        values = [
            sample.get(metric)
            for leaf in leaves
            for sample in sorted(results["samples"][leaf], key=lambda sample: sample["doc_id"])
            if sample["filter"] == chosen
        ]
        if not values or not all(isinstance(value, int | float) for value in values):
            return None
        scores_T = torch.tensor(values, dtype=torch.float64)
        figure = float(results["results"][name][key])
        return scores_T if math.isclose(float(scores_T.mean()), figure, abs_tol=1e-9) else None


def load_tasks(names: Sequence[str], limit: int | None) -> dict[str, HarnessBenchmark]:
    """Load tasks by name or from YAML files, with their data sets.

    Raises:
        ConfigError: lm-eval is missing, a name is unknown, or a data set could not be loaded.
    """
    if not names:
        return {}
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        problem = f"{names[0]!r} needs lm-evaluation-harness, which cannot be imported ({error})"
        raise ConfigError(KEY, problem, _INSTALL) from error
    with _quiet():
        files = [name for name in names if _is_yaml(name)]
        for name in files:
            _check_file(name)
        # reading the harness's 14,000 files takes a while, and a file of a task needs none of them
        manager = TaskManager(include_defaults=len(files) < len(names))
        for name in names:
            if name not in files:
                _check_name(name, manager.all_tasks)
                _check_safe(name, manager.task_index[name].cfg or {})
        return {name: HarnessBenchmark(name, _load(name, manager), limit) for name in names}


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _check_file(name: str) -> None:
    """Raise ConfigError unless this is the YAML file of a task."""
    file = Path(name).expanduser()
    if not file.is_file():
        raise ConfigError(KEY, f"there is no file {name!r}", "give a YAML file of lm-eval")
    if re.search(rb"^group:", file.read_bytes(), re.MULTILINE):
        problem = f"{name!r} is a group, which lm-eval does not load from a file"
        raise ConfigError(KEY, problem, "give the files of its tasks")


def _check_name(name: str, known: Sequence[str]) -> None:
    """Raise ConfigError unless the harness knows this name."""
    if name in known:
        return
    near = difflib.get_close_matches(name, [HUMANEVAL, *known], n=5)
    near = near or [other for other in known if name.lower() in other.lower()][:5]
    remedy = f"near names: {', '.join(near)}" if near else "'lm-eval ls tasks' prints all names"
    raise ConfigError(KEY, f"no benchmark is named {name!r}", remedy)


def _check_safe(name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a task runs answers; asked before loading, which may fetch code."""
    if config.get("unsafe_code"):
        problem = f"{name!r} runs code in answers without a sandbox"
        raise ConfigError(KEY, problem, f"use {HUMANEVAL}, which has one")


def _load(name: str, manager: Any) -> Mapping[str, Any]:
    """A task, group or tag with its data sets."""
    random.seed(0)  # some data sets are shuffled; as the harness's own command does
    try:
        loaded: Mapping[str, Any] = manager.load([name])
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=_SEED)
            task.build_all_requests(limit=1, rank=0, world_size=1)  # its templates may fail
    except ImportError as error:
        raise ConfigError(KEY, f"{name!r} needs another package ({error})", _INSTALL) from error
    except OSError as error:
        raise ConfigError(
            KEY,
            f"the data set of {name!r} could not be loaded ({error})",
            "check the connection to the Hub; once loaded, a data set is cached",
        ) from error
    except Exception as error:  # a YAML file may fail in any way
        problem = f"{name!r} could not be loaded ({type(error).__name__}: {error})"
        raise ConfigError(KEY, problem, "'lm-eval validate --tasks' tells more") from error
    for task in loaded["tasks"].values():
        _check_safe(name, {"unsafe_code": getattr(task, "UNSAFE_CODE", False)})
        if getattr(task, "MULTIMODAL", False):
            raise ConfigError(KEY, f"{name!r} shows images", "give a benchmark of text")
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's prints from stdout, and its notes from the log."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        for logger in map(logging.getLogger, _LOGGERS):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield


def _number(values: Mapping[str, Any], key: str) -> float:
    """A number of the harness, NaN where it is "N/A" or missing."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else math.nan
