"""Score the policy of one run: ``python -m lsp_lightning.reproduce.measure OUT.json < SPEC.json``.

A process of its own, started by :mod:`lsp_lightning.reproduce.pool`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.heldout import heldout_reward
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.game.player import Player
from lsp_lightning.models.policy import Policy
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.reproduce.arms import merged
from lsp_lightning.reproduce.measured import Measured, Spec
from lsp_lightning.rewards import VerifiableReward
from lsp_lightning.runs import RunFolder
from lsp_lightning.training.metrics import info_metrics

#: Answers that are sampled together. It does not change what is sampled.
_ROWS_AT_ONCE = 512
_CHALLENGER_SEED = 1000


def main(target: Path) -> None:
    """Measure what stdin says, and write a file."""
    torch.set_num_threads(1)
    spec = Spec(**json.load(sys.stdin))
    measure(spec).write(target, spec)


def measure(spec: Spec) -> Measured:
    """Let a policy answer the tasks and write queries."""
    module, data = _built(spec.config)
    found = heldout_reward(module.rewards, data.heldout_reward)
    assert found is not None
    reward = found[0]
    assert isinstance(reward, VerifiableReward)
    settings = replace(module.policy_settings, init_adapter=spec.adapter, reference="base")
    policy = Policy.from_settings(settings)
    player = Player.local(policy)
    tasks = read_queries(spec.tasks, "tasks")
    sampling = replace(data.solver, temperature=spec.temperature)
    exam = Exam.of(player.codec, tasks, reward, sampling, data.solver_prompt, spec.draws, spec.seed)
    asked = exam.drawn_from("heldout")
    few = slice(None, None, spec.curve_every)
    many = replace(exam, tasks=exam.tasks[few], prompts=exam.prompts[few], draws=spec.curve_draws)
    met = _queries_met(spec.met_in)
    return Measured(
        right=_right(asked, player),
        draws=spec.draws,
        greedy=_right(asked.greedy, player),
        met=tuple(int(task.text in met) for task in tasks),
        levels=_levels([task.text for task in tasks], reward),
        curve=_right(many.drawn_from("curve"), player) if spec.curve_draws else (),
        curve_draws=spec.curve_draws,
        curve_every=spec.curve_every,
        queries=_written(spec, data, player, reward) if spec.queries else {},
    )


def _levels(queries: Sequence[str], reward: VerifiableReward) -> tuple[int, ...]:
    """The level of each query, by the verifier; empty if it knows no levels."""
    known = [(reward.verifier.describe(query) or {}).get("level") for query in queries]
    levels = tuple(int(level) for level in known if isinstance(level, int | float))
    return levels if len(levels) == len(queries) else ()


def _built(config: dict[str, Any]) -> tuple[SelfPlayModule, SelfPlayDataModule]:
    """The module and the data of a config, with nothing loaded."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(SelfPlayModule, "model")
    parser.add_lightning_class_args(SelfPlayDataModule, "data")
    parts = {name: config[name] for name in ("model", "data")}
    made = parser.instantiate(parser.parse_object(parts))
    return made.model, made.data


def _right(exam: Exam, player: Player) -> tuple[int, ...]:
    """Right answers to each task; an answer that could not be judged is not right."""
    at_once = max(1, _ROWS_AT_ONCE // exam.draws)
    counts: list[Tensor] = []
    for start in range(0, len(exam.tasks), at_once):
        part = slice(start, start + at_once)
        some = replace(exam, tasks=exam.tasks[part], prompts=exam.prompts[part])
        counts.append(some.take(player).scores.eq(1).sum(1))
    return tuple(torch.cat(counts).tolist())


def _queries_met(folders: Sequence[str]) -> set[str]:
    """All queries that were answered in some runs. By chance, some may be held-out tasks."""
    rows = (row for folder in folders for row in RunFolder(folder).transcripts())
    return {row["query"] for row in rows if row["answer"] is not None}


def _written(
    spec: Spec, data: SelfPlayDataModule, player: Player, reward: VerifiableReward
) -> dict[str, float]:
    """Figures of the queries that the policy writes as the Challenger."""
    source = data.queries
    if not source.selfplay:
        changed = merged(spec.config, {"data": {"queries": spec.challenger}})
        source = _built(changed)[1].queries
    texts = source.draw(player, spec.queries, 0, spec.seed + _CHALLENGER_SEED).texts
    known = [info for text in texts if (info := reward.verifier.describe(text)) is not None]
    found = {
        "malformed": 1 - len(known) / len(texts),
        "distinct": len(set(texts)) / len(texts),
    }
    for name in sorted({name for info in known for name in info}):
        found |= info_metrics(name, [info.get(name) for info in known])
    return {name.removeprefix("queries/"): value for name, value in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
