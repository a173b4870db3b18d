"""Whether a run went well: held-out scores, indicators with their bounds, and settings."""

import math
from itertools import pairwise

import pytest
from report_runs import collapsed, healthy, write_run

from lsp_lightning.reporting.charts import Charts
from lsp_lightning.reporting.indicators import BOUNDS, indicators
from lsp_lightning.reporting.reading import Run, read_runs
from lsp_lightning.reporting.series import first_and_now, smoothed, thinned
from lsp_lightning.reporting.settings import differing, flat, main_settings
from lsp_lightning.reporting.verdict import judge


def run_of(**columns):
    """A run with these metrics, each a list over the rounds."""
    length = len(next(iter(columns.values())))
    names = {name: name.replace("__", "/") for name in columns}
    table = [{"step": t, **{names[n]: columns[n][t] for n in columns}} for t in range(length)]
    return Run("run", metrics=table)


def levels(run):
    return {indicator.metric: indicator.level for indicator in indicators(run.metrics)}


def test_a_healthy_and_a_collapsed_run_are_told_apart(tmp_path):
    paths = [
        write_run(tmp_path / "healthy"),
        write_run(tmp_path / "zero", collapsed, heldout=(0.8, 0.6)),
    ]
    good, bad = map(judge, read_runs([str(path) for path in paths]))
    assert (good.level, good.headline, good.problems) == ("ok", "improved", [])
    assert (bad.level, bad.headline) == ("alarm", "collapsed")
    assert [level for level, _ in bad.problems] == [*["alarm"] * 3, "watch"]
    assert "malformed queries (verifiable) 0.16 \u2192 0.89" in " ".join(t for _, t in bad.problems)


@pytest.mark.parametrize(
    ("before", "after", "level", "gain"),
    # one standard error of the difference is .02 * sqrt(2) = .028
    [
        (0.5, 0.56, "ok", True),
        (0.5, 0.55, "ok", False),
        (0.5, 0.45, "ok", False),
        (0.5, 0.44, "alarm", False),
    ],
)
def test_a_change_counts_beyond_two_standard_errors(tmp_path, before, after, level, gain):
    (run,) = read_runs([str(write_run(tmp_path / "run", heldout=(before, after)))])
    (change,) = judge(run).changes
    assert (change.level, change.is_gain, change.n) == (level, gain, 400)
    assert change.error == pytest.approx(math.sqrt(2) * 0.02)
    expected = {"ok": "improved" if gain else "no collapse, no clear gain", "alarm": "collapsed"}
    assert judge(run).headline == expected[level]


def test_a_fall_from_the_best_is_seen_while_the_run_is_playing():
    scores = [0.5, 0.9, 0.7]
    run = run_of(heldout__sampled=scores, heldout__sampled_se=[0.02] * 3, reward=[0.5] * 3)
    verdict = judge(run)
    assert verdict.problems == [
        ("watch", "sampled answers were better before: 90.0% after round 2")
    ]
    assert verdict.changes[0].text(verdict.changes[0].before) == "?"


def test_bounds_on_the_value_the_rise_and_the_ratio():
    flat_, late = [0.1] * 50, [0.1] * 40 + [0.55] * 10
    assert levels(run_of(queries__x__malformed=late)) == {"queries/x/malformed": "alarm"}
    assert levels(run_of(queries__x__malformed=late[:-5])) == {"queries/x/malformed": "watch"}
    assert levels(run_of(queries__similarity=late)) == {"queries/similarity": "alarm"}
    assert levels(run_of(queries__similarity=[0.55] * 50)) == {"queries/similarity": "ok"}
    assert levels(run_of(queries__distinct_2=[0.9] * 40 + [0.5] * 10)) == {
        "queries/distinct_2": "watch"
    }
    assert levels(run_of(queries__zlib=late)) == {"queries/zlib": "alarm"}
    assert levels(run_of(queries__zlib=flat_)) == {"queries/zlib": "ok"}


def test_a_value_that_is_no_share_has_no_bounds():
    assert levels(run_of(value=[0.5] * 9 + [0.01] * 9)) == {"value": "alarm"}
    assert levels(run_of(value=[1.5] * 9 + [0.01] * 9)) == {"value": "ok"}


def test_a_metric_without_values_and_a_short_run_are_not_judged():
    assert levels(run_of(queries__zlib=[math.nan] * 9)) == {"queries/zlib": "unknown"}
    assert judge(run_of(queries__zlib=[math.nan] * 9)).headline == "nothing to judge yet"
    assert levels(run_of(queries__zlib=[0.1, 0.9])) == {"queries/zlib": "ok"}


