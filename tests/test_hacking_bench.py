"""The evidence about hacked reward models: its tables stand in the results, and its figures."""

import json
from pathlib import Path

import pytest
import torch
from handmade import playout

from benchmarks import reward_model_hacking as hacking
from benchmarks import reward_models
from benchmarks.reward_model_scores import MODELS, Board
from benchmarks.tiny_long import read_rows
from benchmarks.two_reward_models import MinimumReward, adapter_after
from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/results.md").read_text("utf-8")


def marked(arm):
    """Each arm plays in the slow tests, the one with a reward of its own always."""
    return pytest.param(arm, marks=() if arm == "minimum of two" else pytest.mark.slow)


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
    keep = json.loads(extra[extra.index("--trainer.callbacks") + 1])
    keep["init_args"]["every"] = 2
    often = ["--trainer.callbacks", json.dumps(keep)]
    assert main(["fit", f"--config=configs/{preset}.yaml", *extra, *flags, *few, *often]) == 0
    base, *rows = hacking.run_rows(board, tmp_path, rounds=4, every=2)
    assert [row["round"] for row in rows] == [2, 4]
    metrics = RunFolder(tmp_path).metrics()
    for row, (one, two) in zip(rows, (metrics[:2], metrics[2:]), strict=True):
        for name, metric in hacking.METRICS.items():
            assert row[name] == pytest.approx((one[metric] + two[metric]) / 2, abs=1e-4)
    # greedy answers of the base tie with themselves; the adapters are those of their rounds
    assert base["dev, greedy, paid wins"] == base["test, greedy, watch wins"] == 0.5
    assert rows[1] | board.row(adapter_after(tmp_path, 4)) == rows[1]
    assert rows[0] | board.row(adapter_after(tmp_path, 4)) != rows[0]


def test_the_kept_adapter_is_the_first_with_the_highest_figure():
    rows = [{"round": r, "wins": w} for r, w in ((0, 0.5), (15, 0.7), (30, 0.7), (45, 0.6))]
    assert hacking.kept(rows, "wins")["round"] == 15
    assert hacking.kept(rows, None)["round"] == 45


def test_the_minimum_is_the_lower_of_two_standardised_scores(board):
    queries = ["7+5=?", "5+5=?"]
    playing = playout(queries, [["12", "13", "idk"], ["10", "1000", "?"]])
    reward = MinimumReward(list(MODELS.values()))
    reward.connect(board.reference)
    zs = []
    for member in reward.members:
        scores = member.score(playing).scores
        zs.append((scores - scores.mean()) / scores.std(correction=0))
    expected = torch.minimum(*zs)
    assert not torch.equal(expected, zs[0])  # each model is the lower one somewhere
    assert not torch.equal(expected, zs[1])
    torch.testing.assert_close(reward.score(playing), expected.float())


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
    for lines in (hacking.during_lines(rows), hacking.stopping_lines(rows)):
        assert len(lines) > 6
        assert "\n".join(lines) in PAGE
