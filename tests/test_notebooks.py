"""Every notebook runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_is_stored_without_outputs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    for cell in notebook.cells:  # a few rounds show that it runs
        cell.source = cell.source.replace("max_steps=20", "max_steps=5")
    there = {"metadata": {"path": str(tmp_path)}}  # a run writes its files there
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=there).execute()
    printed = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert printed, "the notebook prints nothing"


def test_the_first_notebook_fits_in_six_lines() -> None:
    assert NOTEBOOKS[0].stem == "first_run"
    first, second = (c for c in nbformat.read(NOTEBOOKS[0], 4).cells[:4] if c.cell_type == "code")
    assert "Trainer" in first.source
    assert len(second.source.splitlines()) == 6
    assert "trainer.fit(model, data)" in second.source
