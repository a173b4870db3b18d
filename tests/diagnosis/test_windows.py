"""Each symptom is found in a run that has it, once, and not in one that has not."""

import json
import math
import re

import pytest

from lsp_lightning.diagnosis import SYMPTOMS, Symptom, Windows

NAN = float("nan")
#: In each round in which the Challenger writes queries.
WRITTEN = {"queries/tokens": 10.0}
MALFORMED = "queries/checker/malformed"
#: For each symptom: its metrics in the first rounds; later, in a sick run; later, in a healthy run
#: that has changed as well.
RUNS: dict[str, tuple[dict[str, float], dict[str, float], dict[str, float]]] = {
    "malformed queries": ({MALFORMED: 0.14}, {MALFORMED: 0.72}, {MALFORMED: 0.28}),
    "invalid queries": (
        {"queries/invalid": 0.0},
        {"queries/invalid": 0.7},
        {"queries/invalid": 0.1},
    ),
    "unsolved queries": (
        {"queries/unsolved": 0.1},
        {"queries/unsolved": 0.4},
        {"queries/unsolved": 0.28},
    ),
    "too hard": ({"solve_rate": 0.6}, {"solve_rate": 0.1}, {"solve_rate": 0.3}),
    "too easy": ({"solve_rate": 0.6}, {"solve_rate": 0.99}, {"solve_rate": 0.95}),
    "dead groups": ({"dead_groups": 0.1}, {"dead_groups": 0.97}, {"dead_groups": 0.8}),
    "copies within a round": (
        {"queries/duplicate": 0.0},
        {"queries/duplicate": 0.4},
        {"queries/duplicate": 0.05},
    ),
    "queries alike": (
        {"queries/similarity": 0.2},
        {"queries/similarity": 0.8},
        {"queries/similarity": 0.6},
    ),
    "queries of earlier rounds": (
        {"queries/seen_exact": 0.0},
        {"queries/seen_exact": 0.9},
        {"queries/seen_exact": 0.5},
    ),
    "noise in the queries": ({"queries/zlib": 0.7}, {"queries/zlib": 0.9}, {"queries/zlib": 0.84}),
    "judged quality": ({"quality": 0.75}, {"quality": 0.5}, {"quality": 0.7}),
    # R differs less, too, in the healthy run: the Solver has learned
    "spread of Q": (
        {"quality_std": 0.1, "reward_std": 0.3},
        {"quality_std": 0.003, "reward_std": 0.3},
        {"quality_std": 0.003, "reward_std": 0.05},
    ),
    "Challenger's entropy rises": (
        {"entropy/challenger": 1.1},
        {"entropy/challenger": 3.0},
        {"entropy/challenger": 1.5},
    ),
    "Challenger's entropy vanishes": (
        {"entropy/challenger": 0.6},
        {"entropy/challenger": 0.05},
        {"entropy/challenger": 0.2},
    ),
    "Solver's entropy rises": (
        {"entropy/solver": 0.5},
        {"entropy/solver": 1.5},
        {"entropy/solver": 0.7},
    ),
    "Solver's entropy vanishes": (
        {"entropy/solver": 0.5},
        {"entropy/solver": 0.01},
        {"entropy/solver": 0.04},
    ),
    # far away in all, but not in each of many tokens
    "Challenger's KL": (
        {"kl/challenger": 0.0},
        {"kl/challenger": 15.0},
        {"kl/challenger": 9.0},
    ),
    "Solver's KL": (
        {"kl/solver": 0.0, "answers/tokens": 30.0},
        {"kl/solver": 40.0, "answers/tokens": 30.0},
        {"kl/solver": 14.0, "answers/tokens": 30.0},
    ),
    "long answers": ({"answers/tokens": 30.0}, {"answers/tokens": 70.0}, {"answers/tokens": 40.0}),
    "answers cut off": (
        {"answers/truncated": 0.1},
        {"answers/truncated": 0.7},
        {"answers/truncated": 0.3},
    ),
    "answers as code": ({"answers/code": 0.0}, {"answers/code": 0.6}, {"answers/code": 0.05}),
    "answers alike": (
        {"answers/distinct_2": 0.4},
        {"answers/distinct_2": 0.08},
        {"answers/distinct_2": 0.2},
    ),
    "unjudged answers": ({"unjudged/rm": 0.0}, {"unjudged/rm": 0.5}, {"unjudged/rm": 0.2}),
    "skipped rounds": ({"skipped": 0.0}, {"skipped": 0.5}, {"skipped": 0.2}),
    "noise in the answers": (
        {"answers/zlib": 0.5},
        {"answers/zlib": 0.95},
        {"answers/zlib": 0.6},
    ),
}
BY_NAME = {symptom.name: symptom for symptom in SYMPTOMS}
SCORES = {"heldout/greedy": 0.94, "heldout/greedy_se": 0.01, "heldout/sampled": 0.5}


