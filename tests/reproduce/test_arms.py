"""The arms: their presets, their runs, and what each one changes."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.laptop_arms import arms as laptop_arms
from lsp_lightning import Learnability, Paper, SelfReward, VerifiableReward
from lsp_lightning.paths import resolve
from lsp_lightning.reproduce.arms import PRESETS, merged, preset_config
from lsp_lightning.reproduce.claims import FURTHER, PAPER
from lsp_lightning.reproduce.comparison import Comparison, Measure, Play
from lsp_lightning.reproduce.controls import coin
from lsp_lightning.reproduce.measure import _built
from lsp_lightning.reproduce.smollm2 import smollm2_world
from lsp_lightning.reproduce.tiny import tiny_world

ROOT = Path(__file__).parents[2]
WORLDS = (tiny_world(), smollm2_world())
SHIPPED = sorted(resolve(PRESETS).glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_presets_of_the_package_are_those_of_configs(path):
    assert path.read_bytes() == (ROOT / "configs" / path.name).read_bytes()


def test_every_preset_of_an_arm_is_shipped_and_has_a_cost():
    used = {stage.preset for world in WORLDS for arm in world.arms for stage in arm.stages}
    assert used == {path.stem for path in SHIPPED}
    for world in WORLDS:
        needed = {stage.preset for arm in world.arms for stage in arm.stages}
        assert needed <= set(world.costs.round)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_names_tell_arms_and_their_stages_apart(world):
    names = [arm.name for arm in world.arms]
    assert len(set(names)) == len(names)
    assert len({arm.label for arm in world.arms}) == len(names)
    stages_of = {}
    for arm in world.arms:
        assert not arm.stages or arm.runs()[-1] == arm.name
        for i, run in enumerate(arm.runs()):  # one name, one chain of trainings
            assert stages_of.setdefault(run, arm.stages[: i + 1]) == arm.stages[: i + 1]
        assert arm.control is None or arm.control in names
        assert arm.changes is None or arm.changes in names


def test_claims_are_about_arms_of_the_tiny_world():
    names = {arm.name for arm in tiny_world().arms}
    assert {name for claim in (*PAPER, *FURTHER) for name in (claim.arm, claim.other)} <= names


def test_the_few_queries_are_mostly_easy_ones_of_the_training_file():
    world = "pkg:lsp_lightning/tinyworld/data"
    few, train = (
        [json.loads(line) for line in resolve(path).read_text().splitlines()]
        for path in ("pkg:lsp_lightning/reproduce/few_queries.jsonl", f"{world}/train.jsonl")
    )
    levels = [row["level"] for row in few]
    assert [levels.count(level) for level in (1, 2, 3)] == [29, 14, 5]  # .6, .3, .1
    known = {row["query"] for row in train}
    assert len({row["query"] for row in few} & known) == 48


def test_an_overlay_merges_mappings_but_not_settings_of_another_class():
    below = {"a": {"class_path": "A", "init_args": {"x": 1}}, "b": {"c": 1, "d": 2}, "e": "E"}
    above = {"a": {"class_path": "B"}, "b": {"d": 3}, "e": {"f": 1}}
    expected = {"a": {"class_path": "B"}, "b": {"c": 1, "d": 3}, "e": {"f": 1}}
    assert merged(below, above) == expected
    assert merged(below, {"a": {"init_args": {"y": 2}}})["a"] == {
        "class_path": "A",
        "init_args": {"x": 1, "y": 2},
    }
    assert below["b"] == {"c": 1, "d": 2}


def built(name, tmp_path):
    """The module and data of an arm's last stage."""
    world = tiny_world()
    jobs = Comparison(world, tmp_path, 100).jobs([world.arm(name)], [0])
    play = [job for job in jobs if isinstance(job, Play)][-1]
    play.config["model"].pop("init_adapter", None)  # not trained here
    return _built(play.config)


