"""Lightning's callbacks stop at the best held-out score, and keep the adapter that had it."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/rewards.md").read_text("utf-8")
SECTION = PAGE.split("## If your reward model is hacked")[1].split("\n## ")[0]

pytestmark = pytest.mark.usefixtures("untouched_process")


def test_the_settings_of_the_page_keep_the_best_adapter_of_a_run_on_two_reward_models(tmp_path):
    two_models, keep = re.findall(r"^```yaml\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    best_kept = yaml.safe_load(keep)
    best_kept["trainer"]["callbacks"][1]["init_args"]["patience"] = 1
    run, few = tmp_path / "run", tmp_path / "tasks.jsonl"
    tasks = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()
    few.write_text("\n".join(tasks[:24]) + "\n")
    arguments = ["--config", str(ROOT / "configs/tiny_preference.yaml")]
    for name, text in (("two", two_models), ("keep", yaml.safe_dump(best_kept))):
        (tmp_path / f"{name}.yaml").write_text(text)
        arguments += ["--config", str(tmp_path / f"{name}.yaml")]
    arguments += ["--data.num_queries=2", "--data.group_size=2", "--trainer.max_steps=9"]
    arguments += ["--data.heldout", str(few), "--model.optimizer.init_args.lr=0.03"]
    arguments += ["--trainer.val_check_interval=1", "--trainer.default_root_dir", str(run)]
    assert main(["fit", *arguments]) == 0
    rows = RunFolder(run).metrics()
    assert {"reward/preference", "reward/second", "reward/known"} <= set(rows[0])
    scores = [row["heldout/sampled"] for row in rows if "heldout/sampled" in row]
    falls = next(i for i in range(1, len(scores)) if scores[i] <= max(scores[:i]))
    assert len(scores) == falls + 1 < 9  # it stops when the score no longer rises
    assert RunFolder(run).summary()["heldout_after"]["kind"] == "solved"
    best = read_checkpoint(str(run / "checkpoints/best.ckpt"))
    assert best["global_step"] == scores.index(max(scores)) + 1
    assert read_checkpoint(str(run / "checkpoints/last.ckpt"))["global_step"] == len(scores)
    out = tmp_path / "out"
    checkpoint = ["--ckpt_path", str(run / "checkpoints/best.ckpt")]
    assert main(["export", *checkpoint, "--out", str(out)]) == 0
    exported = load_file(out / "adapter_model.safetensors")
    trained = best["state_dict"]
    assert len(exported) == len(trained)
    for name, tensor in exported.items():
        key = "policy.model." + name.replace(".weight", ".default.weight")
        assert torch.equal(tensor, trained[key])
