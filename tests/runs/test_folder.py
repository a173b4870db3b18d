"""A run's folder is read by one class, without loading anything heavy; errors are one line."""

import json
import re
import subprocess
import sys

import pytest
import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint


@pytest.fixture
def run(tmp_path):
    """A folder as a run writes it."""
    (tmp_path / "config.yaml").write_text("data:\n  num_queries: 3\n")
    (tmp_path / "metrics.csv").write_text("step,heldout/greedy,reward\n0,0.25,\n0,,0.5\n1,,0.75\n")
    (tmp_path / "summary.json").write_text(json.dumps({"rounds": 2, "heldout_before": None}))
    return RunFolder(tmp_path)


def test_a_runs_files_are_read_as_plain_values(run):
    assert run.config() == {"data": {"num_queries": 3}}
    assert run.summary() == {"rounds": 2, "heldout_before": None}
    assert run.metrics() == [
        {"step": 0.0, "heldout/greedy": 0.25},
        {"step": 0.0, "reward": 0.5},
        {"step": 1.0, "reward": 0.75},
    ]


def test_a_checkpoint_names_the_folder_of_its_run(run):
    assert RunFolder.of_checkpoint(run.checkpoint_path).path == run.path.resolve()
    assert run.weights_path(True).name == "adapter"
    assert run.weights_path(False).name == "model"


@pytest.mark.parametrize("part", ["config", "metrics", "summary"])
def test_a_file_that_is_missing_is_one_line(part, tmp_path):
    with pytest.raises(ConfigError, match=r"^run: no (config|metrics|summary)\.") as error:
        getattr(RunFolder(tmp_path), part)()
    assert "give the folder of a run" in str(error.value)
    with pytest.raises(ConfigError, match=r"^run: no folder '.*nowhere'"):
        getattr(RunFolder(tmp_path / "nowhere"), part)()


@pytest.mark.parametrize(
    ("part", "name", "content"),
    [
        ("config", "config.yaml", b"a: [1, {2\n"),
        ("config", "config.yaml", b"- 1\n"),
        ("config", "config.yaml", b"a: \xff\n"),
        ("metrics", "metrics.csv", b"step,reward\n1,half\n"),
        ("metrics", "metrics.csv", b"step\n1,2\n"),
        ("summary", "summary.json", b'{"rounds": '),
        ("summary", "summary.json", b"[]"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(run, part, name, content):
    (run.path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^run: cannot read '.*{re.escape(name)}' \(") as error:
        getattr(run, part)()
    assert len(str(error.value).splitlines()) == 1


def test_reading_a_run_loads_nothing_heavy():
    code = (
        "import sys; from lsp_lightning.runs import RunFolder\n"
        "print(sorted({'torch', 'lightning', 'pyarrow', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    for write in (
        lambda: path.write_text("text"),
        lambda: path.write_bytes(b""),
        path.unlink,
    ):
        write()
        with pytest.raises(ConfigError, match=r"^ckpt_path: .* is not a checkpoint; give a run's"):
            read_checkpoint(str(path))
    parts = {"state_dict": {"a": torch.ones(2)}, "lsp_lightning": {}}
    for found in (
        {"state_dict": {}},
        {**parts, "state_dict": {"a": "text"}},
        {**parts, "state_dict": [1]},
        {**parts, "lsp_lightning": [1]},
        {**parts, "callbacks": "text"},
        {**parts, "callbacks": {"RunSummary": 1}},
        {**parts, "optimizer_states": ["text"]},
        {**parts, "lr_schedulers": {}},
        {**parts, "pytorch-lightning_version": 2},
    ):
        torch.save(found, path)
        with pytest.raises(ConfigError, match=r"^ckpt_path: .* is not an lsp-lightning checkpoint"):
            read_checkpoint(str(path))
    torch.save({"state_dict": {"a": torch.ones(2)}, "lsp_lightning": {}}, path)
    assert read_checkpoint(str(path))["state_dict"]["a"].tolist() == [1, 1]


def test_warnings_are_read_line_by_line_and_what_is_none_is_skipped(run):
    assert run.warnings() == []
    whole = {"round": 12, "symptom": "too hard", "text": "rounds 3-12: ..."}
    other = [{"round": "12"}, [], None, {**whole, "text": 3}, {**whole, "round": True}]
    lines = [json.dumps(line) for line in (whole, *other)]
    run.warnings_path.write_text("\n".join([*lines, "[" * 100_000, json.dumps(whole)[:20]]))
    assert run.warnings() == [whole]
    run.warnings_path.write_bytes(b"\xff\n")
    assert run.warnings() == []