@pytest.mark.parametrize("name", [arm.name for arm in tiny_world().arms if len(arm.stages) == 1])
def test_each_arm_makes_a_module_and_its_data(name, tmp_path):
    module, data = built(name, tmp_path)
    assert data.queries.selfplay == (name not in ("grpo", "few"))
    wide = ("lsp", "band", "frontier")  # the recommended game
    assert (data.gate is not None) == (name in (*wide, "no-pool"))
    assert (data.pool is not None) == (name in (*wide, "no-gate"))
    judges = [reward for reward in module.rewards if isinstance(reward, SelfReward)]
    assert bool(judges) == (name not in ("grpo", "few", "zero", "random"))
    paid = [r for r in module.rewards if isinstance(r, VerifiableReward) and r.weight > 0]
    assert bool(paid) == (name not in ("random", "q-alone"))
    if name == "q-sampled":
        assert [judge.reading for judge in judges] == ["sampled"]
    if name in ("lsp", "paper"):
        assert isinstance(module.objective, Learnability if name == "lsp" else Paper)
    if name.startswith("kl-"):
        assert module.loss_settings.kl == f"{name.removeprefix('kl-')}_loss"


@pytest.mark.parametrize("arm", [arm for arm in tiny_world().arms if arm.changes], ids=str)
def test_an_ablation_changes_its_arm_in_one_place(arm):
    unchanged = tiny_world().arm(arm.changes).stages[0]
    [stage] = arm.stages
    before = merged(preset_config(unchanged.preset), unchanged.changes)
    after = merged(preset_config(stage.preset), stage.changes)
    changed = {
        f"{part}.{key}"
        for part in ("model", "data")
        for key in {*before[part], *after[part]}
        if before[part].get(key) != after[part].get(key)
    }
    also = {"data.pool"} if arm.name == "plain" else set()
    also |= {"data.heldout_reward"} if arm.name == "q-alone" else set()  # the coin is logged, too
    assert len(changed - also) == 1


def test_the_arms_of_smollm2_are_those_of_the_laptop_benchmark():
    known = laptop_arms()
    for arm in smollm2_world().arms:
        for stage in arm.stages:
            theirs = known["recommended" if stage.name == "lsp" else stage.name]
            preset = preset_config("laptop_smollm2_135m")
            assert merged(preset, stage.changes) == merged(preset, theirs)


def test_arms_share_their_first_stages(tmp_path):
    world = tiny_world()
    jobs = Comparison(world, tmp_path, 7).jobs(world.arms, world.seeds)
    plays = [job for job in jobs if isinstance(job, Play)]
    runs = [job.run for job in plays]
    assert len(set(runs)) == len(runs)
    assert runs.count("grpo-3") == 1
    second = {job.run: job for job in plays if job.after == "grpo-3"}
    assert set(second) == {"grpo-paper-3", "grpo-lsp-3", "grpo-grpo-3"}
    adapter = str(tmp_path / "runs/grpo-3/adapter")
    assert {job.config["model"]["init_adapter"] for job in second.values()} == {adapter}
    # a first stage that goes on draws anew
    assert second["grpo-grpo-3"].config["seed_everything"] == 1003
    measured = [job.run for job in jobs if isinstance(job, Measure)]
    ablations = [arm for arm in world.arms if arm.changes]
    main = len(world.arms) - len(ablations)
    assert len(measured) == len(set(measured)) == 5 * main + 2 * len(ablations)
    assert {job.config["trainer"]["max_steps"] for job in plays} == {7}


def test_a_config_of_a_run_is_plain_yaml(tmp_path):
    world = smollm2_world()
    for job in Comparison(world, tmp_path, 2, "other.gguf").jobs(world.arms, [0]):
        if isinstance(job, Play):
            kept = yaml.safe_load(yaml.safe_dump(job.config))
            assert kept == job.config
            assert kept["model"]["base"] == "other.gguf"
            assert kept["data"]["heldout"] is None


def test_a_coin_does_not_look_at_answers():
    drawn = [coin(f"query {i}", ("right", "wrong"), "right") for i in range(400)]
    right, wrong = (sum(pair[place] for pair in drawn) / 400 for place in (0, 1))
    assert right == pytest.approx(0.5, abs=0.1)  # four standard errors
    assert wrong == pytest.approx(0.5, abs=0.1)
    assert drawn == [coin(f"query {i}", ("right", "wrong"), "other") for i in range(400)]
