"""A logger or a callback that meets a full disk ends the run in one line, or the run goes on."""

import errno
import os
import time
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from round_counter import Counter, rounds_of
from small_game import tiny_trainer
from tensorboard.summary.writer.record_writer import RecordWriter

from lsp_lightning import errors
from lsp_lightning.callbacks import RoundCheckpoint, RunCurves, RunTable, Transcripts
from lsp_lightning.cli import app
from lsp_lightning.cli.output import escape_messages
from lsp_lightning.errors import WriteError, causes, storage_failure, system_error
from lsp_lightning.runs import RunFolder

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")


@pytest.fixture
def warned(monkeypatch):
    """The warnings of this package."""
    found = []
    monkeypatch.setattr(errors, "_warned", set())
    monkeypatch.setattr(errors, "show_warning", found.append)
    return found


@pytest.fixture
def full_events(monkeypatch):
    """TensorBoard's disk is full from its third record on."""
    written, real = [], RecordWriter.write

    def write(self, data):
        written.append(data)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)


def fit(folder, loggers, rounds=3, module=None):
    callbacks = [RoundCheckpoint()]
    trainer = tiny_trainer(folder, rounds, callbacks, logger=loggers, log_every_n_steps=1)
    trainer.fit(module or Counter(), rounds_of(rounds))


@needs_dev_full
def test_a_row_that_cannot_be_written_is_one_line_with_its_file(tmp_path):
    (tmp_path / "metrics.csv.partial").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"^cannot write '.*metrics\.csv': No space left .*; free"):
        RunTable(tmp_path).log_metrics({"reward": 1.0}, 0)


def test_curves_that_cannot_be_written_do_not_end_a_run(full_events, warned, tmp_path, capfd):
    escape_messages()
    start = time.monotonic()
    fit(tmp_path, [RunTable(tmp_path), RunCurves(tmp_path)])
    assert time.monotonic() - start < 30
    assert len(warned) == 1
    assert "TensorBoard events" in warned[0]
    assert "No space left on device; the run continues" in warned[0]
    assert [row["weight"] for row in RunFolder(tmp_path).metrics()] == [0, 1, 2]
    assert capfd.readouterr().err == ""  # TensorBoard's thread says nothing


class Ring(CSVLogger):
    """Fails in a ring of errors, first when it logs and again on the way out."""

    def log_metrics(self, metrics, step=None):
        if step:
            first, second = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ValueError("cannot")
            first.__context__, second.__context__ = second, first
            raise second

    def finalize(self, status):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "its file")


@pytest.mark.parametrize("logger", [Ring, TensorBoardLogger])
def test_another_logger_that_fails_ends_the_run_in_one_line(
    logger, full_events, tmp_path, monkeypatch, capfd
):
    escape_messages()
    monkeypatch.setattr(app, "SelfPlayCLI", lambda *args: fit(tmp_path, [logger(tmp_path)]))
    start = time.monotonic()
    assert app.run_command(["fit"]) == 1
    assert time.monotonic() - start < 30
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: cannot write ")
    assert "No space left on device; free space" in line
    assert RunFolder(tmp_path).checkpoint_path.is_file()


@needs_dev_full
def test_transcripts_that_cannot_be_closed_do_not_hide_the_error(tmp_path):
    folder = tmp_path / "transcripts"
    folder.mkdir()
    (folder / "open.jsonl").write_text('{"round": 0, "query": "a"}\n')
    partial = folder / "rounds-000000.parquet.partial"
    partial.symlink_to("/dev/full")
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True)
    with pytest.raises(WriteError, match=r"^cannot write '.*transcripts': No space left"):
        Transcripts().on_train_end(trainer, None)
    partial.unlink(missing_ok=True)
    partial.symlink_to("/dev/full")
    Transcripts().on_exception(trainer, None, RuntimeError("the real one"))
    assert (folder / "open.jsonl").is_file()


def test_the_error_of_the_system_is_found_behind_any_other():
    by_number = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert storage_failure(Exception(by_number)) == "No space left on device"
    outer = RuntimeError("unexpected pos 704 vs 598")
    outer.__context__ = FULL
    assert storage_failure(outer) == "No space left on device"
    assert storage_failure(FileNotFoundError(errno.ENOENT, "No such file")) is None
    assert system_error(ValueError("no")) is None
    ring = ValueError("a")
    ring.__context__ = TypeError("b")
    ring.__context__.__context__ = ring
    assert len([*causes(ring)]) == 2
    assert storage_failure(ring) is None
