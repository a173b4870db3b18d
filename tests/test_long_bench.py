"""The evidence about long games: its tables stand in the results, and its figures are of runs."""

import json
from pathlib import Path
from statistics import mean

import pytest

from benchmarks import tiny_long, way_back
from benchmarks.tiny_long import read_rows, windows, write_rows
from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/results.md").read_text("utf-8")


@pytest.mark.parametrize("benchmark", [tiny_long, way_back])
def test_the_tables_of_the_results_are_printed_from_the_rows(benchmark):
    lines = benchmark.table_lines(read_rows(benchmark.RESULT))
    assert len(lines) > 6
    assert "\n".join(lines) in PAGE


def test_the_table_of_what_keeps_the_game_wide_is_printed_from_the_rows():
    assert "\n".join(tiny_long.wide_lines(read_rows(tiny_long.RESULT))) in PAGE


def test_the_cross_play_of_the_results_is_of_the_file():
    found = json.loads((ROOT / "benchmarks/crossplay.json").read_text("utf-8"))

    def rating(role, i):
        one = found["ratings"][role][i]
        return f"{one['rating']:+.0f} [{one['low']:+.0f}, {one['high']:+.0f}]"

    for i, player in enumerate(found["players"]):
        cells = [f"{share:.2f}" for share in [*found["solve_rate"][i], found["malformed"][i]]]
        line = " | ".join([player, *cells, rating("challenger", i), rating("solver", i)])
        assert f"| {line} |" in PAGE


def test_a_wide_game_fulfils_all_four_conditions():
    run = [{"round": 900, "sampled": 0.93}]
    last = {"round": 1000, "sampled": 0.92, "malformed": 0.09, "families": 5, "level": 2.1}

    def shown(**changed):
        rows = {"long, band-0": [*run, {**last, **changed}]}
        return tiny_long.wide_lines(rows)[-1].split(" | ")[-2:]

    assert shown() == ["yes", "1 |"]
    for bad in ({"sampled": 0.9}, {"malformed": 0.1}, {"families": 3}, {"level": 2.01}):
        assert shown(**bad) == ["no", "0 |"], bad


def test_the_summary_of_gate_and_pool_is_of_the_rows():
    rows = read_rows(tiny_long.RESULT)

    def summary(arm):
        last = [rows[f"{arm}-{seed}"][-1] for seed in (0, 1, 2)]
        assert {row["round"] for row in last} == {1000}
        score = f"{mean(row['sampled'] for row in last):.2f}".lstrip("0")
        return f"{score}, {mean(row['families'] for row in last):.1f}"

    page = (ROOT / "docs/gate-and-pool.md").read_text("utf-8")
    for objective in ("Paper", "Learnability"):
        parts = ("", ", gate", ", pool", ", gate and pool")
        cells = " | ".join(summary(f"{objective.lower()}{part}") for part in parts)
        assert f"| `{objective}` | {cells} |" in page


@pytest.mark.usefixtures("untouched_process")
def test_figures_are_about_what_the_challenger_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    flags = ["--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}"]
    few = ["--data.heldout=null", "--trainer.val_check_interval=null", "--data.num_queries=8"]
    few += ["--data.pool.rest=0"]  # so that the second round replays the first
    assert main(["fit", "--config=configs/tiny_lsp.yaml", *flags, *few]) == 0
    metrics = RunFolder(tmp_path).metrics()
    [one, two] = windows(tmp_path, every=1)
    for found, row in zip((one, two), metrics, strict=True):
        assert found["drawn"] == row["gate/drawn"]
        assert found["malformed"] == pytest.approx(row["gate/malformed"], abs=1e-4)
        assert found["solve rate"] == pytest.approx(row["value"], abs=1e-4)
        assert found["distinct"] == 1  # the gate lets no repetition through
    assert metrics[1]["pool/replayed"] > 0
    written = metrics[1]["gate/played"] - metrics[1]["pool/replayed"]
    known = {
        row["query"]
        for row in RunFolder(tmp_path).transcripts()
        if row["round"] == 1 and row["answer"] is not None and not row["replayed"]
    }
    assert len(known) == written


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = {"b-0": [{"round": 100, "level": 1.5}], "a-0": []}
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows
    assert read_rows(tmp_path / "none.json") == {}
