"""The tables of the results page say what `reproduce` found."""

import math
from pathlib import Path

import pytest

from benchmarks.reproduced import read_results, result_path
from lsp_lightning.reproduce.figures import Interval
from lsp_lightning.reproduce.smollm2 import smollm2_world
from lsp_lightning.reproduce.tables import cell
from lsp_lightning.reproduce.tiny import tiny_world

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs/results.md").read_text("utf-8").split("\n")
WORLDS = [world for world in (tiny_world(), smollm2_world()) if result_path(world.name).is_file()]


def known(value):
    return math.nan if value is None else value


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_each_claim_stands_there_with_its_difference_and_verdict(world):
    claims = read_results(world.name)["claims"]
    assert claims["paper"]
    for claim in [*claims["paper"], *claims["further"]]:
        mean = known(claim["mean"])
        found = Interval(mean, known(claim["high"]) - mean, claim["n"])
        end = f"| {cell(found, 3, '+')} | {claim['n']} | {claim['verdict']} |"
        here = f"{world.arm(claim['arm']).label} minus {world.arm(claim['minus']).label}"
        assert any(here in line and line.endswith(end) for line in LINES), (here, end)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_each_arm_stands_there_with_its_scores(world):
    arms = read_results(world.name)["arms"]
    assert {arm.name for arm in world.arms} == set(arms)
    for arm in world.arms:
        seeds = arms[arm.name]["seeds"].values()
        shown = ["sampled, unmet", "greedy"]
        shown += ["sampled", "pass@8"] if arm.changes is None else []
        cells = [cell(Interval.of([seed[name] for seed in seeds])) for name in shown]
        rows = [line for line in LINES if line.startswith(f"| {arm.label} | ")]
        assert any(all(f" {text} |" in row for text in cells) for row in rows), (arm.label, cells)


def test_the_tables_of_the_tiny_world_are_of_all_its_seeds():
    world = tiny_world()
    arms = read_results(world.name)["arms"]
    for arm in world.arms:
        assert tuple(map(int, arms[arm.name]["seeds"])) == world.seeds_of(arm, world.seeds)
    assert read_results(world.name)["rounds"] == world.rounds