def test_every_bound_is_on_the_side_that_it_says():
    for bound in BOUNDS:
        limits = bound.limits(0.5)
        if bound.alarm is not None:
            assert (limits["alarm"] > limits["watch"]) == (bound.side == "above"), bound


def test_smoothing_keeps_constants_gaps_and_the_mean_of_a_line():
    assert smoothed([2.0] * 100) == [2.0] * 100
    line = smoothed([float(i) for i in range(100)])
    assert line[50] == 50
    assert smoothed([None] * 100) == [None] * 100
    holes = smoothed([None if i % 2 else 1.0 for i in range(100)])
    assert holes[:3] == [1.0, None, 1.0]


def test_thinned_rounds_are_even_and_keep_both_ends():
    places = thinned(1000, 300)
    assert (len(places), places[0], places[-1]) == (300, 0, 999)
    assert {b - a for a, b in pairwise(places)} == {3, 4}


def test_the_beginning_and_the_end_are_a_fifth_and_at_most_ten_rounds():
    assert first_and_now({i: float(i) for i in range(10)}) == (0.5, 8.5)
    assert first_and_now({i: float(i) for i in range(1000)}) == (4.5, 994.5)


def test_charts_have_both_players_user_metrics_and_held_out_with_errors(tmp_path):
    runs = read_runs([str(write_run(tmp_path / name)) for name in ("a", "b")])
    charts = Charts(runs)
    by_title = {chart.title: chart for chart in (*charts.curves, *charts.others)}
    assert by_title["Entropy"].kinds == ["Solver", "Challenger"]
    assert len(by_title["Entropy"].lines) == 4
    held_out = by_title["Held-out score"].lines[0]
    assert (held_out["x"], held_out["y"], held_out["error"]) == ([0, 60], [0.5, 0.8], [0.02] * 2)
    assert "reward/mine" in by_title
    assert "Value V" not in by_title  # it equals mean R here
    assert "queries/similarity" not in by_title  # it is an indicator
    (similarity,) = [c for c in charts.indicators if c.unit == "queries/similarity"]
    assert [limit["y"] for limit in similarity.limits] == [
        0.4,
        0.6,
    ]  # the first rounds' .2, and more
    assert {limit["run"] for limit in similarity.limits} == {None}


def test_long_runs_are_thinned_and_the_page_says_so():
    run = run_of(reward=[float(i % 2) for i in range(2000)])
    charts = Charts([run])
    assert len(charts.rounds[0]) == len(charts.curves[0].lines[0]["y"]) == 600
    assert charts.thinned == "600 of 2,000 rounds of run are drawn; lines are smoothed over all."
    # the line is smoothed over all rounds, not over those that are drawn
    assert charts.curves[0].lines[0]["line"][300] == pytest.approx(0.5, abs=0.02)


def test_settings_that_differ_and_no_others(tmp_path):
    first, second = (tmp_path / name for name in ("a", "b"))
    write_run(first)
    write_run(second, beta=0.2, seed=1)
    text = (second / "config.yaml").read_text()
    more = "- {class_path: my.Short, init_args: {name: short, weight: 2}}\n  objective"
    text = text.replace("objective", more, 1).replace(
        "gate: null", "gate: {class_path: lsp_lightning.Gate, init_args: {x: 1}}"
    )
    (second / "config.yaml").write_text(text)
    found = dict(differing(read_runs([str(first), str(second)])))
    assert found == {
        "seed_everything": ["0", "1"],
        "model.beta": ["0.05", "0.2"],
        "model.rewards.short": ["-", "my.Short"],  # and not its settings
        "data.gate": ["null", "lsp_lightning.Gate"],
    }


def test_main_settings_in_words(tmp_path):
    (run,) = read_runs([str(write_run(tmp_path / "run", rounds=30))])
    told = main_settings(run)
    assert told["model"] == "tiny"
    assert told["rounds"] == "30"
    assert told["queries x answers"] == "2 x 4"
    assert told["rewards"] == "verifiable (task)"
    assert told["objective"] == "Learnability"
    assert told["time"] == "2 min"
    assert told["gate"] == "no"
    assert "LoRA" not in told


def test_a_config_that_repeats_itself_is_bounded():
    value = {"x": 1}
    for _ in range(40):
        value = {"a": value, "b": value}  # 2 ** 40 leaves, as aliases in YAML can make them
    assert len(flat(value)) <= 3000
    ring = {}
    ring["ring"] = ring
    assert list(flat(ring).values()) == ["..."]


def test_same_metrics_give_the_same_verdict_with_values_that_are_missing():
    table = [{"step": t, **healthy(t / 50)} for t in range(51)]
    sparse = [row if i % 5 else {"step": row["step"]} for i, row in enumerate(table)]
    assert judge(Run("a", metrics=table)).level == judge(Run("a", metrics=sparse)).level == "ok"
