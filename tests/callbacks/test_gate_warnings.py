"""What the watch, the pilot, the transcripts and the examples say about a gate and a pool."""

import json
import warnings
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from handmade import FixedReward, gated

from lsp_lightning import (
    Challenger,
    Gate,
    InstructionVerifier,
    Novel,
    Pool,
    SelfPlayDataModule,
    VerifiableReward,
    Verifier,
    WellFormed,
)
from lsp_lightning.callbacks.examples import example_lines
from lsp_lightning.callbacks.remedies import Remedies
from lsp_lightning.callbacks.stalls import PATIENCE, StallWatch, stalls
from lsp_lightning.callbacks.transcripts import close_shard, refused_rows, rows
from lsp_lightning.callbacks.verdict import pilot_verdict
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.runs.transcripts import by_query, read_transcripts
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

RIGHT = FixedReward(None, name="r")
RIGHT.binary = True


def data(**gate):
    return SelfPlayDataModule(Challenger(), gate=Gate([Novel()], **gate))


def scored(played):
    """The round with R as the scores of RIGHT, and so as solve rates."""
    R = played.rewards_NG
    return replace(played, components={"r": R}, solve_rates_N=R.mean(dim=1), binary=True)


def causes(played, **gate):
    return {stall.cause: stall for stall in stalls(scored(played), [RIGHT], data(**gate))}


# -- the watch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("replayed", [(), ("good", "better")])
def test_a_gate_that_refuses_everything_is_the_first_cause(replayed):
    refused = {**dict.fromkeys(range(12), "malformed"), **dict.fromkeys(range(12, 16), "repeated")}
    texts = [f"query {i}" for i in range(16)]
    anyway = None if replayed else 0
    found = causes(gated(texts, refused, replayed=replayed, played_anyway=anyway))
    [(cause, stall)] = found.items()
    assert cause == "queries refused"
    assert stall.fact == "every query was refused by the gate (12 malformed, 4 repeated)"
    assert stall.remedy.startswith("for the form that the verifier reads, give examples (data.")
    assert "data.gate" in stall.remedy


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("repeated", "raise near or lower memory of Novel (data.gate.checks)"),
        ("judged_low", "lower least of Judged (data.gate.checks)"),
        ("out_of_form", "pattern of Matches (data.gate.checks)"),
        ("long", "or what refuses them as 'long' (data.gate.checks)"),
        ("invalid", "replies with the query alone (data.gate lets no invalid query through)"),
    ],
)
def test_the_main_reason_decides_what_helps(reason, words):
    played = gated(["a", "b", "c"], {0: reason, 1: reason, 2: "odd"}, played_anyway=2)
    assert causes(played)["queries refused"].remedy.endswith(words)


@pytest.mark.parametrize("reason", ["malformed", "repeated", "long"])
def test_queries_of_the_pool_that_are_shown_may_be_the_cause(reason):
    played = gated(["a", "b"], {0: reason, 1: reason}, played_anyway=0)
    pool = Pool()
    data = SelfPlayDataModule(Challenger(examples_from_pool=True), gate=Gate([Novel()]), pool=pool)
    without = "set data.queries.init_args.examples_from_pool to false, or give a file of examples; "
    for texts in ([], ["a", "b"]):
        pool.load_state_dict({"queries": [{"text": text} for text in texts]})
        [stall] = stalls(scored(played), [RIGHT], data)
        assert stall.remedy.startswith(without) == bool(texts)
        if texts:
            assert "examples (" not in stall.remedy


def test_with_a_file_of_examples_the_pool_alone_is_left_out(tmp_path):
    (tmp_path / "examples.txt").write_text("a\nb\nc\nd\n")
    source = Challenger(examples=str(tmp_path / "examples.txt"), examples_from_pool=True)
    source.pool = Pool()
    source.pool.load_state_dict({"queries": [{"text": "a"}]})
    assert Remedies(SelfPlayDataModule(source, pool=source.pool)).queries_in_form.startswith(
        "set data.queries.init_args.examples_from_pool to false; for the form that the verifier "
        "reads, give more examples (data.queries.init_args.num_examples), an opening"
    )


