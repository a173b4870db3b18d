"""A damaged checkpoint never loads: one line names the file, and the other one of the run."""

import os
import random
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from lsp_lightning.cli.main import main
from lsp_lightning.errors import ConfigError
from lsp_lightning.runs.checkpoint import read_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "tiny_lsp.yaml"


def content(value: float = 1.0) -> dict:
    weights = {f"policy.{name}": torch.full((40,), value) for name in ("a", "b")}
    return {"state_dict": weights, "lsp_lightning": {"beta": 0.5}, "global_step": 3}


@pytest.fixture
def last(tmp_path) -> Path:
    """The last checkpoint of a run, with the one before it."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(content(), folder / "last.ckpt")
    torch.save(content(2.0), folder / "previous.ckpt")
    return folder / "last.ckpt"


def flip(path: Path, place: int, bit: int = 3) -> None:
    found = bytearray(path.read_bytes())
    found[place] ^= 1 << bit
    path.write_bytes(found)


def value_at(path: Path) -> int:
    """A place in the file that holds a byte of a weight."""
    return path.read_bytes().index(torch.ones(40).numpy().tobytes()) + 50


def packed(path: Path) -> None:
    """The same content in a compressed archive, with a part of 10 MB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))


DAMAGE = {
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut after 4 bytes": lambda path: os.truncate(path, 4),
    "empty": lambda path: os.truncate(path, 0),
    "a flipped bit in a weight": lambda path: flip(path, value_at(path)),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:-300] + bytes(300)),
    "zeros alone": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("{}"),
    "another archive": packed,
    "safetensors": lambda path: path.write_bytes(b"\x40\0\0\0\0\0\0\0" + b'{"a":{}}'.ljust(64)),
    "bytes after the end": lambda path: path.write_bytes(path.read_bytes() + bytes(10**5)),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_one_line_that_names_the_one_before(last, how):
    DAMAGE[how](last)
    other = re.escape(str(last.with_name("previous.ckpt")))
    line = (
        rf"^ckpt_path: '{re.escape(str(last))}' is .*; use the one before it: --ckpt_path {other}$"
    )
    with pytest.raises(ConfigError, match=line) as error:
        read_checkpoint(str(last))
    assert "weights_only" not in str(error.value)


def test_the_advice_depends_on_what_is_whole(last):
    before = last.with_name("previous.ckpt")
    flip(before, value_at(last))
    with pytest.raises(ConfigError, match=r"is damaged .*; use the last one: --ckpt_path .*last"):
        read_checkpoint(str(before))
    flip(last, value_at(last))
    with pytest.raises(ConfigError, match=r"is damaged .*; give a run's checkpoints/last.ckpt$"):
        read_checkpoint(str(last))
    before.unlink()
    with pytest.raises(ConfigError, match=r"is damaged .*; give a run's checkpoints/last.ckpt$"):
        read_checkpoint(str(last))


def test_a_path_in_the_advice_can_be_pasted(last, tmp_path):
    moved = tmp_path / "my run"
    shutil.move(last.parent, moved)
    os.truncate(moved / "last.ckpt", 99)
    with pytest.raises(ConfigError, match=r"--ckpt_path '.*my run/previous\.ckpt'$"):
        read_checkpoint(str(moved / "last.ckpt"))


def test_no_flipped_bit_changes_what_is_loaded(last):
    size, draws = last.stat().st_size, random.Random(0)
    whole, refused = last.read_bytes(), 0
    for place in range(0, size, 31):
        last.write_bytes(whole)
        flip(last, place, draws.randrange(8))
        try:
            found = read_checkpoint(str(last))
        except ConfigError:
            refused += 1
            continue
        # the bit was in the empty space between two parts
        assert found.keys() == content().keys()
        assert all(bool((t == 1).all()) for t in found["state_dict"].values())
    assert refused > size / 31 / 4


def test_a_checkpoint_that_runs_code_is_refused(last, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({**content(), "trap": Trap()}, last)
    with pytest.raises(ConfigError, match=r"is not a checkpoint; use the one before it"):
        read_checkpoint(str(last))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["fit", "test", "export"])
def test_each_command_refuses_it_and_leaves_the_folder_as_it_is(last, command, capfd):
    shutil.copy(CONFIG, last.parents[1] / "config.yaml")
    flip(last, value_at(last))
    before = {p: p.read_bytes() for p in last.parents[2].rglob("*") if p.is_file()}
    assert main([command, "--ckpt_path", str(last)]) == 2
    said = capfd.readouterr()
    assert re.fullmatch(r"error: ckpt_path: .* is damaged .*previous\.ckpt\n", said.err)
    assert said.out == ""
    assert {p: p.read_bytes() for p in last.parents[2].rglob("*") if p.is_file()} == before
