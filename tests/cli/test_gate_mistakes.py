"""Mistakes in the settings of the gate and of the pool: each is one line, before a model loads."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("untouched_process", "no_model")


def check(name: str, **settings) -> str:
    return one("gate.checks", [{"class_path": name, "init_args": settings}])


def one(key: str, value) -> str:
    return f"--data.{key} {shlex.quote(json.dumps(value))}"


def verifier(name: str) -> dict:
    return {"class_path": f"lsp_lightning.{name}"}


PREFERENCE = "--model.rewards " + shlex.quote(
    json.dumps(
        [
            {
                "class_path": "lsp_lightning.PreferenceReward",
                "init_args": {"model": "pkg:lsp_lightning/tinyworld/reward_model"},
            }
        ]
    )
)
GRPO = one("queries", {"class_path": "lsp_lightning.PromptFile", "init_args": {"path": "q.txt"}})
UNREADABLE = {"class_path": "lsp_lightning.WellFormed", "init_args": {"verifier": 5}}
#: What is typed after `fit --config tiny.yaml`, and how the line goes on after "error: ".
FAST = {
    f"{one('gate.solve_rate', [0.1, 0.9])} {PREFERENCE}": (
        "data.gate.solve_rate: needs task rewards with a lowest and a highest score, but reward "
        "'preference' has none; use another reward, or set data.gate.solve_rate to null"
    ),
    f"{one('gate.redraws', 2)} {GRPO}": "data.gate: is for queries that the Challenger writes, bu",
    check("lsp_lightning.WellFormed", verifier=verifier("MathVerifier")): "data.gate.checks.WellF",
    f"{one('gate.solve_rate', [0.1, 0.9])} --model.objective.uncertainty 0.5": (
        "model.objective.init_args.uncertainty: pays for solved queries, but data.gate.solve_rate "
        "[0.1, 0.9] shuts them out; set data.gate.solve_rate to [0.1, 1], or uncertainty to 0"
    ),
    check("lsp_lightning.Nowel"): "data.gate.checks: cannot import lsp_lightning.Nowel",
}
MORE = {
    one("gate.solve_rate", [10, 90]): (
        "data.gate.solve_rate: is [10.0, 90.0]; set two numbers between 0 and 1, in order, such as "
        "[0.1, 0.9]"
    ),
    f"{one('pool.share', 0.25)} {PREFERENCE}": "data.pool: needs task rewards with a lowest and a",
    f"{one('pool.share', 0.25)} {GRPO}": "data.pool: is for queries that the Challenger writes, b",
    one("pool.share", 1.0): "data.pool.share: is 1.0; set at least 0 and below 1",
    one("pool.share", 0.95): "data.pool.share: is 0.95, which leaves the Challenger fewer than 2",
    one("pool.solve_rate", [0.9, 0.1]): "data.pool.solve_rate: is [0.9, 0.1]; set two numbers be",
    one("pool.size", 0): "data.pool.size: is 0, but it is a number of queries; set 1 or more",
    one("pool.sise", 9): "data.pool.sise: there is no such key; did you mean 'size'?",
    one("gate.redraws", -1): "data.gate.redraws: is -1, but it is a number of draws; set 0 or more",
    one("gate.solve_rate", 0.5): "data.gate.solve_rate: must be two numbers, or null, is",
    one("gate.solve_rate", [0.1]): "data.gate.solve_rate: must be two numbers, or null,",
    one("pool.solve_rate", 0.5): "data.pool.solve_rate: must be two numbers, is 0.5; see",
    one("pool", 0.25): "data.pool: must be a mapping such as {share: 0.25}, or null, is 0.25; see",
    one("gate", [{"class_path": "lsp_lightning.Novel"}]): (
        "data.gate: must be a mapping such as {redraws: 3}, or null, is [{'class_path': "
        "'lsp_lightning.Novel'}]; write the list under data.gate.checks"
    ),
    check("bad_checks.Forgot"): (
        "data.gate.checks: Forgot does not define accepts; rename accept to accepts"
    ),
    check("lsp_lightning.Novel", near=2): "data.gate.checks.Novel.near: is 2.0; set above 0 and at",
    check("lsp_lightning.Novel", near=0): (
        "data.gate.checks.Novel.near: is 0.0; set a finite number above 0, or leave Novel out to "
        "allow all"
    ),
    check("lsp_lightning.Novel", nearr=1): "data.gate.checks.Novel.nearr: there is",
    check("lsp_lightning.Judged", least=5): "data.gate.checks.Judged.least: is 5.0; set at least",
    check("lsp_lightning.Judged"): "data.gate.checks.Judged.least: not set; ",
    check("lsp_lightning.Judged", least=0.5): (
        "data.gate.checks.Judged.prompt: makes prompts of up to "
    ),
    check("lsp_lightning.Judged", least=0.5, prompt="judge.txt"): (
        "data.gate.checks.Judged.prompt: 'judge.txt' has the slot {response}, but only the query is"
    ),
    check("lsp_lightning.Matches", pattern="("): "data.gate.checks.Matches.pattern: is not a regu",
    check("lsp_lightning.Paper"): "data.gate.checks: lsp_lightning.Paper is not a Query",
    one("gate.checks", {"near": 0.8}): "data.gate.checks: must be a list or null, is {'",
    one("gate.checks", "Novel"): "data.gate.checks: must be a list or null, is Novel; ",
    one("gate", {"class_path": "lsp_lightning.Gate", "init_args": {"redraw": 3}}): (
        "data.gate.init_args.redraw: there is no such key; did you mean 'redraws'?"
    ),
    one("gate.redraw", 3): "data.gate.redraw: there is no such key; did you mean 'redraws'?",
    one("gate.checks", [{"class_path": "lsp_lightning.Novel"}, UNREADABLE]): (
        "data.gate.checks.WellFormed.verifier: must name"
    ),
    "--config top.yaml": "gate: there is no such key; did you mean 'data.gate'?",
    "--config pool.yaml": "pool: there is no such key; did you mean 'data.pool'?",
    "--model.gate.redraws 3": "model.gate: there is no such key; did you mean 'data.gate'?",
    "--config model.yaml": "model.gate: there is no such key; did you mean 'data.gate'?",
    "--data.gatee.redraws 3": "data.gatee.redraws: there is no such key; did you mean 'data.gate'?",
    "--data.queries.init_args.examples_from_pool true": "data.queries.init_args.examples_from_pool",
}
TABLE = {**FAST, **MORE}


#: A check of one's own with a misspelt method.
FORGOT = """\
import lsp_lightning


