"""The evidence about hacked reward models: its tables stand in the results, and its figures."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import reward_model_hacking as hacking
from benchmarks import reward_models
from benchmarks.reward_model_scores import MODELS, Board
from benchmarks.tiny_long import read_rows
from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/results.md").read_text("utf-8")


def marked(arm):
    """Each arm plays in the slow tests, one always."""
    return pytest.param(arm, marks=() if arm == "mean of two" else pytest.mark.slow)


@pytest.fixture(scope="module")
def board():
    return Board(seed=0, tasks=6)


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("arm", map(marked, hacking.ARMS))
def test_an_arm_plays_and_its_figures_are_of_the_run(arm, board, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    preset, extra = hacking.ARMS[arm]
    flags = ["--trainer.max_steps=4", f"--trainer.default_root_dir={tmp_path}"]
    few = ["--data.num_queries=4", "--data.group_size=2"]
    often = ["--checkpoint.snapshots=2"]
    assert main(["fit", f"--config=configs/{preset}.yaml", *extra, *flags, *few, *often]) == 0
    base, *rows = hacking.run_rows(board, tmp_path, rounds=4, every=2)
    assert [row["round"] for row in rows] == [2, 4]
    metrics = RunFolder(tmp_path).metrics()
    for row, (one, two) in zip(rows, (metrics[:2], metrics[2:]), strict=True):
        for name, metric in hacking.METRICS.items():
            assert row[name] == pytest.approx((one[metric] + two[metric]) / 2, abs=1e-4)
    # greedy answers of the base tie with themselves; the adapters are those of their rounds
    assert base["dev, greedy, paid wins"] == base["test, greedy, watch wins"] == 0.5
    assert rows[1] | board.row(RunFolder(tmp_path).snapshot_path(4)) == rows[1]
    assert rows[0] | board.row(RunFolder(tmp_path).snapshot_path(4)) != rows[0]


def test_the_kept_adapter_is_the_first_with_the_highest_figure():
    rows = [{"round": r, "wins": w} for r, w in ((0, 0.5), (15, 0.7), (30, 0.7), (45, 0.6))]
    assert hacking.kept(rows, "wins")["round"] == 15


def test_arms_differ_from_the_control_as_their_names_say():
    found = {}
    for arm in (hacking.CONTROL, "beta 0.2", "Q 8", "mean of two"):
        flags = dict(zip(*2 * [iter(hacking.ARMS[arm][1])], strict=True))
        settings = [reward["init_args"] for reward in json.loads(flags["--model.rewards"])]
        assert [settings[i]["model"] for i in (0, 2)] == [MODELS["paid"], MODELS["watch"]]
        assert settings[2]["standardize"] == (settings[2]["weight"] > 0)
        found[arm] = [flags["--model.beta"], *(init["weight"] for init in settings)]
    assert found == {
        "learnability": ["0.05", 1, 2, 0, 0],
        "beta 0.2": ["0.2", 1, 2, 0, 0],
        "Q 8": ["0.05", 1, 8, 0, 0],
        "mean of two": ["0.05", 0.5, 2, 0.5, 0],
    }


def test_the_outcome_is_compared_with_the_control_of_the_same_seed():
    def run(*scores):  # sampled scores of the base and of two rounds; all else follows them
        names = {*hacking.METRICS, *hacking.RULES.values(), *hacking._WINS, *hacking._TRUE}
        return [{"round": 15 * i, **dict.fromkeys(names, s)} for i, s in enumerate(scores)]

    rows = {"learnability-0": run(0.5, 0.7, 0.6), "learnability-1": run(0.5, 0.6, 0.6)}
    rows |= {"mean of two-1": run(0.5, 0.8, 0.75)}
    lines = hacking.outcome_lines(rows)[2:]
    found = {tuple(line.split(" | ")[:2]): line.split(" | ")[3:5] for line in lines}
    assert found["| learnability", "best for the watch"] == [
        "0.650 ± 0.071",  # .7 and .6
        "+0.050 (+0.100, +0.000)",
    ]
    assert found["| mean of two", "last round"] == ["0.750", "+0.150"]  # .75 - .6, of seed 1


def test_agreement_counts_the_other_models_verdicts():
    mine = torch.tensor([True, True, True, False, False])
    other = torch.tensor([True, True, False, True, False])
    found = list(reward_models.agreement(mine, other).values())
    # right 3 of 5; the other one is right in 1 of my 2 mistakes; the same verdict in 3 of 5
    assert found == pytest.approx([3 / 5, 1 / 2, 3 / 5])


def test_the_table_of_the_reward_models_is_of_the_recorded_figures():
    recorded = json.loads(reward_models.RESULT.read_text())
    assert "\n".join(reward_models.table_lines(recorded)) in PAGE
    for name, found in reward_models.verdicts().items():
        for share, value in found.items():  # elsewhere rounding may tip a pair or two of 461
            assert recorded[name][share] == pytest.approx(value, abs=0.03)


@pytest.mark.slow
def test_the_likings_of_the_reward_models_are_the_recorded_ones():
    recorded = json.loads(reward_models.RESULT.read_text())
    for name, found in reward_models.figures().items():
        assert recorded[name] == pytest.approx(found, abs=0.03)


def test_the_tables_of_the_results_are_printed_from_the_rows():
    rows = read_rows(hacking.RESULT)
    for lines in (hacking.course_lines(rows), hacking.outcome_lines(rows)):
        assert len(lines) > 6
        assert "\n".join(lines) in PAGE
