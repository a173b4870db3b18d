"""Figures, differences, claims and tables from rows with known values."""

import json
import math
import re
from dataclasses import replace

import pytest

from lsp_lightning.reproduce.claims import Claim, decide
from lsp_lightning.reproduce.comparison import Comparison
from lsp_lightning.reproduce.figures import Interval, Row, compared, difference
from lsp_lightning.reproduce.measured import Measured
from lsp_lightning.reproduce.plots import page
from lsp_lightning.reproduce.results import as_json
from lsp_lightning.reproduce.tables import cell, markdown
from lsp_lightning.reproduce.tiny import tiny_world

_SCORE = "sampled, unmet"


def row(right, met=(0, 0, 0, 0), greedy=(1, 1, 0, 0), curve=(), **queries):
    measured = Measured(
        right=right,
        draws=4,
        greedy=greedy,
        met=met,
        levels=(1, 1, 2, 3),
        curve=curve,
        curve_draws=4 if curve else 0,
        curve_every=2,
        queries=queries,
    )
    return Row(measured, 60.0, {"Solver": 0.5}, [(0, 0.5), (25, 0.75)], [(5, {"malformed": 0.25})])


def test_figures_by_hand():
    found = row((4, 2, 1, 0), met=(1, 0, 0, 0), malformed=0.5).figures()
    assert found["sampled"] == pytest.approx(7 / 16)
    assert found["sampled, unmet"] == pytest.approx(3 / 12)
    assert found["tasks met"] == 1
    assert found["greedy"] == 0.5
    assert found["pass@4"] == 0.75
    assert [found[f"level {level}"] for level in (1, 2, 3)] == [0.5, 0.25, 0.0]  # unmet ones
    assert found["queries, malformed"] == 0.5


def test_the_curve_is_pass_at_k():
    # one of 4 right: 1/4, 1/2, 1; none right: 0
    assert row((0, 0, 0, 0), curve=(1, 0)).curve() == pytest.approx({1: 0.125, 2: 0.25, 4: 0.5})
    assert row((0, 0, 0, 0)).curve() == {}


def test_a_difference_is_on_the_tasks_that_neither_has_met():
    one = row((4, 4, 4, 0), met=(1, 0, 0, 0), greedy=(1, 1, 1, 0), curve=(4, 4))
    other = row((0, 2, 2, 0), met=(0, 1, 0, 0), greedy=(0, 0, 0, 0), curve=(0, 2))
    # left are tasks 2 and 3: 1 - 1/2 and 0 - 0
    assert difference(one, other, "sampled, unmet") == 0.25
    assert difference(one, other, "greedy") == 0.5
    # the curve has tasks 0 and 2; task 2 is left: 1 - 1/2
    assert difference(one, other, "curve@1") == 0.5
    assert math.isnan(difference(one, other, "curve@64"))
    assert math.isnan(difference(one, other, "queries, malformed"))  # they wrote none


def test_differences_are_paired_by_seed():
    arm = {0: row((4, 0, 0, 0)), 1: row((4, 4, 0, 0)), 2: row((4, 4, 4, 4))}
    other = {1: row((4, 0, 0, 0)), 0: row((0, 0, 0, 0)), 5: row((0, 0, 0, 0))}
    found = compared(arm, other, "sampled, unmet")
    assert (found.mean, found.half, found.n) == (0.25, 0.0, 2)  # both seeds: a quarter


def test_an_interval_of_two_seeds_by_hand():
    found = Interval.of([0.4, 0.6, math.nan])
    assert found.n == 2
    # standard deviation .1414, error .1, quantile 12.706
    assert (found.low, found.high) == pytest.approx((0.5 - 1.27062, 0.5 + 1.27062), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "mean", "half", "verdict"),
    [
        ("above", 0.05, 0.04, "seen here"),
        ("above", 0.05, 0.06, "not decided"),
        ("above", -0.05, 0.04, "not seen"),
        ("no worse", -0.01, 0.005, "seen here"),  # above the margin of -.02
        ("no worse", -0.01, 0.02, "not decided"),
        ("no worse", -0.05, 0.02, "not seen"),
        ("below", -0.5, 0.1, "seen here"),
        ("below", 0.5, 0.1, "not seen"),
        ("below", -0.5, 0.6, "not decided"),
        ("above", 0.5, math.nan, "not decided"),  # a single seed decides nothing
    ],
)
def test_an_interval_decides_a_claim(kind, mean, half, verdict):
    claim = Claim("x", "lsp", "base", kind=kind)
    assert claim.verdict(Interval(mean, half, 5)) == verdict


def test_claims_about_arms_that_were_not_measured_are_left_out():
    rows = {"lsp": {0: row((4, 4, 0, 0))}, "base": {0: row((1, 1, 0, 0))}}
    claims = (Claim("a", "lsp", "base"), Claim("b", "lsp", "grpo"))
    [found] = decide(claims, rows)
    assert found.claim.says == "a"
    assert found.found.mean == pytest.approx(0.375)
    # arms without a seed in common
    assert decide(claims, {"lsp": rows["lsp"], "base": {1: row((1, 1, 0, 0))}}) == []


