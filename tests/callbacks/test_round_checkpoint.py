"""Two whole checkpoints are kept, and a full disk costs neither of them."""

import builtins
import errno
import os
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from round_counter import Counter, rounds_of
from small_game import tiny_trainer

from lsp_lightning.callbacks import RoundCheckpoint, RunTable
from lsp_lightning.errors import ConfigError, WriteError
from lsp_lightning.runs import RunFolder, writing
from lsp_lightning.runs.checkpoint import read_checkpoint


def play(folder, rounds, ckpt_path=None, **kwargs):
    module = Counter()
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(**kwargs)])
    trainer.fit(module, rounds_of(rounds), ckpt_path=ckpt_path and str(ckpt_path))
    return float(module.layer.weight)


def rounds_in(path):
    return float(read_checkpoint(str(path))["state_dict"]["layer.weight"])


def kept(folder):
    found = {p.name: rounds_in(p) for p in (folder / "checkpoints").glob("*.ckpt")}
    assert len(list((folder / "checkpoints").iterdir())) == len(found)
    return found


@pytest.mark.parametrize(
    ("rounds", "every", "want"),
    [
        (1, 1, {"last.ckpt": 1}),
        (4, 1, {"last.ckpt": 4, "previous.ckpt": 3}),
        (5, 2, {"last.ckpt": 5, "previous.ckpt": 4}),
    ],
)
@pytest.mark.parametrize("links", [True, False])
def test_the_last_two_checkpoints_are_kept(rounds, every, want, links, tmp_path, monkeypatch):
    if not links:  # as on some network and USB drives
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError(errno.EPERM, "")))
    assert play(tmp_path, rounds, every=every) == rounds
    assert kept(tmp_path) == want


def test_a_resumed_run_keeps_the_checkpoint_that_it_started_from(tmp_path):
    play(tmp_path, 2)
    run = RunFolder(tmp_path)
    assert play(tmp_path, 3, run.checkpoint_path) == 3
    assert kept(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2}


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    play(tmp_path, 3)
    run = RunFolder(tmp_path)
    os.truncate(run.checkpoint_path, 500)
    with pytest.raises(ConfigError, match=r"last\.ckpt' is damaged .*; use .*previous\.ckpt$"):
        play(tmp_path, 3, run.checkpoint_path)
    seen = []

    class Watched(RoundCheckpoint):
        def save(self, trainer):
            super().save(trainer)
            seen.append(kept(tmp_path))

    trainer = tiny_trainer(tmp_path, 4, [Watched()])
    trainer.fit(Counter(), rounds_of(4), ckpt_path=str(run.previous_checkpoint_path))
    # the damaged file never takes the place of the whole one
    assert seen == [
        {"last.ckpt": 3, "previous.ckpt": 2},
        {"last.ckpt": 4, "previous.ckpt": 3},
    ]


