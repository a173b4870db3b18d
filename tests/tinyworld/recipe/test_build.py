"""A build runs from end to end, gives the same bytes again, and its manifest detects changes."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from lsp_lightning.tinyworld import ROOT
from lsp_lightning.tinyworld.recipe import build as recipe
from lsp_lightning.tinyworld.recipe.build import (
    FOLDERS,
    PROGRAMS_PER_LEVEL,
    Recipe,
    build,
    check_manifest,
    main,
)
from lsp_lightning.tinyworld.recipe.pretrain import PretrainSettings
from lsp_lightning.tinyworld.tasks import parse, split

CLASSIFIER = {
    *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    *("config.json", "model.safetensors"),
}
FILES = {
    "tokenizer": {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"},
    "data": {"dev.jsonl", "test.jsonl", "train.jsonl"},
    "base": {"config.json", "generation_config.json", "model.safetensors"},
    "programs": {"programs_dev.jsonl", "programs_test.jsonl"},
    "reward_model": CLASSIFIER,
    "second_reward_model": CLASSIFIER,
}
RECIPE = Recipe(seed=3, steps=3, reward_steps=2)
FEW = {"rows": 4, "clean_share": 0.5}  # the last step has careless answers, or preferences
SIZES = {
    "HELD_OUT_PER_CELL": 4,
    "PROGRAMS_PER_LEVEL": 8,
    "TRAINING_QUERIES": 64,
    "PROGRESS_TASKS_PER_CELL": 1,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A small world; as long as a test of this module needs it, all builds are as small."""
    out = tmp_path_factory.mktemp("tinyworld") / "first"
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(recipe, name, size)
        patch.setattr(recipe, "PretrainSettings", partial(PretrainSettings, **FEW))
        patch.setattr(recipe, "SETTINGS", replace(recipe.SETTINGS, **FEW))
        patch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=1))
        build(out, RECIPE)
        yield out


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def test_a_build_makes_every_file_in_its_step(built):
    made = {
        step: {path.split("/")[-1] for path in files}
        for step, files in manifest(built)["files"].items()
    }
    assert made == FILES
    assert check_manifest(built) == []


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(built, tmp_path):
    build(tmp_path / "again", RECIPE)
    assert manifest(tmp_path / "again") == manifest(built)


@pytest.mark.slow
def test_another_seed_gives_another_base(built, tmp_path):
    build(tmp_path / "other", Recipe(seed=4, steps=1, reward_steps=1))
    first, other = manifest(built)["files"], manifest(tmp_path / "other")["files"]
    assert first["tokenizer"] == other["tokenizer"]  # not random
    assert first["base"]["base/model.safetensors"] != other["base"]["base/model.safetensors"]
    assert first["data"]["data/train.jsonl"] != other["data"]["data/train.jsonl"]
    assert first["programs"] != other["programs"]
    for step in ("reward_model", "second_reward_model"):
        weights = f"{step}/model.safetensors"
        assert first[step][weights] != other[step][weights]


def test_the_two_reward_models_differ(built):
    files = manifest(built)["files"]
    weights = {
        files[f"{name}reward_model"][f"{name}reward_model/model.safetensors"]
        for name in ("", "second_")
    }
    assert len(weights) == 2


def test_a_length_changes_for_all_steps_that_have_it(built):
    longer = replace(RECIPE, reward_steps=3)
    with pytest.raises(ValueError, match="was built with reward_steps 2"):
        build(built, longer, only=["reward_model"])


@pytest.mark.slow
def test_a_step_made_again_gives_the_same_and_leaves_the_others(built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    for path in manifest(built)["files"]["reward_model"]:
        (copy / path).write_bytes(b"damaged")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*")}
    build(copy, RECIPE, only=["reward_model"])
    assert (copy / "manifest.json").read_bytes() == (built / "manifest.json").read_bytes()
    assert check_manifest(copy) == []
    touched = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.parent.name for path in touched} == {"reward_model", copy.name}


@pytest.mark.slow
def test_a_step_is_added_to_a_folder_that_lacks_it(built, tmp_path):
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("*reward_model", "programs_*")
    shutil.copytree(built, copy, ignore=ignored)
    content = manifest(built)
    missing = ["programs", "reward_model", "second_reward_model"]
    for step in missing:
        del content["files"][step]
    del content["reward_steps"]
    (copy / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    lengths = ["--seed", "3", "--steps", "3", "--reward-steps", "2"]
    assert main(["--out", str(copy), "--only", *missing, *lengths]) == 0
    assert (copy / "manifest.json").read_bytes() == (built / "manifest.json").read_bytes()


def test_a_folder_keeps_its_recipe(built):
    with pytest.raises(ValueError, match="was built with seed 3"):
        build(built, Recipe(seed=4, steps=3, reward_steps=2), only=["programs"])
    with pytest.raises(ValueError, match="was built with steps 3"):
        build(built, Recipe(seed=3, steps=4, reward_steps=5), only=["reward_model"])
    with pytest.raises(ValueError, match="no such step: tokeniser"):
        build(built, RECIPE, only=["tokeniser"])
    assert check_manifest(built) == []


@pytest.mark.parametrize("part", ["dev", "test"])
def test_programs_print_their_answers_and_belong_to_their_part(part):
    programs = records(ROOT / "data" / f"programs_{part}.jsonl")
    queries = [program["query"] for program in programs]
    assert len(queries) == len(set(queries))
    levels = [program["level"] for program in programs]
    assert levels.count(2) == levels.count(3) == PROGRAMS_PER_LEVEL
    assert levels.count(1) >= 40
    for program in programs:
        task = parse(program["query"])  # the grammar accepts only arithmetic: safe for exec below
        assert (task.family, task.level) == ("prog", program["level"])
        assert split(program["query"]) == part
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program["query"], {"__builtins__": {"print": print}})
        assert printed.getvalue() == program["reference"] + "\n"


def test_parts_share_no_program():
    dev, test, train = (
        {record["query"] for name in names for record in records(ROOT / "data" / f"{name}.jsonl")}
        for names in (("programs_dev", "dev"), ("programs_test", "test"), ("train",))
    )
    assert dev.isdisjoint(test)
    assert train.isdisjoint(dev | test)


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


def test_the_base_and_the_reward_model_are_those_of_the_published_results():
    """A new step leaves the bytes of the older ones as they are."""
    files = {
        path: digest for step in manifest(ROOT)["files"].values() for path, digest in step.items()
    }
    assert files["base/model.safetensors"].startswith("621703d30c1952b6deaf4d4219fffb7c")
    assert files["reward_model/model.safetensors"].startswith("99b8374bac9a4c7ea02e2166bb346f16")


def test_shipped_manifest_lists_every_file_made():
    listed = {path for files in manifest(ROOT)["files"].values() for path in files}
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).iterdir()
    }
    assert listed == found


def test_the_rules_of_the_world_load_no_torch():
    code = (
        "import sys, lsp_lightning\n"
        "before = set(sys.modules)\n"
        "import lsp_lightning.tinyworld.recipe.corpus, lsp_lightning.tinyworld.tasks\n"
        "print({'torch', 'transformers'} & (set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