def played(windows, rows, start=0, stalls=None):
    """The names of the symptoms that are found, with their rounds."""
    found = []
    for index, row in enumerate(rows, start):
        found += windows.observe(index, {**WRITTEN, **row}, stalls or {})
    return [(one.last, one.symptom.name) for one in found]


def test_there_is_a_run_for_each_symptom():
    assert set(RUNS) | {"skill falls"} == set(BY_NAME)


@pytest.mark.parametrize("name", RUNS)
def test_a_symptom_is_found_once_where_it_is_and_not_where_it_is_not(name):
    first, sick, healthy = RUNS[name]
    window = BY_NAME[name].rounds
    # five first rounds, then a whole window
    assert played(Windows(), [first] * 5 + [sick] * 60) == [(5 + window - 1, name)]
    assert played(Windows(), [first] * 5 + [healthy] * 60) == []
    assert played(Windows(), [first] * 65) == []
    # as it always was: a weak model's game, and not one that has become worse
    symptom = BY_NAME[name]
    if symptom.extreme is not None:
        assert played(Windows(), [sick] * 65) == [(4 + window, name)]
    elif symptom.change is not None or symptom.factor is not None:
        assert played(Windows(), [sick] * 65) == []


@pytest.mark.parametrize("name", RUNS)
def test_rounds_in_which_the_challenger_wrote_nothing_tell_nothing_of_it(name):
    first, sick, _ = RUNS[name]
    windows, found = Windows(), []
    for index, row in enumerate([first] * 5 + [sick] * 60):
        found += windows.observe(index, row, {})
    assert bool(found) != BY_NAME[name].of_challenger


def test_one_bad_round_is_not_a_symptom():
    first, sick, _ = RUNS["malformed queries"]
    assert played(Windows(), [first] * 20 + [sick] + [first] * 20) == []


def test_a_missing_value_counts_neither_way():
    first, sick, _ = RUNS["malformed queries"]
    rows = [first] * 5 + [{MALFORMED: NAN}, {}] * 20 + [sick] * 10
    assert played(Windows(), rows) == [(54, "malformed queries")]


def test_it_is_found_again_only_after_a_window_without_it():
    first, sick, _ = RUNS["malformed queries"]
    once = [first] * 5 + [sick] * 10
    # good rounds that are too few for ten windows without it in a row
    assert played(Windows(), once + [first] * 6 + [sick] * 20) == [(14, "malformed queries")]
    again = played(Windows(), once + [first] * 30 + [sick] * 20)
    assert [name for _, name in again] == ["malformed queries"] * 2


def test_two_verifiers_with_one_finding_are_named_once():
    # one verifier may be used twice, with the same finding
    two = {MALFORMED: 0.72, "queries/exact/malformed": 0.72, "queries/other/malformed": 0.0}
    rows = [dict.fromkeys(two, 0.1)] * 5 + [two] * 10
    assert played(Windows(), rows) == [(14, "malformed queries")]


def test_a_consequence_is_not_named_beside_its_cause():
    first = RUNS["malformed queries"][0] | RUNS["unsolved queries"][0] | RUNS["too hard"][0]
    sick = RUNS["malformed queries"][1] | RUNS["unsolved queries"][1] | RUNS["too hard"][1]
    assert played(Windows(), [first] * 5 + [sick] * 30) == [(14, "malformed queries")]


def test_what_a_stall_explains_is_left_to_it():
    first, sick, _ = RUNS["malformed queries"]
    rows = [first] * 5 + [sick] * 20
    # StallWatch has named it
    windows = Windows()
    assert played(windows, rows, stalls={"malformed": True}) == []
    assert played(windows, [sick] * 10, start=25) == []  # the user knows
    # it has seen it in this round and is still counting; then it turns out to be no stall
    windows = Windows()
    assert played(windows, rows, stalls={"malformed": False}) == []
    assert played(windows, [sick] * 10, start=25) == [(25, "malformed queries")]
    # a stall with another cause explains nothing
    assert played(Windows(), rows, stalls={"answers identical": True}) == [
        (14, "malformed queries")
    ]
    # causes may carry the name of a reward
    first, sick, _ = RUNS["spread of Q"]
    assert played(Windows(), [first] * 5 + [sick] * 30, stalls={"Q constant: 'a'": True}) == []


def test_in_small_rounds_a_difference_may_be_chance():
    sick = RUNS["malformed queries"][1]
    # a third of three queries or none; then, as by chance, all of them in every third round
    few = [{MALFORMED: share} for share in (0.0, 1 / 3, 0.0, 1 / 3, 0.0)]
    bursts = [{MALFORMED: share} for share in (1.0, 0.0, 0.0)] * 6
    assert played(Windows(), few + bursts) == []
    assert played(Windows(), few + [sick] * 10) == [(14, "malformed queries")]


