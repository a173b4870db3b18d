"""Whether a run went well: held-out scores, indicators with their bounds, and settings."""

import math
from itertools import pairwise

import pytest
from report_runs import collapsed, healthy, write_run

from lsp_lightning.diagnosis import SYMPTOMS, Windows
from lsp_lightning.reporting.charts import Charts
from lsp_lightning.reporting.indicators import indicators
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
    assert [level for level, _ in bad.problems] == ["alarm", "alarm"]
    assert bad.problems[1][1] == (
        "malformed queries: the Challenger is leaving the task "
        "(queries/verifiable/malformed: 13 % \u2192 89 %)"
    )


@pytest.mark.parametrize(
    ("before", "after", "level", "gain"),
    # one standard error of the difference is .02 * sqrt(2) = .028
    [
        (0.5, 0.56, "ok", True),
        (0.5, 0.55, "ok", False),
        (0.5, 0.42, "ok", False),
        (0.5, 0.41, "alarm", False),
    ],
)
def test_a_gain_counts_beyond_two_standard_errors_and_a_fall_beyond_three(
    tmp_path, before, after, level, gain
):
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


def later(metric, before, after, rounds=10):
    """A run whose metric has one value for 15 rounds and another one after them."""
    values = [before] * 15 + [after] * rounds
    return run_of(**{metric: values, "queries__tokens": [9.0] * len(values)})


def test_limits_are_those_of_the_watch():
    assert levels(later("queries__x__malformed", 0.1, 0.35))["queries/x/malformed"] == "alarm"
    assert levels(later("queries__x__malformed", 0.1, 0.29))["queries/x/malformed"] == "ok"
    assert levels(later("queries__similarity", 0.3, 0.75))["queries/similarity"] == "watch"
    assert levels(later("queries__similarity", 0.5, 0.75))["queries/similarity"] == "ok"
    assert levels(later("entropy__solver", 1.0, 2.1))["entropy/solver"] == "watch"
    assert levels(later("entropy__solver", 1.0, 0.01, rounds=20))["entropy/solver"] == "watch"


@pytest.mark.parametrize("symptom", [s for s in SYMPTOMS if s.errors is None], ids=lambda s: s.name)
def test_a_run_has_a_symptom_exactly_when_the_watch_warns_of_it(symptom):
    worse = 1 if symptom.worse == "above" else -1
    name = symptom.metrics[0].replace("NAME", "x")
    per = 0.5 if symptom.per else 1.0
    start = per * (0.4 if symptom.bound is None else max(0.2, symptom.bound - worse * 0.05))
    bad = [start + worse * ((symptom.change or 0) + 0.2)]
    bad += [start * symptom.factor * (1.5 if worse > 0 else 0.5)] if symptom.factor else []
    bad += [per * (symptom.bound + worse * 0.01)] if symptom.bound is not None else []
    for end, is_bad in ((max(bad) if worse > 0 else min(bad), True), (start, False)):
        table = [
            {"step": t, "queries/tokens": 1.0, **({symptom.per: per} if symptom.per else {})}
            | {name: start if t < 9 else end}
            for t in range(40)
        ]
        windows = Windows()
        found = [one for row in table for one in windows.observe(row["step"], row, {})]
        assert (symptom.name in {one.symptom.name for one in found}) == is_bad
        [shown] = [one for one in indicators(table) if one.metric == name]
        assert (shown.level in ("alarm", "watch")) == is_bad
        assert shown.says.startswith(symptom.name) == is_bad


def test_a_run_that_is_malformed_from_its_first_round_has_collapsed():
    assert judge(later("queries__x__malformed", 0.95, 0.95)).headline == "collapsed"
    assert judge(later("queries__x__malformed", 0.5, 0.5)).headline == "no sign of collapse"


def test_what_a_reward_cannot_score_and_skipped_rounds_are_seen():
    for metric in ("unjudged__rm", "skipped"):
        assert judge(later(metric, 0.9, 0.9)).headline == "look closer"


def test_a_short_run_is_judged_by_its_scores(tmp_path):
    def headline(*scores):
        path = write_run(tmp_path / str(scores), rounds=10, heldout=scores)
        return judge(read_runs([str(path)])[0]).headline

    assert headline(0.5, 0.9) == "improved"
    assert headline(0.9, 0.5) == "collapsed"


def test_what_makes_a_run_collapsed_is_named():
    # the similarity of the queries explains the entropy, but it is amber
    values = {"queries__similarity": (0.2, 0.9), "entropy__challenger": (1.0, 0.01)}
    columns = {name: [first] * 9 + [then] * 20 for name, (first, then) in values.items()}
    verdict = judge(run_of(**columns, queries__tokens=[9.0] * 29))
    assert verdict.headline == "collapsed"
    level, text = verdict.problems[0]
    assert (level, text[:29]) == ("alarm", "Challenger's entropy vanishes")


def test_a_quotient_is_shown_beside_its_limit():
    run = run_of(
        **{"kl__solver": [1.0] * 9 + [40.0] * 20, "answers__tokens": [10.0] * 29},
        queries__tokens=[9.0] * 29,
    )
    [(_, text)] = judge(run).problems
    assert "(kl/solver / answers/tokens: 0.1 \u2192 4)" in text


def test_enormous_metrics_do_not_stop_a_report():
    run = run_of(entropy__solver=[(-1) ** t * 1e200 for t in range(40)])
    assert levels(run) == {"entropy/solver": "ok"}


def test_what_explains_a_symptom_is_named_alone():
    values = {"queries__x__malformed": 0.9, "dead_groups": 0.99}
    run = run_of(
        **{name: [0.1] * 15 + [value] * 20 for name, value in values.items()},
        queries__tokens=[9.0] * 35,
    )
    assert levels(run) == {"queries/x/malformed": "alarm", "dead_groups": "watch"}
    assert [text[:9] for _, text in judge(run).problems] == ["malformed"]


def test_a_metric_without_values_and_a_short_run_are_not_judged():
    assert levels(run_of(dead_groups=[math.nan] * 40)) == {"dead_groups": "unknown"}
    assert judge(run_of(dead_groups=[math.nan] * 40)).headline == "nothing to judge yet"
    assert levels(run_of(dead_groups=[0.1] * 5 + [0.99] * 9)) == {"dead_groups": "unknown"}


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
    (similarity,) = [c for c in charts.indicators if c.title == "queries/similarity"]
    assert [limit["y"] for limit in similarity.limits] == [0.7]
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