class Forgot(lsp_lightning.QueryCheck):
    def accept(self, queries, taken):
        return [True for _ in queries]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("judge.txt").write_text("{instruction} {response}")
    Path("q.txt").write_text("1+1=?\n2+2=?\n")
    Path("top.yaml").write_text("gate: {redraws: 3}")
    Path("pool.yaml").write_text("pool: {share: 0.25}")
    Path("model.yaml").write_text("model: {gate: {redraws: 3}}")
    Path("bad_checks.py").write_text(FORGOT)
    preset = yaml.safe_load((ROOT / "configs" / "tiny_lsp.yaml").read_text())
    plain = {**preset["data"], "gate": None, "pool": None}
    Path("tiny.yaml").write_text(yaml.safe_dump({**preset, "data": plain}))


@pytest.mark.parametrize(
    "typed", [pytest.param(t, marks=pytest.mark.slow if t in MORE else []) for t in TABLE]
)
def test_a_mistake_is_one_line(typed, here, capfd):
    start = "fit --config tiny.yaml --trainer.default_root_dir out --data.heldout null "
    try:
        code = main(shlex.split(start + typed))
    except SystemExit as stop:
        code = stop.code
    out, shown = capfd.readouterr()
    assert code == 2, shown
    assert shown.startswith(f"error: {TABLE[typed]}")
    assert len(shown.splitlines()) == 1
    assert not out
    assert len(shown) < 600
    assert "object at 0x" not in shown
