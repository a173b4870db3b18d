"""What was said is kept whole, whatever characters it holds."""

import json

import pyarrow.parquet as pq

from lsp_lightning.callbacks.transcripts import close_shard


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
