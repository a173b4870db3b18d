"""Lightning's callbacks stop at the best held-out score, and keep the adapter that had it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
WORLD = ROOT / "lsp_lightning/tinyworld"

pytestmark = pytest.mark.usefixtures("untouched_process")

#: As docs/rewards.md shows them.
CALLBACKS = [
    {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "monitor": "heldout/sampled",
            "mode": "max",
            "filename": "best",
            "save_on_train_epoch_end": False,
        },
    },
    {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {
            "monitor": "heldout/sampled",
            "mode": "max",
            "patience": 1,
            "check_on_train_epoch_end": False,
        },
    },
]


def test_the_adapter_with_the_best_win_rate_of_the_watch_is_kept_and_exported(tmp_path):
    run, few = tmp_path / "run", tmp_path / "tasks.jsonl"
    few.write_text("\n".join((WORLD / "data/dev.jsonl").read_text().splitlines()[:24]) + "\n")
    arguments = ["--config", str(ROOT / "configs/tiny_preference.yaml")]
    arguments += ["--data.num_queries=2", "--data.group_size=2", "--trainer.max_steps=9"]
    arguments += ["--data.heldout", str(few), "--data.heldout_reward=watch"]
    arguments += ["--trainer.val_check_interval=1", "--model.optimizer.init_args.lr=0.03"]
    callbacks = ["--trainer.callbacks", json.dumps(CALLBACKS)]
    folder = ["--trainer.default_root_dir", str(run)]
    assert main(["fit", *arguments, *callbacks, *folder]) == 0
    rows = RunFolder(run).metrics()
    wins = [row["heldout/sampled"] for row in rows if "heldout/sampled" in row]
    falls = next(i for i in range(1, len(wins)) if wins[i] <= max(wins[:i]))
    assert len(wins) == falls + 1 < 9  # it stops when the win rate no longer rises
    best = read_checkpoint(str(run / "checkpoints/best.ckpt"))
    assert best["global_step"] == wins.index(max(wins)) + 1
    assert read_checkpoint(str(run / "checkpoints/last.ckpt"))["global_step"] == len(wins)
    out = tmp_path / "out"
    checkpoint = ["--ckpt_path", str(run / "checkpoints/best.ckpt")]
    assert main(["export", *checkpoint, "--out", str(out)]) == 0
    exported = load_file(out / "adapter_model.safetensors")
    trained = best["state_dict"]
    assert len(exported) == len(trained)
    for name, tensor in exported.items():
        key = "policy.model." + name.replace(".weight", ".default.weight")
        assert torch.equal(tensor, trained[key])