class FullDisk:
    """A file that takes a number of bytes and then raises what a full disk raises."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()


@pytest.mark.parametrize("room", [0, 300, 1500])
def test_a_full_disk_is_one_line_and_both_checkpoints_stay(room, tmp_path, monkeypatch):
    play(tmp_path, 2)
    checkpoint = RunFolder(tmp_path).checkpoint_path
    real = builtins.open

    def crowded(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        return FullDisk(file, room) if str(path).endswith(".ckpt.partial") else file

    monkeypatch.setattr(builtins, "open", crowded)
    line = rf"^cannot write '{re.escape(str(checkpoint))}': No space left on device; free space"
    with pytest.raises(WriteError, match=line) as error:
        play(tmp_path, 3, checkpoint)
    assert len(str(error.value).splitlines()) == 1
    monkeypatch.undo()
    assert kept(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 1}
    assert play(tmp_path, 3, checkpoint) == 3


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_late_keeps_the_last_checkpoint(step, tmp_path, monkeypatch):
    play(tmp_path, 2)
    checkpoint = RunFolder(tmp_path).checkpoint_path

    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(*((writing.os, "fsync") if step == "fsync" else (Path, "replace")), fail)
        with pytest.raises(WriteError, match="Input/output error"):
            play(tmp_path, 3, checkpoint)
    assert rounds_in(checkpoint) == 2
    assert play(tmp_path, 3, checkpoint) == 3


def test_a_crash_at_any_step_leaves_a_whole_last_checkpoint(tmp_path, monkeypatch):
    """Every change of a name or flush may be the last thing that the process does."""

    class Crash(BaseException):
        pass

    steps = []

    def counted(real, name):
        def call(*args, **kwargs):
            steps.append(name)
            if len(steps) == stop:
                raise Crash
            return real(*args, **kwargs)

        return call

    def attempt(folder):
        steps.clear()
        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, counted(getattr(owner, name), name))
            play(folder, 3, RunFolder(folder).checkpoint_path)

    stop = 0
    play(tmp_path / "whole", 2)
    attempt(tmp_path / "whole")
    for stop in range(1, len(steps) + 1):
        folder = tmp_path / str(stop)
        play(folder, 2)
        with pytest.raises(Crash):
            attempt(folder)
        found = {p.name: rounds_in(p) for p in (folder / "checkpoints").glob("*.ckpt")}
        assert found["last.ckpt"] in (2, 3)
        assert found["last.ckpt"] - found["previous.ckpt"] in (0, 1)
        play(folder, 3, RunFolder(folder).checkpoint_path)
        assert rounds_in(RunFolder(folder).checkpoint_path) == 3


class MoreMetrics(Callback):
    """A user's callback that logs more than the module does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("more", batch.index * 2.0, on_step=True, on_epoch=False, batch_size=1)


@pytest.mark.parametrize("more", [[], [MoreMetrics()]])
def test_each_round_has_one_row_that_is_written_before_its_checkpoint(more, tmp_path):
    seen = []

    class Watched(RoundCheckpoint):
        def save(self, trainer):
            seen.append([row["weight"] for row in RunFolder(tmp_path).metrics()])
            super().save(trainer)

    callbacks, loggers = [Watched(), *more], [RunTable(tmp_path)]
    trainer = tiny_trainer(tmp_path, 3, callbacks, logger=loggers, log_every_n_steps=1)
    trainer.fit(Counter(), rounds_of(3))
    assert seen == [[0], [0, 1], [0, 1, 2]]
    want = [{"step": i, "epoch": 0, "weight": i} for i in range(3)]
    for row in want if more else ():
        row["more"] = row["step"] * 2
    assert RunFolder(tmp_path).metrics() == want


def test_a_run_that_is_killed_in_a_checkpoint_lacks_no_row(tmp_path):
    class Killed(BaseException):
        pass

    class Kills(RoundCheckpoint):
        def save(self, trainer):
            super().save(trainer)
            if trainer.global_step == 2:
                raise Killed

    def attempt(callback, ckpt_path=None):
        callbacks, loggers = [callback], [RunTable(tmp_path)]
        trainer = tiny_trainer(tmp_path, 4, callbacks, logger=loggers, log_every_n_steps=1)
        trainer.fit(Counter(), rounds_of(4), ckpt_path=ckpt_path)

    with pytest.raises(Killed):
        attempt(Kills())
    attempt(RoundCheckpoint(), str(RunFolder(tmp_path).checkpoint_path))
    assert [row["step"] for row in RunFolder(tmp_path).metrics()] == [0, 1, 2, 3]


def test_a_checkpoint_is_loaded_as_plain_types_whatever_the_caller_says(tmp_path):
    play(tmp_path, 1)
    path = RunFolder(tmp_path).checkpoint_path
    found = torch.load(path, weights_only=True)

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({**found, "trap": Trap()}, path)
    trainer = tiny_trainer(tmp_path, 2, [RoundCheckpoint()])
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        trainer.fit(Counter(), rounds_of(2), ckpt_path=str(path), weights_only=False)
    assert not (tmp_path / "ran").exists()
