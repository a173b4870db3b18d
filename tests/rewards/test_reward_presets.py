"""The reward presets play: a small round each by the command line, and what they log."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from boxes import require_bubblewrap

from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
WORLD = ROOT / "lsp_lightning/tinyworld"

pytestmark = pytest.mark.usefixtures("untouched_process")


def play(folder, tasks, *configs, more=()):
    """The round's row of the table, its summary, and its transcripts."""
    few = folder / "tasks.jsonl"
    few.write_text("\n".join((WORLD / "data" / tasks).read_text().splitlines()[:2]) + "\n")
    run = folder / "run"
    arguments = [word for name in configs for word in ("--config", str(ROOT / "configs" / name))]
    arguments += ["--trainer.default_root_dir", str(run), "--trainer.max_steps", "1"]
    arguments += ["--data.num_queries", "16", "--data.group_size", "2"]
    assert main(["fit", *arguments, "--data.heldout", str(few), *more]) == 0
    with (run / "metrics.csv").open(newline="") as file:
        [row] = [row for row in csv.DictReader(file) if row["reward"]]
    [shard] = (run / "transcripts").glob("*.parquet")
    return row, json.loads((run / "summary.json").read_text()), pq.read_table(shard).to_pylist()


def test_a_reward_model_plays_and_the_truth_looks_on(tmp_path):
    row, summary, answers = play(tmp_path, "dev.jsonl", "tiny_preference.yaml")
    assert {"reward/preference", "reward/true_score", "reward/self_reward"} <= row.keys()
    assert float(row["preference/cut"]) == 0
    assert summary["heldout_after"]["n"] == 2  # by the program, which is not paid
    preferred = torch.tensor([a["reward/preference"] for a in answers])
    true = torch.tensor([a["reward/true_score"] for a in answers])
    assert preferred[true == 1].mean() > preferred[true == 0].mean()
    # R is the standardised preference alone: its order, whatever is true
    by_preference = sorted(answers, key=lambda a: a["reward/preference"])
    assert [a["R"] for a in by_preference] == sorted(a["R"] for a in answers)
    assert len({a["R"] for a in answers}) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "sandbox", ["MontySandbox", pytest.param("BubblewrapSandbox", marks=pytest.mark.slow)]
)
def test_programs_are_written_run_and_predicted(tmp_path, sandbox):
    if sandbox == "BubblewrapSandbox":
        require_bubblewrap()
    overlay = tmp_path / "sandbox.yaml"
    overlay.write_text(
        "model:\n  rewards:\n  - class_path: lsp_lightning.VerifiableReward\n    init_args:\n"
        "      verifier:\n        class_path: lsp_lightning.ProgramOutputVerifier\n"
        f"        init_args: {{worlds: 2, sandbox: {{class_path: lsp_lightning.{sandbox}}}}}\n"
    )
    more = ("--config", str(overlay)) if sandbox == "BubblewrapSandbox" else ()
    row, summary, answers = play(tmp_path, "programs_dev.jsonl", "tiny_programs.yaml", more=more)
    assert summary["rounds"] == 1
    assert 0 <= float(row["queries/verifiable/malformed"]) <= 1
    well_formed = [a for a in answers if not a["query/verifiable/malformed"]]
    assert well_formed
    assert all(a["reward/verifiable"] == 0 for a in answers if a["query/verifiable/malformed"])
    assert all("print(" in a["query"] for a in well_formed)


def test_two_sandboxes_agree_about_the_shipped_programs():
    require_bubblewrap()
    from lsp_lightning import BubblewrapSandbox, MontySandbox
    from lsp_lightning.sandbox import Program

    lines = (WORLD / "data/programs_dev.jsonl").read_text().splitlines()[::40]
    tasks = [json.loads(line) for line in lines]
    programs = [Program(task["query"]) for task in tasks]
    for sandbox in (MontySandbox(), BubblewrapSandbox()):
        outcomes = sandbox.run_all(programs)
        sandbox.close()
        assert [o.output.strip() for o in outcomes] == [task["reference"] for task in tasks]