@pytest.mark.parametrize("cut", [3, 9, 14, 15, 40])
def test_a_resumed_watch_finds_the_same_in_the_same_rounds(cut):
    first, sick, _ = RUNS["malformed queries"]
    rows = [first] * 5 + [sick] * 12 + [first] * 30 + [sick] * 20
    whole = Windows()
    before = played(whole, rows[:cut])
    state = json.loads(json.dumps(whole.state_dict()))  # plain values
    resumed = Windows()
    resumed.load_state_dict(state)
    after = played(resumed, rows[cut:], start=cut)
    assert before + after == played(Windows(), rows)
    assert len(before + after) == 2
    played(whole, rows[cut:], start=cut)
    assert resumed.state_dict() == whole.state_dict()


def test_the_memory_does_not_grow_with_the_run():
    first, sick, _ = RUNS["too easy"]
    windows = Windows()
    played(windows, [first] * 5 + [sick] * 40)
    size = len(json.dumps(windows.state_dict()))
    played(windows, [sick] * 400, start=45)
    assert len(json.dumps(windows.state_dict())) < 1.2 * size


# -- held-out scores -------------------------------------------------------------------------------


def scored(*greedy, error=0.01):
    windows = Windows()
    windows.start(SCORES)
    found = []
    for index, score in enumerate(greedy):
        found += windows.score(
            25 * index, {**SCORES, "heldout/greedy": score, "heldout/greedy_se": error}
        )
    return [one.last for one in found]


def test_a_score_falls_if_it_is_three_standard_errors_of_the_difference_lower():
    # the difference of two scores with errors of .01 has one of .0141: three of them are .0424
    assert scored(0.90, 0.90) == []
    assert scored(0.90, 0.89, 0.88) == [25]
    assert scored(0.80, error=0.1) == []
    assert scored(0.80, error=NAN) == []  # a single task has no error
    assert scored(0.88, NAN, 0.88, 0.94, 0.88) == [0, 100]


def test_without_scores_before_training_nothing_is_compared():
    assert Windows().score(24, {**SCORES, "heldout/greedy": 0.1}) == []


# -- what is said ----------------------------------------------------------------------------------


def text_of(windows, rows):
    for index, row in enumerate(rows):
        for found in windows.observe(index, {**WRITTEN, **row}, {}):
            return found.text
    return None


def test_the_line_says_when_what_compared_with_what_and_what_helps():
    first, sick, _ = RUNS["malformed queries"]
    assert text_of(Windows(), [first] * 5 + [sick] * 10) == (
        "rounds 5-14: 72 % of the queries have no right answer (queries/checker/malformed, 14 % in "
        "the first rounds): the Challenger is leaving the task; raise model.beta, or add a "
        "SelfReward to model.rewards (docs/runs-and-metrics.md)"
    )
    windows = Windows()
    windows.start(SCORES)
    [found] = windows.score(24, {**SCORES, "heldout/greedy": 0.7})
    assert found.text.startswith(
        "after round 24: the held-out score is 0.7 (heldout/greedy, 0.94 before training): "
    )


@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda symptom: symptom.name)
def test_a_symptom_says_what_to_change_and_has_limits(symptom):
    keys = r"model\.\w+|data\.\w+|earlier checkpoint"
    assert re.search(keys, symptom.helps), "no key of the config"
    assert symptom.fact.count("{now}") == 1
    limits = (symptom.bound, symptom.change, symptom.factor, symptom.errors)
    assert any(limit is not None for limit in limits)
    assert symptom.rule.endswith(" rounds") or symptom.errors is not None
    assert set(symptom.follows) - set(BY_NAME) <= STALLS


#: The causes that StallWatch names, or how they begin.
STALLS = {
    *("queries refused", "queries cut off", "queries empty", "queries invalid", "malformed"),
    *("answers cut off", "answers empty", "answers identical", "thoughts unclosed", "unjudged"),
    *("solve rates", "all wrong", "all right", "R constant", "Q constant"),
}


def test_a_symptom_of_your_own_needs_no_other_code():
    mine = Symptom(
        name="slow",
        metrics=("seconds/update",),
        fact="a round takes {now} s",
        meaning="it is slow",
        helps="lower data.num_queries",
        bound=9.0,
        rounds=2,
        style="number",
    )
    rows = [{"seconds/update": 1.0}] * 5 + [{"seconds/update": 10.0}] * 3
    assert text_of(Windows([mine]), rows).startswith("rounds 5-6: a round takes 10 s (seconds/")
    assert math.isclose(mine.bound, 9.0)
