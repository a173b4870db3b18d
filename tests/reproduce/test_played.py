"""Comparisons that are really played, small: processes, interruptions, failures, results."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from lsp_lightning import ConfigError
from lsp_lightning.paths import resolve
from lsp_lightning.reproduce.arms import Arm, Stage
from lsp_lightning.reproduce.comparison import Comparison, Play
from lsp_lightning.reproduce.pool import Pool, Watcher
from lsp_lightning.reproduce.results import write_results
from lsp_lightning.reproduce.tiny import tiny_world


def small(tmp_path, folder="out", rounds=3, **changes):
    """The tiny world with few tasks, queries and answers."""
    tasks = tmp_path / "tasks.jsonl"
    lines = resolve(tiny_world().tasks).read_text().splitlines()
    tasks.write_text("\n".join(lines[::40]) + "\n")
    fewer = {"num_queries": 4, "group_size": 2, "heldout": None, "test": None}
    world = replace(
        tiny_world(),
        tasks=str(tasks),
        draws=2,
        queries=8,
        curve_draws=4,
        settings={"data": fewer},
        **changes,
    )
    comparison = Comparison(world, tmp_path / folder, rounds)
    comparison.claim()
    return comparison


class Diary(Watcher):
    """Remembers what happened."""

    def __init__(self):
        self.done, self.lost = [], {}

    def ended(self, job, seconds):
        self.done.append((type(job).__name__, job.run))

    def failed(self, failure):
        self.lost[type(failure.job).__name__, failure.job.run] = failure.reason


def play(comparison, names, seeds, processes=2, watcher=None):
    """Do what is left to do. -> what was done."""
    diary = watcher or Diary()
    jobs = comparison.jobs([comparison.world.arm(name) for name in names], seeds)
    Pool(comparison, processes, diary).run([job for job in jobs if not comparison.is_done(job)])
    return diary


def rows_of(results):
    """The rows of all arms and seeds, without what a clock has measured."""
    return {
        (arm, seed): {name: value for name, value in row.items() if name != "seconds"}
        for arm, found in results["arms"].items()
        for seed, row in found["seeds"].items()
    }


def test_a_run_is_played_measured_and_never_again(tmp_path):
    comparison = small(tmp_path, rounds=1)
    diary = play(comparison, ["grpo"], [0])
    assert diary.done == [("Play", "grpo-0"), ("Measure", "grpo-0")]
    assert play(comparison, ["grpo"], [0]).done == []
    results, table = write_results(comparison)
    assert json.loads((comparison.out / "results.json").read_text()) == results
    assert (comparison.out / "results.md").read_text() == table
    row = results["arms"]["grpo"]["seeds"]["0"]
    assert len(row["right"].split()) == len(row["met"].split()) == 12
    assert 0 < row["sampled"] <= 1
    assert {"level 1", "level 3", "queries, malformed", "KL, Solver", "pass@2"} <= set(row)
    assert list(row["pass@k"]) == ["1", "2", "4"]
    # other settings would be mixed with these
    other = replace(comparison, world=replace(comparison.world, settings={}))
    [job] = [job for job in other.jobs([other.world.arm("grpo")], [0]) if isinstance(job, Play)]
    with pytest.raises(ConfigError, match=r"'.*grpo-0' was played with other settings; give"):
        other.is_done(job)
    comparison.config_path("grpo-0").write_text("model: [")
    [job, _] = comparison.jobs([comparison.world.arm("grpo")], [0])
    with pytest.raises(ConfigError, match="was played with other settings"):
        comparison.is_done(job)
    with pytest.raises(ConfigError, match="has a comparison with world tiny, rounds 1, model None"):
        replace(comparison, rounds=2).claim()


def test_a_folder_is_played_in_by_one_command_at_a_time(tmp_path):
    comparison = small(tmp_path)
    pool = Pool(comparison, 1, Watcher())
    with pool._alone(), pytest.raises(ConfigError, match="runs are still being played in"):
        play(comparison, ["base"], [0])


class Interrupting(Diary):
    """Presses Ctrl-C as soon as a run has a checkpoint."""

    def __init__(self, comparison):
        super().__init__()
        self.comparison = comparison

    def looked(self, running):
        for one in running:
            if self.comparison.folder(one.job.run).checkpoint_path.is_file():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)


@pytest.mark.slow
def test_an_interrupted_comparison_continues_and_ends_with_the_same_results(tmp_path):
    names, seeds = ["grpo", "lsp", "grpo-lsp"], [0, 1]
    whole, parts = (small(tmp_path, folder) for folder in ("whole", "parts"))
    diary = play(whole, names, seeds)
    assert [run for kind, run in diary.done if kind == "Play"].count("grpo-0") == 1
    assert len(diary.done) == 6 + 6
    expected = rows_of(write_results(whole)[0])
    with pytest.raises(KeyboardInterrupt):
        play(parts, names, [0], watcher=Interrupting(parts))
    assert not parts.is_played("grpo-lsp-0")
    left = subprocess.run(["pgrep", "-f", str(parts.out)], capture_output=True, text=True)
    assert not left.stdout.strip()
    play(parts, names, [0])
    found = rows_of(write_results(parts)[0])
    assert len(found) == 3
    assert found == {key: row for key, row in expected.items() if key in found}
    assert "| GRPO, then LSP (recommended) | 2 |" in (whole.out / "results.md").read_text()


@pytest.mark.slow
def test_a_failed_run_is_told_by_its_last_line_and_the_rest_goes_on(tmp_path):
    broken = Stage("broken", "tiny_grpo", {"model": {"beta": -1}})
    grpo = tiny_world().arm("grpo").stages[0]
    arms = (
        Arm("broken", "broken", "", (broken,)),
        Arm("broken-grpo", "after it", "", (broken, grpo)),
        Arm("base", "base", ""),
    )
    comparison = small(tmp_path, arms=arms)
    diary = play(comparison, ["broken", "broken-grpo", "base"], [0])
    assert diary.done == [("Measure", "base-0")]
    log = comparison.log_path("broken-0")
    reason = diary.lost["Play", "broken-0"]
    assert re.fullmatch(rf"error: model\.beta: .* \({re.escape(str(log))}\)", reason)
    for job in (("Measure", "broken-0"), ("Play", "broken-grpo-0")):
        assert diary.lost[job] == "broken-0 failed"
    assert diary.lost["Measure", "broken-grpo-0"] in ("broken-0 failed", "broken-grpo-0 failed")
    assert list(write_results(comparison)[0]["arms"]) == ["base"]


@pytest.mark.slow
def test_the_command_plays_prints_tables_and_shows_them_again(tmp_path):
    command = [sys.executable, "-m", "lsp_lightning", "reproduce", "--out", str(tmp_path / "out")]
    flags = ["--arms", "base-0.3", "--seeds", "3", "--rounds", "1"]
    ran = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("# Comparison in the world tiny")
    assert "0 runs to play, 1 policy to score, " in ran.stderr
    assert re.search(r"\[1/1\] score base-0\.3-3 in \d+ (s|min); about 0 s left", ran.stderr)
    again = subprocess.run([*command, "--table", "--json"], capture_output=True, text=True)
    assert json.loads(again.stdout) == json.loads((tmp_path / "out/results.json").read_text())
