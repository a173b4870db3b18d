"""The page on runs says what the watch on collapse does, and its table is of the rows."""

import json
from pathlib import Path

import pytest

from benchmarks import collapse_watch
from lsp_lightning.runs import RunFolder

PAGE = (Path(__file__).parent.parent / "docs/runs-and-metrics.md").read_text("utf-8")
RESULTS = json.loads(collapse_watch.RESULT.read_text("utf-8"))
SEEDS = (0, 1, 2)


def test_the_page_has_the_symptoms_and_the_runs():
    assert "\n".join(collapse_watch.symptom_lines()) in PAGE
    assert "\n".join(collapse_watch.table_lines(RESULTS)) in PAGE


@pytest.mark.parametrize("seed", SEEDS)
def test_lsp_zero_is_called_early_with_and_without_a_parser(seed):
    run = RESULTS[f"tiny_lsp_zero-{seed}"]
    for kind in ("found", "without a parser"):
        assert run[kind][0][0] < run["malformed"], kind


@pytest.mark.parametrize(
    "arm", ["LSP_recommended", "learnability_gate_and_pool", "tiny_grpo", "pool"]
)
def test_healthy_runs_are_not_warned_of(arm):
    assert [RESULTS[f"{arm}-{seed}"]["found"] for seed in SEEDS] == [[], [], []]


def test_a_run_of_an_earlier_version_is_replayed_from_its_transcripts(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {}\n")
    lines = ["step,queries/tokens,queries/verifiable/malformed"]
    rows = []
    for index in range(20):
        lines.append(f"{index},5.0,{0.1 if index < 5 else 0.9}")
        for number in range(2):
            rows += [
                {
                    "round": index,
                    "number": number,
                    "query": f"query {number}",
                    "answer": "4",
                    "R": R,
                }
                for R in (0.0, float(index < 5))
            ]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "transcripts").mkdir()
    shard = tmp_path / "transcripts" / "open.jsonl"
    shard.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rounds = collapse_watch.rows_of(RunFolder(tmp_path))
    assert [row["queries/seen_exact"] for row in rounds[:3]] == [0.0, 1.0, 1.0]
    assert (rounds[0]["solve_rate"], rounds[19]["queries/unsolved"]) == (0.5, 1.0)
    found = [(one.last, one.symptom.name) for one in collapse_watch.findings(rounds, {})]
    assert found == [(14, "malformed queries")]
