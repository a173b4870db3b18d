"""Every notebook runs from top to bottom."""

import runpy
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TASKS = ROOT / "lsp_lightning/tinyworld/data/dev.jsonl"
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


#: What stands in a notebook, and what is quicker in a test.
SHORTER = {
    "max_steps=20": "max_steps=2",
    'f"{WORLD}/data/dev.jsonl"': '"few.jsonl"',
    "import Program": "import Limits, Program",
    "MontySandbox()": "MontySandbox(Limits(seconds=0.3))",
}


def script_of(notebook: nbformat.NotebookNode) -> str:
    """The cells as one script: it starts no kernel, which would import everything anew."""
    script = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for long, short in SHORTER.items():
        script = script.replace(long, short)
    return script


@EACH
@pytest.mark.usefixtures("untouched_process")
def test_the_cells_run_in_order_and_are_stored_without_outputs(path, tmp_path, monkeypatch, capsys):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    script = tmp_path / f"{path.stem}.py"
    script.write_text(script_of(notebook), encoding="utf-8")
    lines = TASKS.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(lines[:6]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # a run writes its files there
    with torch.random.fork_rng():
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out, "the notebook prints nothing"


def test_what_is_shortened_stands_in_a_notebook():
    everything = "".join(path.read_text(encoding="utf-8").replace('\\"', '"') for path in NOTEBOOKS)
    assert [long for long in SHORTER if long not in everything] == []


@pytest.mark.slow
@EACH
def test_a_notebook_runs_in_a_kernel(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:  # a few rounds show that it runs
        cell.source = cell.source.replace("max_steps=20", "max_steps=5")
    there = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=there).execute()
    printed = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert printed, "the notebook prints nothing"


def test_the_first_notebook_fits_in_six_lines() -> None:
    assert NOTEBOOKS[0].stem == "first_run"
    first, second = (c for c in nbformat.read(NOTEBOOKS[0], 4).cells[:4] if c.cell_type == "code")
    assert "Trainer" in first.source
    assert len(second.source.splitlines()) == 6
    assert "trainer.fit(model, data)" in second.source
