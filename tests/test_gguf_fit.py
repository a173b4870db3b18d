"""A run whose base is a GGUF file: played, resumed and exported; its compute type stays."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from gguf_files import build_byte_model, write_gguf
from small_game import SHORT_PROMPT
from transformers import AutoModelForCausalLM

from lsp_lightning import Policy, gguf_folder
from lsp_lightning.cli.main import main
from lsp_lightning.models import precision
from lsp_lightning.models.gguf import content_hash
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint

IDS = torch.arange(8, 40).view(2, 16)
ROOT = Path(__file__).parents[1]
GAME = {
    "config": ROOT / "configs" / "tiny_lsp.yaml",
    "data.queries.init_args.prompt": SHORT_PROMPT,
    "data.queries.init_args.sampling.max_new_tokens": 6,
    "data.solver.max_new_tokens": 6,
    "data.num_queries": 2,
    "data.group_size": 2,
    "data.heldout": "null",
    "trainer.max_steps": 2,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(build_byte_model(folder / "model"), folder / "tiny.Q8_0.gguf", "Q8_0")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, untouched_process):
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fit(file, folder, **flags) -> int:
    """Play a small game from the command line; ``__`` in a name stands for a dot."""
    given = {**GAME, "model.base": file, "trainer.default_root_dir": folder}
    given |= {name.replace("__", "."): value for name, value in flags.items()}
    return main(["fit", *(f"--{key}={value}" for key, value in given.items())])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_a_run_names_the_file_from_its_config_to_its_export(file, tmp_path, capsys, monkeypatch):
    run = RunFolder(tmp_path / "run")
    assert fit(file, run.path) == 0
    assert capsys.readouterr().out.count("converting") == 1
    assert main(["fit", "--ckpt_path", str(run.checkpoint_path), "--trainer.max_steps=3"]) == 0
    shown = capsys.readouterr().out
    assert "converting" not in shown
    assert "changed: " not in shown
    settings = read_checkpoint(str(run.checkpoint_path))["lsp_lightning"]
    assert run.config()["model"]["base"] == settings["base"] == str(file)
    assert settings["base_sha256"] == content_hash(file)
    assert run.config()["model"]["dtype"] == settings["dtype"] == "float32"  # what auto chose

    assert main(["export", "--ckpt_path", str(run.checkpoint_path)]) == 0
    config = json.loads((run.export_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(file.resolve())
    card = (run.export_path / "README.md").read_text()
    assert f"`{file}`" in card
    assert content_hash(file) in card
    [lines] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(run.export_path)
    scope = {}
    exec(lines.replace("max_new_tokens=256", "max_new_tokens=2"), scope)
    trained = Policy(str(file), init_adapter=str(run.path / "adapter"))
    assert torch.allclose(logits(scope["model"]), logits(trained.causal_lm), atol=1e-5)


def test_a_run_goes_on_with_a_moved_file_but_not_with_another_one(file, tmp_path, capsys):
    run, moved = RunFolder(tmp_path / "run"), tmp_path / "moved.gguf"
    assert fit(file, run.path, trainer__max_steps=1) == 0
    again = ["fit", "--ckpt_path", str(run.checkpoint_path), "--trainer.max_steps=2"]
    again.append(f"--model.base={moved}")
    capsys.readouterr()
    shutil.copy(file, moved)
    assert main(again) == 0
    assert "changed: " not in capsys.readouterr().out
    write_gguf(build_byte_model(tmp_path / "other"), moved)
    assert main(again) == 2
    told = capsys.readouterr().err
    assert "moved.gguf' has another content than in the checkpoint; give the file with" in told
    assert told.rstrip().endswith(f"SHA-256 '{content_hash(file)}'")
    assert main([*again[:-1], f"--model.base={ROOT / 'lsp_lightning' / 'tinyworld' / 'base'}"]) == 2
    assert "error: model.base: is '" in capsys.readouterr().err


@pytest.mark.slow
def test_plan_reads_no_weights_and_a_merged_model_needs_no_file(file, tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    assert main(["plan", *(f"--{k}={v}" for k, v in {**GAME, "model.base": file}.items())]) == 0
    assert "converting" not in capsys.readouterr().out
    assert fit(file, run.path) == 0
    assert main(["export", "--ckpt_path", str(run.checkpoint_path), "--form", "merged"]) == 0
    merged = AutoModelForCausalLM.from_pretrained(run.export_path)
    trained = Policy(str(file), init_adapter=str(run.path / "adapter"))
    assert torch.allclose(logits(merged), logits(trained.causal_lm), atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_type_that_auto_chose(file, tmp_path, capsys, monkeypatch):
    """Begun on a processor with units for bfloat16, resumed on this one without them."""
    base, run = gguf_folder(str(file), "float32"), RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(precision, "cpu_has_bfloat16", lambda: True)
        patch.setattr(precision, "BFLOAT16_PARAMETERS", 0)
        assert fit(base, run.path, trainer__max_steps=1) == 0
    assert run.config()["model"]["dtype"] == "bfloat16"
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    again = ["fit", "--ckpt_path", str(run.checkpoint_path), "--trainer.max_steps=2"]
    capsys.readouterr()
    assert main(again) == 0
    assert "dtype changed" not in capsys.readouterr().out
    assert read_checkpoint(str(run.checkpoint_path))["lsp_lightning"]["dtype"] == "bfloat16"
    assert run.config()["model"]["dtype"] == "bfloat16"
    # asked to choose again, it says what changes
    assert main([*again[:-1], "--trainer.max_steps=3", "--model.dtype=auto"]) == 0
    line = "dtype changed: 'bfloat16' in the checkpoint, 'float32' now"
    assert line in capsys.readouterr().out
