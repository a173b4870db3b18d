"""Files that training does not need stop no resumed run: a damaged one is set aside."""

import os

import pyarrow.parquet as pq
import pytest

from lsp_lightning import errors
from lsp_lightning.callbacks import RunTable
from lsp_lightning.callbacks.transcripts import _forget_from, close_shard
from lsp_lightning.runs import RunFolder


@pytest.fixture(autouse=True)
def warned(monkeypatch):
    """The warnings of this package."""
    found = []
    monkeypatch.setattr(errors, "_warned", set())
    monkeypatch.setattr(errors, "show_warning", found.append)
    return found


TABLE = b"step,epoch,reward\n0,0.0,0.5\n1,0.0,0.75\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace(b"0.75", b"0.\xff5"),
        TABLE.replace(b"0.75", b"0.\x005"),
        TABLE.replace(b"0.75", b"half"),
        TABLE.replace(b"0.75", b"1,2,3"),
        TABLE.replace(b"step", b"stop"),
        TABLE.replace(b"0,0.0,0.5", b"x,0.0,0.5"),
        bytes(200) + b"\n" + TABLE,
        b"PK\x03\x04 not a table\nat all\n",
    ],
)
def test_a_damaged_table_is_set_aside(content, warned, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    RunTable(tmp_path).log_metrics({"reward": 1.0}, 2)
    assert RunFolder(tmp_path).metrics() == [{"step": 2, "reward": 1}]
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == content
    [line] = warned
    assert str(path) in line
    assert "keeps it as 'metrics.csv.damaged'" in line


@pytest.mark.parametrize("tail", [b"", b"2", b"2,0.0", b"2,0.0,0.", b"\x00\x00"])
def test_a_line_that_a_crash_cut_off_costs_no_other(tail, warned, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(TABLE + tail)
    RunTable(tmp_path).log_metrics({"reward": 1.0}, 2)
    rows = RunFolder(tmp_path).metrics()
    assert [(row["step"], row["reward"]) for row in rows] == [(0, 0.5), (1, 0.75), (2, 1)]
    assert warned == []


def shard(folder, first):
    lines = [f'{{"round": {i}, "answer": "a{i}"}}\n' for i in range(first, first + 3)]
    (folder / "open.jsonl").write_text("".join(lines))


def rounds_in(folder):
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return [row["round"] for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_bytes(path.read_bytes()[:-20] + bytes(20)),
        lambda path: path.write_text("text"),
        lambda path: pq.write_table(pq.read_table(path).drop(["round"]), path),
    ],
)
def test_a_damaged_parquet_file_is_set_aside(damage, warned, tmp_path):
    for first in (0, 3):
        shard(tmp_path, first)
        close_shard(tmp_path)
    damage(tmp_path / "rounds-000000.parquet")
    content = (tmp_path / "rounds-000000.parquet").read_bytes()
    _forget_from(tmp_path, 5)
    assert rounds_in(tmp_path) == [3, 4]
    assert (tmp_path / "rounds-000000.parquet.damaged").read_bytes() == content
    assert len(warned) == 1


@pytest.mark.parametrize(
    "line", [b"{\x00", b'{"answer": "no round"}', b"[1]", b'{"round": "1"}', b"\xff", b"[" * 10**5]
)
def test_a_damaged_line_costs_no_other_line(line, warned, tmp_path):
    shard(tmp_path, 0)
    path = tmp_path / "open.jsonl"
    lines = path.read_bytes().splitlines()
    lines[1] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    _forget_from(tmp_path, 5)
    close_shard(tmp_path)
    assert rounds_in(tmp_path) == [0, 2]
    assert line in (tmp_path / "open.jsonl.damaged").read_bytes()
    assert len(warned) == 1


def test_the_open_file_is_never_half_written(tmp_path, monkeypatch):
    shard(tmp_path, 0)
    before = (tmp_path / "open.jsonl").read_bytes()

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        _forget_from(tmp_path, 2)
    assert (tmp_path / "open.jsonl").read_bytes() == before


@pytest.mark.parametrize("more", ['[1, "x"]', '{"a": [1, {}]}', str(2**70), "[[1], 2]"])
def test_values_that_no_table_can_hold_end_no_run(more, warned, tmp_path):
    path = tmp_path / "open.jsonl"
    path.write_text(
        f'{{"round": 0, "query": "q", "answer": {more}}}\n{{"round": 1, "query": "q"}}\n'
    )
    close_shard(tmp_path)
    [line] = warned
    assert "is damaged" in line
    assert (tmp_path / "open.jsonl.damaged").is_file()