def test_a_single_seed_has_an_interval_over_its_tasks_which_decides_nothing():
    found = compared({0: row((4, 4, 4, 4))}, {0: row((0, 0, 0, 1)), 1: row((4, 4, 4, 4))}, _SCORE)
    # 1, 1, 1, 3/4: std 1/8, error 1/16
    assert (found.mean, found.n, found.over) == (15 / 16, 1, "tasks")
    assert found.half == pytest.approx(3.182446 / 16)
    assert found.low > 0
    assert Claim("x", "lsp", "base").verdict(found) == "not decided"
    assert compared({0: row((4, 4, 4, 4))}, {1: row((4, 4, 4, 4))}, _SCORE).n == 0


def test_cells():
    assert cell(Interval(0.8744, 0.0081, 5)) == "0.874 [0.866, 0.882]"
    assert cell(Interval(0.5, math.nan, 1)) == "0.500"
    assert cell(Interval(-0.0001, 0.01, 3), 3, "+") == "+0.000 [-0.010, +0.010]"
    assert cell(Interval(math.nan, math.nan, 0)) == "-"
    assert cell(Interval.of([0.87, 0.88])) == "0.875 (0.870, 0.880)"
    assert cell(Interval.of([-0.1, 0.3]), 1, "+") == "+0.1 (-0.1, +0.3)"
    assert cell(Interval.of([0.1, 0.2, 0.3]), 2) == "0.20 [-0.05, 0.45]"


@pytest.fixture
def rows():
    base = {seed: row((2, 1, 1, 0), curve=(2, 1), malformed=0.1) for seed in (0, 1)}
    lsp = {seed: row((4, 3, 3, seed), curve=(4, 3), malformed=0.2) for seed in (0, 1)}
    return {"base": base, "lsp": lsp, "no-gate": lsp, "paper": lsp}


@pytest.fixture
def world():
    return replace(tiny_world(), curve_draws=4)


def test_the_tables_have_a_row_for_each_measured_arm(world, rows):
    text = markdown(world, 100, rows)
    tables = re.findall(r"^\| arm \|.*?(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "| LSP, recommended | 2 | 0.656 (0.625, 0.688) |" in tables[0]  # 10 and 11 of 16
    # unmet tasks: 10 or 11 of 16 minus 4 of 16
    assert "| LSP, recommended | 2 | +0.406 (+0.375, +0.438) |" in tables[1]
    assert "without a gate | LSP, recommended |" in tables[-1]
    assert "nan" not in text
    # the paper's versions have columns of their own
    assert "| claim | paper, v3 | paper, v1 | here | difference | n | verdict |" in text
    [line] = re.findall(r"^\| LSP improves.*LSP, paper's form minus base.*$", text, re.MULTILINE)
    assert "| 36.4 against 26.5 | 40.6 |" in line


def test_results_are_json_without_nan(world, rows, tmp_path):
    rows["base"] = {0: rows["base"][0]}
    found = as_json(Comparison(world, tmp_path, 100), rows)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert found["arms"]["lsp"]["seeds"]["1"]["right"] == "4 3 3 1"
    assert found["arms"]["lsp"]["seeds"]["1"]["pass@k"]["1"] == 0.875
    minus = found["arms"]["lsp"]["minus"]["base"]["sampled, unmet"]
    # 4, 3, 3, 0 minus 2, 1, 1, 0 of 4: .5, .5, .5, 0; std .25, quantile 3.1824
    bounds = [pytest.approx(0.375 + sign * 3.182446 * 0.125, abs=1e-6) for sign in (-1, 1)]
    assert [minus.pop(end) for end in ("low", "high")] == bounds
    assert minus == {"mean": 0.375, "n": 1, "over": "tasks"}
    claims = {claim["claim"]: claim["verdict"] for claim in found["claims"]["paper"]}
    assert claims["LSP improves on the base without data"] == "not decided"


def test_the_page_of_plots_needs_no_network(world, rows):
    html = page(world, 100, rows)
    assert not re.search(r"<script[^>]+src=", html)
    assert not re.search(r"<link[^>]+href=", html)
    assert "default-src 'none'" in html
    assert html.count("Plotly.newPlot(") >= 4
    assert len(html) < 6_000_000
    assert "LSP, recommended" in html


@pytest.mark.parametrize("seeds", [2, 3])
def test_final_scores_show_each_seed_and_an_interval_from_three_seeds_on(world, seeds):
    scores = (4, 3, 2)[:seeds]
    rows = {"lsp": {seed: row((score, 0, 0, 0)) for seed, score in enumerate(scores)}}
    html = page(world, 100, rows)
    [array] = re.findall(r'"error_x":\{"array":(\[[^]]*\])', html)
    # of 16: std 1/16, quantile 4.302653, over the root of 3
    expected = [pytest.approx(4.302653 / 16 / math.sqrt(3), abs=1e-6)] if seeds == 3 else [None]
    assert json.loads(array) == expected
    assert f'"x":{json.dumps([score / 16 for score in scores], separators=(",", ":"))}' in html
