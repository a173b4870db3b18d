"""``lsp-lightning evaluate``: run what was planned, write the results, and print them."""

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lsp_lightning.callbacks.summary import opponent_of
from lsp_lightning.cli.evaluation_settings import Part, Plan
from lsp_lightning.cli.long_work import Progress, progress
from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.alpaca import alpaca_outputs
from lsp_lightning.evaluation.answers import Contestant
from lsp_lightning.evaluation.benchmarks import (
    BenchmarkScore,
    benchmark_evaluation,
    run_benchmarks,
)
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.identity import weights_of
from lsp_lightning.evaluation.ledger import Ledger, digest
from lsp_lightning.evaluation.result import Evaluation
from lsp_lightning.evaluation.scores import Scorer
from lsp_lightning.evaluation.solved import TaskSet, solved
from lsp_lightning.evaluation.win_rate import win_rate
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.models.policy import Policy
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.rewards import Reward
from lsp_lightning.runs.writing import write_text, writing
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.terminal import width_of
from lsp_lightning.training.resume import plain_settings


class Evaluator:
    """Evaluates one loaded policy.

    Args:
        plan: what is evaluated.
        module: the module, whose policy is not loaded.
        data: its data.
        policy: the policy.
        rounds: how many rounds it has played.
        folder: where results are written.
        identities: the settings of each reward before it was connected, by its id.
    """

    def __init__(
        self,
        plan: Plan,
        module: SelfPlayModule,
        data: SelfPlayDataModule,
        policy: Policy,
        rounds: int,
        folder: Path,
        identities: Mapping[int, Any],
    ) -> None:
        self._plan, self._data, self._policy = plan, data, policy
        self._rounds, self._folder, self._identities = rounds, folder, identities
        self._opponent = opponent_of(module)
        self._base_name = module.policy_settings.base
        budgets = module.budgets
        reference = FrozenPlayer(policy, budgets.rollouts, budgets.passes)
        weights = weights_of(policy)
        self._reference, self._weights = reference, weights
        self._player = Player.local(policy, budgets.rollouts)
        self._players = (
            Contestant("policy answers", self._player, weights[0]),
            Contestant("base answers", reference, weights[1]),
        )
        self._answers = Ledger(folder / "answers.jsonl")
        self._judgements = Ledger(folder / "judgements.jsonl")

    def run(self) -> dict[str, dict[str, Any]]:
        """The documents of all evaluations by kind; each is written when it is ready."""
        for reward in self._plan.rewards:
            reward.connect(self._reference)
        found = {}
        with progress() as told:
            if self._plan.prompts is not None:
                found["win_rate"] = self._win_rate(self._plan.prompts, told)
            if self._plan.tasks:
                found["pass_at_k"] = self._pass_at_k(told)
        if self._plan.benchmarks:
            found["benchmark"] = self._run_benchmarks()
        return found

    def _win_rate(self, part: Part, told: Progress) -> dict[str, Any]:
        judge, (policy, base) = part.reward, self._players
        name = f"{type(judge).__name__} {judge.name!r}"
        result = win_rate(
            self._exam(part),
            policy,
            base,
            self._scorer(judge),
            self._answers,
            self._judgements,
            told,
            name,
            self._opponent,
        )
        settings = {"prompts": part.name, "judge": _described(judge), **self._settings()}
        document, path = self._write(result.evaluation, settings)
        outputs = path.with_suffix("")  # in a folder, because *.json here are evaluations
        outputs.mkdir(exist_ok=True)
        models = {"model": f"{self._base_name} after round {self._rounds}", "base": self._opponent}
        for (file, model), answers in zip(
            models.items(), (result.policy, result.base), strict=True
        ):
            rows = alpaca_outputs(part.queries, answers, model)
            write_text(outputs / f"{file}_outputs.json", _json(rows))
        return document

    def _pass_at_k(self, told: Progress) -> dict[str, Any]:
        parts, (policy, base) = self._plan.tasks, self._players
        names = [part.label for part in parts]
        if len(set(names)) < len(names):
            names = [part.name for part in parts]
        sets = [TaskSet(n, self._exam(part)) for n, part in zip(names, parts, strict=True)]
        reward = parts[0].reward
        evaluation = solved(
            sets,
            policy,
            base,
            self._scorer(reward),
            self._answers,
            self._judgements,
            told,
            self._opponent,
        )
        settings = {
            "tasks": [part.name for part in parts],
            "reward": _described(reward),
            **self._settings(),
        }
        return self._write(evaluation, settings)[0]

    def _run_benchmarks(self) -> dict[str, Any]:
        plan, kept = self._plan, Ledger(self._folder / "benchmarks.jsonl")
        settings = {**self._settings(), "draws": plan.benchmark_draws}
        scores: list[BenchmarkScore] = []
        for name, benchmark in plan.benchmarks.items():
            key = digest(name, settings, self._weights[1])
            found = None if name.endswith((".yaml", ".yml")) else _kept_scores(kept.get(key))
            if found is None:  # nobody knows what a task's own file reads
                found = run_benchmarks(
                    [benchmark],
                    self._policy,
                    self._player,
                    self._reference,
                    sampling=plan.sampling,
                    draws=plan.benchmark_draws,
                    seed=derive_seed(self._data.seed, "evaluate"),
                )
                kept.add({key: [score.plain() for score in found]})
            scores += found
        settings = {"benchmarks": list(plan.benchmarks), **settings}
        return self._write(benchmark_evaluation(scores), settings)[0]

    def _exam(self, part: Part) -> Exam:
        """The queries as an exam; raise ConfigError if one does not fit into the context."""
        exam = Exam.of(
            self._policy.codec,
            part.queries,
            part.reward,
            self._plan.sampling,
            self._data.solver_prompt,
            self._plan.draws,
            derive_seed(self._data.seed, "evaluate"),
        )
        context, answer = self._reference.context, self._plan.sampling.max_new_tokens
        longest = max(map(len, exam.prompts)) + answer
        if context is not None and longest > context:
            raise ConfigError(
                part.name,
                f"the longest query takes {longest} tokens with its answer, and the context of "
                f"{self._base_name!r} has {context}",
                "remove long queries, or lower data.solver.max_new_tokens",
            )
        return exam

    def _scorer(self, reward: Reward) -> Scorer:
        # the reference may be the judge
        identity = digest(self._identities[id(reward)], self._weights[1])
        policy, temperature = self._policy, self._plan.sampling.temperature
        return Scorer(reward, identity, policy.codec, policy.pad_id, temperature)

    def _settings(self) -> dict[str, Any]:
        return {
            "model": self._base_name,
            "reference": self._opponent,
            "rounds": self._rounds,
            "sampling": dict(vars(self._plan.sampling)),
            "solver_prompt": self._data.solver_prompt,
            "draws": self._plan.draws,
            "limit": self._plan.limit,
            "seed": self._data.seed,
            "weights": self._weights[0],
        }

    def _write(
        self, evaluation: Evaluation, settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Path]:
        """Write a result under the name of its settings. -> its document and its file."""
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        document = evaluation.document(created, self._rounds, settings)
        path = self._folder / f"{evaluation.kind}-{digest(settings)[:8]}.json"
        with writing(path):
            write_text(path, _json(document))
        print(f"written to {path}", file=sys.stderr)
        return document, path


def print_results(results: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Print the documents by kind as JSON, or as tables."""
    if as_json:
        print(_json(results), end="")
        return
    for i, found in enumerate(results.values()):
        if i:
            print()
        table = found["table"]
        shown = Evaluation(
            found["kind"], found["title"], found["note"], table["columns"], table["rows"], {}
        )
        print("\n".join(shown.lines(width_of(sys.stdout) - 1)))


def writable(folder: Path) -> Path:
    """The folder, made if needed; raise ConfigError unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        problem = f"cannot write to {str(folder)!r} ({error.strerror})"
        raise ConfigError("out", problem, "give a folder that you can write to") from error
    return folder


def _described(reward: Reward) -> dict[str, Any]:
    """A reward in the settings of a result."""
    loaded = reward.loads()
    more = {} if loaded is None else {"model": loaded.source}
    return {**plain_settings(reward), **more}


def _kept_scores(found: Any) -> list[BenchmarkScore] | None:
    """The scores of a benchmark from the file that keeps them; None if they are not there."""
    try:
        return [BenchmarkScore.of_plain(score) for score in found]
    except (KeyError, TypeError, ValueError):  # none, or a damaged file
        return None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
