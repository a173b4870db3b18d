"""From the names of benchmarks to their scores."""

from collections.abc import Sequence

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.evaluation.benchmarks.base import KEY, Benchmark, Side
from lsp_lightning.evaluation.benchmarks.harness import load_tasks
from lsp_lightning.evaluation.benchmarks.humaneval import NAME, HumanEval
from lsp_lightning.evaluation.benchmarks.results import BenchmarkScore
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.models.policy import Policy
from lsp_lightning.sandbox import Sandbox
from lsp_lightning.types import Sampling

#: Endings of files with tasks, see :mod:`lsp_lightning.game.query_files`.
_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".pq")


def is_benchmark(name: str) -> bool:
    """Whether :func:`load_benchmarks` takes this: a name, or a YAML file of the harness.

    Anything else is a file or Hub data set with a task in each row.
    """
    if name.endswith((".yaml", ".yml")):
        return True
    return not name.endswith(_FILES) and not any(mark in name for mark in "/\\:")


def load_benchmarks(
    names: Sequence[str], limit: int | None = None, sandbox: Sandbox | None = None
) -> list[Benchmark]:
    """Load benchmarks and their data sets, before a model is loaded.

    Args:
        names: ``humaneval``; tasks, groups and tags of lm-evaluation-harness (``gsm8k``); YAML
            files of the harness.
        limit: take only the first tasks of each; None takes all.
        sandbox: where code in answers runs; None is bubblewrap, or Monty where it does not work.

    Raises:
        ConfigError: a name is unknown, a package is missing, or a data set could not be loaded.
    """
    if limit is not None:
        require_at_least(limit, 1, "limit", "no task would be left")
    if not names:
        raise ConfigError(KEY, "names no benchmark", "give names such as humaneval,gsm8k")
    distinct = list(dict.fromkeys(names))
    others = load_tasks([name for name in distinct if name != NAME], limit)
    return [HumanEval.load(limit, sandbox) if name == NAME else others[name] for name in distinct]


def run_benchmarks(
    benchmarks: Sequence[Benchmark],
    policy: Policy,
    player: Player,
    reference: FrozenPlayer,
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    draws: int = 1,
    seed: int = 0,
) -> list[BenchmarkScore]:
    """Score the policy and its reference, which are one loaded model.

    Args:
        benchmarks: see :func:`load_benchmarks`.
        policy: holds the weights of both.
        player: the policy with its engine.
        reference: the reference with its engine.
        sampling: temperature and cuts of HumanEval's answers if ``draws`` is above 1. Tasks of the
            harness say themselves how their answers are sampled.
        draws: HumanEval's answers to each task; one is greedy.
        seed: fixes the sampled answers.
    """
    require_at_least(draws, 1, "draws", "each task needs an answer")
    before, after = Side.both(policy, player, reference)
    return [
        score
        for benchmark in benchmarks
        for score in benchmark.run(before, after, sampling, draws, seed)
    ]
