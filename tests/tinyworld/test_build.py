"""The recipe runs end to end, repeats to the byte, and its manifest notices a changed byte."""

import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from lsp_lightning.tinyworld import ROOT
from lsp_lightning.tinyworld.build import Recipe, build, check_manifest, main

FILES = {
    "tokenizer": {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"},
    "data": {"dev.jsonl", "test.jsonl", "train.jsonl"},
    "base": {"config.json", "generation_config.json", "model.safetensors"},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("tinyworld") / "first"
    build(out, Recipe(seed=3, steps=3))
    return out


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_a_build_makes_every_file_in_its_step(built):
    made = {
        step: {path.split("/")[-1] for path in files}
        for step, files in manifest(built)["files"].items()
    }
    assert made == FILES
    assert check_manifest(built) == []


def test_the_same_recipe_gives_the_same_bytes(built, tmp_path):
    build(tmp_path / "again", Recipe(seed=3, steps=3))
    assert manifest(tmp_path / "again") == manifest(built)


def test_another_seed_gives_another_base(built, tmp_path):
    build(tmp_path / "other", Recipe(seed=4, steps=1))
    first, other = manifest(built)["files"], manifest(tmp_path / "other")["files"]
    assert first["tokenizer"] == other["tokenizer"]  # no chance in it
    assert first["base"]["base/model.safetensors"] != other["base"]["base/model.safetensors"]
    assert first["data"]["data/train.jsonl"] != other["data"]["data/train.jsonl"]


def test_one_flipped_byte_is_found(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    path = copy / "base" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert check_manifest(copy) == ["base: base/model.safetensors differs from the manifest"]


def test_a_missing_file_is_found(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    (copy / "data" / "dev.jsonl").unlink()
    assert check_manifest(copy) == ["data: data/dev.jsonl is missing"]


def test_a_used_folder_is_refused(built):
    with pytest.raises(FileExistsError, match="not empty"):
        build(built, Recipe(steps=1))


def test_weights_are_fp32_and_trained(built):
    weights = load_file(built / "base" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}
    assert "lm_head.weight" not in weights  # tied to the embedding


def test_shipped_files_match_their_manifest(capsys):
    assert main(["--check"]) == 0
    assert "match" in capsys.readouterr().out


def test_shipped_manifest_lists_every_file_made():
    listed = {path for files in manifest(ROOT)["files"].values() for path in files}
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("base", "data")
        for path in (ROOT / folder).iterdir()
    }
    assert listed == found


def test_the_rules_of_the_world_load_no_torch():
    code = (
        "import sys, lsp_lightning\n"
        "before = set(sys.modules)\n"
        "import lsp_lightning.tinyworld.corpus, lsp_lightning.tinyworld.tasks\n"
        "print({'torch', 'transformers'} & (set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
