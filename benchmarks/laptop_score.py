"""Scores of one policy on the held-out instructions, and figures of the run that trained it.

All answers are kept in the run's folder. So an interrupted scoring continues, and other figures can
be made of the same answers later.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import ifeval
from benchmarks.runs import window
from lsp_lightning import InstructionVerifier, Player, Policy, Query
from lsp_lightning.checks.constraint_kinds import words
from lsp_lightning.checks.constraints import parse_constraints
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.functional.evaluation import mean_and_error, pass_at_k, task_means
from lsp_lightning.rewards import judge_playout
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.transcripts import by_query, is_answer
from lsp_lightning.runs.writing import write_text
from lsp_lightning.training.batches import by_row, pack
from lsp_lightning.types import Playout, SelfPlayRound

DRAWS = 8
#: The temperature of each way to answer.
WAYS = {"T 1": 1.0, "T .7": 0.7, "greedy": 0.0}
#: Answers that are sampled together and then written. It does not change what is sampled.
_ROWS_AT_ONCE = 200
#: Answers to each task that the base reads: a pass over one costs as much as sampling it.
_READ = 2
#: Most tokens in a pass of the base over the answers.
_PASS_TOKENS = 4096
#: Rounds that "first" and "last" figures of a run are averaged over.
_FIRST, _LAST = 5, 10
_TOPIC = re.compile(r"\s*write about\s+([^.\n]+)", re.IGNORECASE)
_MALFORMED = re.compile(r"queries/.+/malformed")

Row = dict[str, Any]


def exam_of(exam: Exam, temperature: float) -> Exam:
    """The exam at another temperature; one draw if it is greedy."""
    if temperature == 0:
        return exam.greedy
    return replace(exam, sampling=replace(exam.sampling, temperature=temperature))


def take(policy: Policy, exam: Exam, model: Row, path: Path) -> list[Row]:
    """Let the policy answer the tasks; continue from the answers in ``path``, and write it.

    Args:
        policy: the policy.
        exam: the tasks.
        model: see :func:`model_name`; answers of another model are dropped.
        path: JSON lines: what was answered by whom, then a row for each answer, task by task.
    """
    head = {
        **model,
        "tasks": tasks_digest(exam.tasks),
        "sampling": asdict(exam.sampling),
        "draws": exam.draws,
        "seed": exam.seed,
        "dtype": str(policy.dtype),
    }
    kept = read_answers(path) if path.is_file() else (head, [])
    rows = kept[1] if kept[0] == head else []
    at_once = max(1, _ROWS_AT_ONCE // exam.draws)
    for start in range(len(rows) // exam.draws, len(exam.tasks), at_once):
        part = slice(start, start + at_once)
        rows += _answered(policy, replace(exam, tasks=exam.tasks[part], prompts=exam.prompts[part]))
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(line, ensure_ascii=False) for line in (head, *rows))
        write_text(path, "".join(f"{line}\n" for line in lines))
        print(f"{path}: {len(rows) // exam.draws} of {len(exam.tasks)} tasks", flush=True)
    return rows


def model_name(base: str, adapter: Path | None) -> Row:
    """What tells a base with an adapter, or without one, from others."""
    weights = (adapter / "adapter_model.safetensors").read_bytes() if adapter else b""
    return {"base": base, "adapter": _digest(weights) if adapter else None}


def read_answers(path: Path) -> tuple[Row, list[Row]]:
    """What was answered by whom, and the answers."""
    # not splitlines: an answer may contain other line separators
    head, *rows = map(json.loads, path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    return head, rows


def _answered(policy: Policy, exam: Exam) -> list[Row]:
    rollouts = Player.local(policy).respond(
        exam.prompts, exam.draws, exam.sampling, exam.task_seeds
    )
    texts = tuple(task.text for task in exam.tasks)
    playout = Playout(texts, rollouts, exam.draws)
    solved = judge_playout(exam.reward, playout).scores.flatten().tolist()
    tokens = rollouts.completion_mask.sum(1).tolist()
    nats = base_nats(policy, playout, [i for i in range(len(rollouts)) if i % exam.draws < _READ])
    return [
        {
            "query": texts[i // exam.draws],
            "answer": text,
            "solved": solved[i],
            "tokens": tokens[i],
            "truncated": bool(rollouts.truncated[i]),
            "nats": nats.get(i),
        }
        for i, text in enumerate(rollouts.spoken)
    ]


def base_nats(policy: Policy, playout: Playout, rows: Sequence[int]) -> dict[int, float]:
    """Negative log-likelihoods, in nats, of some answers under the base at temperature 1, by row.

    The token that ends an answer counts. The policy's reference must be the base.
    """
    answers = replace(playout.answers, temperature=1.0)
    nothing_NG = torch.zeros(len(playout.query_texts), playout.group_size)
    played = SelfPlayRound(0, replace(playout, answers=answers), nothing_NG, nothing_NG > 0)
    chosen = torch.zeros(len(answers), dtype=torch.bool)
    chosen[list(rows)] = True
    batches = pack(played, policy.pad_id, _PASS_TOKENS, policy.shares_prompts, chosen)
    found = by_row(batches, [policy.reference_logprobs(b.to(policy.device)) for b in batches])
    return {row: -float(found[row].sum()) for row in rows}


def figures(rows: Sequence[Row], draws: int, unseen: Tensor) -> Row:
    """Figures of the answers to all tasks: means over tasks, each with half a 95 % interval.

    Args:
        rows: the answers, task by task.
        draws: answers to each task.
        unseen: (tasks,) bool, whether no example has all kinds of the task's constraints.
    """

    def of(name: str) -> Tensor:
        return torch.tensor([float(row[name]) for row in rows]).view(-1, draws)

    nats = torch.tensor([torch.nan if (x := row["nats"]) is None else x for row in rows])
    nats = nats.view(-1, draws)

    solved = of("solved")
    lengths = [len(words(row["answer"])) for row in rows]
    found: Row = {
        "solved": figure(task_means(solved)),
        "solved, seen kinds": figure(task_means(solved[~unseen])),
        "solved, unseen kinds": figure(task_means(solved[unseen])),
        "solved, other task": figure(solves_others(rows[::draws])),
        "words": figure(torch.tensor(lengths, dtype=torch.float32).view(-1, draws).mean(1)),
        "tokens": figure(of("tokens").mean(1)),
        "truncated": figure(of("truncated").mean(1)),
        "nats a token": figure(nats.nansum(1) / (of("tokens") * ~nats.isnan()).sum(1)),
    }
    if draws > 1:
        found[f"pass@{draws}"] = figure(pass_at_k(solved, draws))
    # right answers to each task, one digit each, to pair the tasks of two policies
    found["right"] = "".join(str(int(right)) for right in solved.nansum(1))
    if ifeval.instructions() is not None:
        compared = ifeval.compare((row["query"], row["answer"]) for row in rows)
        found["ifeval"] = compared.figures()
    return found


def solves_others(rows: Sequence[Row]) -> Tensor:
    """How often each task is solved by the answers to the others: what ignoring the task scores.

    Args:
        rows: one answer to each task.

    -> (tasks,); NaN for a single task.
    """
    answers, check = [row["answer"] for row in rows], InstructionVerifier().check
    solved = torch.tensor([check(row["query"], answers, None) for row in rows])
    return (solved.sum(1) - solved.diagonal()) / (len(rows) - 1 or torch.nan)


def figure(values: Tensor) -> list[float]:
    """The mean over tasks and half of its 95 % interval, from values of (tasks,)."""
    mean, error = mean_and_error(values)
    return [round(float(mean), 4), round(1.96 * float(error), 4)]


def unseen_kinds(tasks: Sequence[Query], examples: Sequence[Query]) -> Tensor:
    """(tasks,) bool: the task has a kind of constraint that no example has."""
    seen = {kind for example in examples for kind in _kinds(example)}
    return torch.tensor([bool(_kinds(task) - seen) for task in tasks])


def _kinds(query: Query) -> set[str]:
    return {constraint.kind for constraint in parse_constraints(query.text) or ()}


def run_figures(path: Path) -> Row:
    """What a run's game was like in its first and last rounds."""
    run = RunFolder(path)
    metrics = run.metrics()
    rounds = int(max(row["step"] for row in metrics)) + 1
    malformed = next((name for row in metrics for name in row if _MALFORMED.fullmatch(name)), "")
    last = (max(1, rounds - _LAST + 1), rounds)
    if any("gate/drawn" in row for row in metrics):
        malformed = "gate/malformed"  # of all that were drawn
    seconds = [sum(v for n, v in row.items() if n.startswith("seconds/")) for row in metrics]
    found = {
        "rounds": rounds,
        "seconds a round": median(seconds),  # a run may have been paused
        "malformed, first": window(path, malformed, 1, _FIRST),
        "malformed, last": window(path, malformed, *last),
        "R": window(path, "reward", *last),
        "R, spread": window(path, "reward_std", *last),
        "KL, Solver": window(path, "kl/solver", *last),
        "KL, Challenger": window(path, "kl/challenger", *last),
        "drawn": window(path, "gate/drawn", 1, rounds),
        "passed": window(path, "gate/passed", 1, rounds),
    }
    answered = filter(is_answer, run.transcripts())
    played = [row for row in answered if row["round"] >= rounds - _LAST]
    check = InstructionVerifier().check
    right = [check(row["query"], [row["answer"]], None)[0] for row in played]
    found["solved, last"] = sum(right) / len(right)
    queries = [rows[0]["query"] for rows in by_query(played) if not rows[0].get("replayed")]
    topics = [match[1].casefold().split() for q in queries if (match := _TOPIC.match(q))]
    found["queries"] = len(queries)
    found["distinct queries"] = len({*queries}) / len(queries)
    found["topics"] = len({*map(tuple, topics)})
    return {name: round(x, 4) for name, x in found.items() if x == x}  # without NaN


def tasks_digest(tasks: Sequence[Query]) -> str:
    """A short name of exactly these tasks."""
    return _digest("\n\n".join(task.text for task in tasks).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
