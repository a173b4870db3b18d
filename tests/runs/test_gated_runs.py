"""Runs with a gate, a pool and an earlier policy: resumed exactly, and every part counted."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsp_lightning import SelfPlayModule
from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
ROUNDS, KILLED = 4, 2

CONFIG = """\
seed_everything: 3
model:
  base: pkg:lsp_lightning/tinyworld/base
  rewards:
    - class_path: lsp_lightning.VerifiableReward
      init_args:
        verifier: lsp_lightning.tinyworld.verifier.TinyWorldVerifier
  optimizer:
    class_path: torch.optim.AdamW
    init_args: {lr: 3.0e-3}
data:
  queries:
    class_path: lsp_lightning.Challenger
    init_args:
      prompt: pkg:lsp_lightning/tinyworld/prompts/challenger.txt
      sampling: {max_new_tokens: 28}
  num_queries: 12
  group_size: 4
  solver: {max_new_tokens: 8}
  gate:
    redraws: 2
    solve_rate: [0.05, 0.95]
    checks:
      - class_path: lsp_lightning.WellFormed
        init_args: {verifier: lsp_lightning.tinyworld.verifier.TinyWorldVerifier}
      - class_path: lsp_lightning.Novel
        init_args: {near: 0.8, memory: 8}
  pool:
    share: 0.25
    size: 6
    rest: 1
    solve_rate: [0.05, 0.95]
  past: {share: 0.5, age: 1}
trainer:
  accelerator: cpu
  max_steps: 4
"""


def fit(folder: Path, *arguments: str) -> int:
    config = folder.parent / "gated.yaml"
    config.write_text(CONFIG)
    return main(
        ["fit", "--config", str(config), "--trainer.default_root_dir", str(folder), *arguments]
    )


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of all rounds, without wall times."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reward"]]
    timed = ("seconds/", "tokens_per_second")
    return [
        {name: value for name, value in row.items() if value and not name.startswith(timed)}
        for row in rows
    ]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run that nothing interrupts, and the one that is killed in its third round."""
    folder = tmp_path_factory.mktemp("runs")
    step = SelfPlayModule.training_step

    def killed(self, played, batch_idx):
        if played.index == KILLED:
            raise KeyError("the power went out")
        step(self, played, batch_idx)

    assert fit(folder / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SelfPlayModule, "training_step", killed)
        with pytest.raises(KeyError, match="power"):
            fit(folder / "cut")
    return folder


def resumed(runs: Path, folder: Path, change=lambda checkpoint: None) -> Path:
    """Resume the killed run in a copy, after a change to its checkpoint."""
    shutil.copytree(runs / "cut", folder / "run")
    path = folder / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint["SelfPlayDataModule"])
    torch.save(checkpoint, path)
    assert fit(folder / "run", "--ckpt_path", str(path)) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
def test_every_part_has_something_to_do(runs):
    """A test of the tests below, and of the metrics."""
    rows = metrics(runs / "whole")
    assert len(rows) == ROUNDS
    for row in rows:
        drawn, replayed = float(row["gate/drawn"]), float(row["pool/replayed"])
        past = float(row["past/queries"])
        reasons = [
            float(row.get(f"gate/{name}", 0)) for name in ("invalid", "malformed", "repeated")
        ]
        assert float(row["gate/passed"]) + sum(reasons) == pytest.approx(1)
        accepted = float(row["gate/passed"]) * drawn
        assert float(row["gate/played"]) == pytest.approx(accepted + replayed + past)
        assert float(row["gate/played"]) <= 12 <= drawn + replayed + past
    assert any(float(row["pool/replayed"]) > 0 for row in rows)
    assert any(float(row["past/queries"]) > 0 for row in rows[KILLED:])
    assert any(float(row["gate/admitted"]) < 1 for row in rows)
    assert any("gate/malformed" in row for row in rows)
    assert any("gate/repeated" in row for row in rows[KILLED:])


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
def test_a_killed_run_goes_on_bit_for_bit(runs, tmp_path):
    folder = resumed(runs, tmp_path)
    assert metrics(folder) == metrics(runs / "whole")
    assert same(adapter(folder), adapter(runs / "whole"))


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("part", ["gate", "pool", "past"])
def test_without_one_of_the_states_the_run_would_be_another_one(runs, tmp_path, part):
    folder = resumed(runs, tmp_path, lambda state: state.pop(part))
    assert metrics(folder)[:KILLED] == metrics(runs / "whole")[:KILLED]
    assert metrics(folder) != metrics(runs / "whole")
    assert not same(adapter(folder), adapter(runs / "whole"))


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
def test_changed_settings_of_a_check_are_named_when_a_run_is_resumed(runs, tmp_path, capsys):
    shutil.copytree(runs / "cut", tmp_path / "run")
    path = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    changes = ("--data.gate.redraws", "1", "--data.pool.size", "5")
    assert fit(tmp_path / "run", "--ckpt_path", path, *changes) == 0
    shown = capsys.readouterr().out
    assert "gate.redraws changed: 2 in the checkpoint, 1 now\n" in shown
    assert "pool.size changed: 6 in the checkpoint, 5 now\n" in shown