def test_a_gate_with_another_verifier_than_the_reward_is_named_first():
    played = gated(["a", "b"], {0: "malformed", 1: "malformed"}, played_anyway=0)
    played = replace(scored(played), components={"verifiable": played.rewards_NG})
    rewards = [VerifiableReward(TinyWorldVerifier())]
    words = (
        "WellFormed reads queries by InstructionVerifier, but reward 'verifiable' checks by "
        "TinyWorldVerifier: use one verifier; for the form that the verifier reads, give"
    )
    for verifier in (InstructionVerifier(), TinyWorldVerifier()):
        data = SelfPlayDataModule(Challenger(), gate=Gate([WellFormed(verifier)]))
        differs = isinstance(verifier, InstructionVerifier)
        [stall] = stalls(played, rewards, data)
        assert stall.remedy.startswith(words) == differs
        line = pilot_verdict(played, rewards, data).findings[0]
        assert line.remedy.startswith(words) == differs


def test_a_reward_whose_verifier_reads_no_queries_needs_another_one_in_the_gate():
    class Plain(Verifier):
        def check(self, query, answers, solution):
            return [1.0] * len(answers)

    gate = Gate([WellFormed(InstructionVerifier())])
    remedies = Remedies(SelfPlayDataModule(Challenger(), gate=gate), [VerifiableReward(Plain())])
    assert remedies.queries_in_form.startswith("for the form")


def test_a_gate_that_lets_one_query_through_is_no_cause():
    assert causes(gated(["a", "b"], {1: "repeated"}), solve_rate=[0.1, 0.9]) == {}


@pytest.mark.parametrize(
    ("R", "said", "remedy"),
    [
        ([[0.0] * 4] * 2, "every query was too hard for data.gate", "ask for easier queries"),
        ([[1.0] * 4] * 2, "every query was too easy for data.gate", "ask for harder queries"),
        ([[1.0] * 4, [0.0] * 4], "1 too hard, 1 too easy", "raise data.group_size, or ask for qu"),
    ],
)
def test_rates_outside_of_the_range_are_told_by_their_side(R, said, remedy):
    stall = causes(gated(["a", "b"], {}, rewards=R), solve_rate=[0.1, 0.9])["solve rates"]
    assert said in stall.fact
    assert stall.remedy.startswith(remedy)
    assert "widen" not in stall.remedy  # a wider range would let through what teaches nothing


def test_queries_of_the_pool_do_not_hide_that_all_others_are_too_easy():
    played = gated(["a", "b"], {}, rewards=[[1.0, 1.0]] * 2 + [[1.0, 0.0]], replayed=["good"])
    stall = causes(played, solve_rate=[0.1, 0.9])["solve rates"]
    assert stall.fact.startswith("every query was too easy for data.gate")


def test_a_wider_range_helps_where_answers_differ():
    # 1 of 4 is right: .25, below .4
    played = gated(["a", "b"], {}, rewards=[[1.0, 0.0, 0.0, 0.0]] * 2)
    stall = causes(played, solve_rate=[0.4, 0.9])["solve rates"]
    assert stall.fact.startswith("every query was too hard for data.gate.solve_rate (0.4 to 0.9)")
    assert stall.remedy.endswith("or widen data.gate.solve_rate")
    assert causes(played, solve_rate=[0.25, 0.9]) == {}


def test_the_watch_warns_after_five_rounds():
    watch, played = StallWatch(), scored(gated(["a"], {0: "repeated"}, played_anyway=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SelfPlayWarning)
        for _ in range(PATIENCE - 1):
            watch.observe(played, list(stalls(played, [RIGHT], data())))
    with pytest.warns(SelfPlayWarning, match="5 rounds in a row, every query was refused by the g"):
        watch.observe(played, list(stalls(played, [RIGHT], data())))


def test_well_formed_queries_of_the_pool_do_not_hide_malformed_ones():
    played = scored(gated(["a", "b"], {}, replayed=["good"]))
    played = replace(played, query_info={"r/malformed": (True, True, False)})
    assert [stall.cause for stall in stalls(played, [RIGHT], data())] == ["malformed"]


def test_a_remedy_names_settings_that_exist():
    remedies = Remedies(data(solve_rate=[0.1, 0.9]))
    assert "data.queries.init_args.prompt" in remedies.admitted_queries("repeated")
    assert hasattr(Novel(), "near")
    assert hasattr(Novel(), "memory")


# -- the pilot -------------------------------------------------------------------------------------


def findings(played, **gate):
    return {f.subject: f for f in pilot_verdict(scored(played), [RIGHT], data(**gate)).findings}


def test_the_pilot_counts_refused_queries_by_their_reasons():
    refused = {1: "malformed", 2: "repeated", 3: "repeated"}
    line = findings(gated(["a", "b", "c", "d"], refused))["queries"]
    assert (line.word, line.figure) == ("low", "1 of 4 usable (1 malformed, 2 repeated)")
    assert "raise near or lower memory of Novel" in line.remedy
    line = findings(gated(["a", "b", "c"], {1: "malformed"}))["queries"]
    assert (line.word, line.figure) == ("ok", "2 of 3 well-formed (1 malformed)")


def test_malformed_queries_that_no_gate_refused_are_counted_too():
    played = replace(
        gated(["a", "b", "c"], {2: "malformed"}, replayed=["d"]),
        query_info={"r/malformed": (True, False, False)},
    )
    line = findings(played)["queries"]
    assert line.figure == "1 of 3 well-formed (2 malformed)"


def test_groups_outside_of_the_range_are_counted_apart():
    R = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0] * 4, [1.0, 1.0, 1.0, 0.0]]
    played = gated(list("abc"), {}, replayed=["d"], rewards=R)
    # rates 1/4, 1/2, 0 and 3/4: the first and the last differ, but are outside
    played = replace(played, admitted_N=torch.tensor([False, True, False, False]))
    line = findings(played, solve_rate=[0.4, 0.6])["R"]
    assert line.figure.startswith(
        "differs in 1 of 4 groups (1 all wrong, 2 outside of data.gate.solve_rate)"
    )


