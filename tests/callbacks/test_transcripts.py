"""What was said is kept whole, whatever characters it holds."""

import json
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from handmade import FixedReward, playout, scored_round

from lsp_lightning.callbacks.transcripts import close_shard, rows
from lsp_lightning.rewards import score_all

NAN = math.nan


def shard(folder, rows):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "open.jsonl").write_text(lines, encoding="utf-8")


def test_line_separators_inside_of_an_answer_end_no_row(tmp_path):
    rows = [{"round": 0, "answer": text} for text in ("a", "b\u2028c", "d\u0085e", "f\u2029g", "h")]
    shard(tmp_path, rows)
    close_shard(tmp_path)
    [path] = tmp_path.glob("*.parquet")
    assert pq.read_table(path).to_pylist() == rows
    assert not (tmp_path / "open.jsonl").exists()


def test_a_row_cut_off_by_a_crash_is_dropped_and_no_other(tmp_path):
    shard(tmp_path, [{"round": 0, "answer": "a"}, {"round": 0, "answer": "b"}])
    with (tmp_path / "open.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"round": 1, "ans')
    close_shard(tmp_path)
    [path] = tmp_path.glob("*.parquet")
    assert [row["answer"] for row in pq.read_table(path).to_pylist()] == ["a", "b"]


def test_facts_of_several_types_become_text(tmp_path):
    shard(tmp_path, [{"round": 0, "query/size": "big"}, {"round": 0, "query/size": 3.0}])
    close_shard(tmp_path)
    [path] = tmp_path.glob("*.parquet")
    assert pq.read_table(path)["query/size"].to_pylist() == ["big", "3.0"]


@pytest.mark.parametrize(
    ("task", "quality", "r", "q"),
    [
        # filled in for training are 1, 1 | 0, 0 for R
        ([[1.0, NAN], [NAN, NAN]], [[0.5, 0.5]] * 2, [1.0, NAN, NAN, NAN], [0.5] * 4),
        ([[1.0, 0.0], [1.0, 1.0]], [[NAN, 0.5], [NAN, NAN]], [1.0, 0, 1, 1], [NAN, 0.5, NAN, NAN]),
    ],
)
def test_an_answer_that_a_reward_could_not_judge_has_no_number(task, quality, r, q):
    rewards = [FixedReward(task), FixedReward(quality, name="q", enters="quality")]
    scored = score_all(rewards, playout(["a", "b"], [["x", "y"]] * 2))
    played = replace(
        scored_round(scored.rewards_NG.tolist(), quality=scored.quality_NG.tolist()),
        unfilled=scored.unfilled,
    )
    found = list(rows(played))
    assert [row["R"] for row in found] == pytest.approx(r, nan_ok=True)
    assert [row["Q"] for row in found] == pytest.approx(q, nan_ok=True)


def test_a_round_made_by_hand_shows_no_number_where_nothing_was_judged():
    found = list(rows(scored_round([[1.0, 0.0], [0.0, 0.0]], judged=[True, False])))
    assert [row["R"] for row in found] == pytest.approx([1.0, 0.0, NAN, NAN], nan_ok=True)
    assert [row["Q"] for row in found] == [None] * 4