def test_a_group_whose_query_was_refused_is_counted_as_refused():
    played = gated(["a", "b"], {0: "repeated", 1: "repeated"}, played_anyway=0)
    lines = findings(played)
    assert lines["queries"].figure.startswith("0 of 2 usable (2 repeated)")
    assert lines["R"].figure.startswith("differs in 0 of 1 groups (1 refused)")
    assert lines["R"].remedy == "this follows from the queries"


# -- transcripts and examples ----------------------------------------------------------------------

GATED = gated(
    ["a", "b", "c", "b"],
    {1: "repeated", 2: "invalid", 3: "repeated"},
    valid=[True, True, False, True],
    replayed=["d"],
)


def test_a_refused_query_has_one_row_with_its_reason():
    found = [*rows(GATED), *refused_rows(GATED)]
    assert [(row["query"], row["answer"], row.get("refused")) for row in found] == [
        ("a", "a", None),
        ("a", "b", None),
        ("d", "a", None),
        ("d", "b", None),
        ("b", None, "repeated"),
        ("c", None, "invalid"),
        ("b", None, "repeated"),
    ]
    assert [row["valid"] for row in found[4:]] == [True, False, True]
    assert [row["replayed"] for row in found] == [False] * 2 + [True] * 2 + [False] * 3
    assert [row["admitted"] for row in found] == [True] * 4 + [False] * 3
    assert {row["number"] for row in found[4:]} == {None}


def test_a_refused_query_that_is_played_has_its_answers_and_its_reason():
    played = gated(["a", "b"], {0: "repeated", 1: "malformed"}, played_anyway=1)
    found = [*rows(played), *refused_rows(played)]
    assert [(row["query"], row["answer"], row["refused"]) for row in found] == [
        ("b", "a", "malformed"),
        ("b", "b", "malformed"),
        ("a", None, "repeated"),
    ]
    assert next(example_lines(played, 80)).strip() == "query (refused)  b"


def test_rows_of_refused_queries_come_back_from_an_open_and_from_a_closed_shard(tmp_path):
    lines = [*rows(GATED), *refused_rows(GATED)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "open.jsonl").write_text(text)
    opened = read_transcripts(tmp_path, pytest.fail)
    close_shard(tmp_path)
    closed = read_transcripts(tmp_path, pytest.fail)
    for found in (opened, closed):
        assert [row["answer"] for row in found] == ["a", "b", "a", "b", None, None, None]
        assert [len(group) for group in by_query(found)] == [2, 2, 1, 1, 1]
    [path] = tmp_path.glob("*.parquet")
    assert pq.read_table(path)["refused"].to_pylist()[4:] == ["repeated", "invalid", "repeated"]


def test_two_equal_refused_queries_in_a_row_are_two():
    played = gated(["a", "b", "b"], {1: "repeated", 2: "repeated"})
    groups = by_query([*rows(played), *refused_rows(played)])
    assert [[row["query"] for row in group] for group in groups] == [["a"] * 2, ["b"], ["b"]]


def test_without_a_gate_nothing_is_added():
    plain = replace(gated(["a", "b"], {}), admitted_N=None)
    assert not list(refused_rows(plain))
    for row in rows(plain):
        assert not {"refused", "admitted", "replayed"} & row.keys()
