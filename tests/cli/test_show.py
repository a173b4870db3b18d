"""``lsp-lightning show``: what was said in a run, harmless, in columns, and quickly."""

import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsp_lightning.cli.main import main
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.breadth import common_kinds
from lsp_lightning.text.terminal import columns

pytestmark = pytest.mark.usefixtures("untouched_process")

SCORES = {0: [1.0, 0.0], 1: [None, 1.0], 2: [0.0, 0.0]}


def row(round_, query, answer, reward, quality=0.5, **more):
    return {
        "round": round_, "query": query, "valid": True, "query/v/malformed": False,
        "answer": answer, "reward/v": reward, "R": reward, "Q": quality, **more,
    }  # fmt: skip


def write(folder, name, rows):
    (folder / "transcripts").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "transcripts" / name)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Rounds 0 and 1 in Parquet files, round 2 still open."""
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "config.yaml").touch()
    for t in (0, 1):
        rows = [row(t, f"query {t}", f"answer {t} {j}", r, j / 4) for j, r in enumerate(SCORES[t])]
        write(tmp_path, f"rounds-{t:06d}.parquet", rows)
    lines = [row(2, "query 2", f"answer 2 {j}", r) for j, r in enumerate(SCORES[2])]
    open_shard = tmp_path / "transcripts" / "open.jsonl"
    open_shard.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"round": 2, "qu')
    return tmp_path


def shown(capfd, *args):
    assert main(["show", *map(str, args)]) == 0
    captured = capfd.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_queries_stand_above_their_answers(run, capfd):
    lines, complaints = shown(capfd, run)
    assert complaints == []
    assert lines == [
        "round       R       Q  verdict    query, answers",
        "    0                  query 0",
        "         1.00    0.00  right      answer 0 0",
        "         0.00    0.25  wrong      answer 0 1",
        "    1                  query 1",
        "            -    0.00  unjudged   answer 1 0",
        "         1.00    0.25  right      answer 1 1",
        "    2                  query 2",
        "         0.00    0.50  wrong      answer 2 0",
        "         0.00    0.50  wrong      answer 2 1",
    ]


@pytest.mark.parametrize(("typed", "round_"), [(0, 0), (2, 2), (-1, 2), (-3, 0)])
def test_one_round(run, capfd, typed, round_):
    lines, _ = shown(capfd, run, "--round", typed)
    assert [line.split()[-2:] for line in lines[2:]] == [[str(round_), "0"], [str(round_), "1"]]


def test_the_highest_scores_come_first_and_the_unjudged_last(run, capfd):
    by_reward, _ = shown(capfd, run, "--sort", "reward")
    scores = [line.split()[0] for line in by_reward[1:] if "answer" in line]
    assert scores == ["1.00", "1.00", "0.00", "0.00", "0.00", "-"]
    by_quality, _ = shown(capfd, run, "--sort=quality", "--limit", 2)
    assert [line.split()[-2:] for line in by_quality if "answer " in line] == [
        ["2", "0"],
        ["2", "1"],
    ]
    assert by_quality[-1] == "2 of 6 answers; --limit 0 shows all"


def test_what_cannot_be_read_is_one_line_and_the_rest_is_shown(run, capfd):
    transcripts = run / "transcripts"
    (transcripts / "rounds-000000.parquet").write_bytes(b"PAR1 no")
    (transcripts / "rounds-000007.parquet").touch()
    write(run, "rounds-000008.parquet", [{"round": 8}])
    with (transcripts / "open.jsonl").open("a") as file:
        file.write("\n[]\n" + "[" * 200_000 + "\n")
    lines, complaints = shown(capfd, run)
    assert [line.split()[0] for line in lines if "query" in line[20:]] == ["round", "1", "2"]
    assert [line.split(":")[0] for line in complaints] == [
        "skipped rounds-000000.parquet",
        "skipped rounds-000007.parquet",
        "skipped rounds-000008.parquet",
        "skipped 3 damaged lines of open.jsonl",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_hostile_text_is_harmless_and_fits(tmp_path, monkeypatch, capfd, width):
    monkeypatch.setenv("COLUMNS", str(width))
    bad = "\x1b[2J\u202e\u200b\r\n" + "\u4e2d" * 200 + "word " * 200
    (tmp_path / "config.yaml").touch()
    write(tmp_path, "rounds-000000.parquet", [row(0, bad, bad, 1.0, valid=False)])
    lines, _ = shown(capfd, tmp_path)
    assert len(lines) == (9 if width == 40 else 7)  # three of the query, three of the answer
    assert all(columns(line) < width for line in lines)
    assert all(line.isprintable() for line in lines)
    assert lines[1].startswith("    0  invalid")


def test_a_reward_that_is_no_verdict_gives_none(tmp_path, capfd):
    (tmp_path / "config.yaml").touch()
    rows = [row(0, "q", "a", 0.5), row(0, "q", "b", 1.0), row(0, "q", "c", None)]
    write(tmp_path, "rounds-000000.parquet", rows)
    lines, _ = shown(capfd, tmp_path)
    assert [line[23:32].strip() for line in lines[2:]] == ["", "", "unjudged"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: show: the following arguments are required: run; write lsp-lightning show"),
        (["RUN", "--rund", "1"], "error: show: unrecognized arguments: --rund 1; write"),
        (["RUN", "--round", "x"], "error: show: argument --round: invalid int value: 'x'; write"),
        (["RUN", "--sort", "best"], "error: show: argument --sort: invalid choice: 'best'"),
        (["RUN", "--limit", "-1"], "error: show --limit: is -1; set 0 (all) or more"),
        (["RUN", "--round", "3"], "error: show --round: there is no round 3 in the transcripts; "),
        (["RUN", "--round", "-4"], "error: show --round: there is no round -4 in the transcripts"),
        (["nowhere"], "error: run: no folder 'nowhere'; give the folder of a run"),
        (["EMPTY"], "error: run: "),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path_factory, capfd, args, said):
    folders = {"RUN": str(run), "EMPTY": str(tmp_path_factory.mktemp("empty"))}
    assert main(["show", *(folders.get(arg, arg) for arg in args)]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(said)


def test_a_run_without_a_round_says_so(tmp_path, capfd):
    (tmp_path / "config.yaml").touch()
    assert main(["show", str(tmp_path)]) == 2
    assert "no transcripts in" in capfd.readouterr().err


def test_a_reader_that_leaves_is_no_error_and_nothing_heavy_is_loaded(run):
    rows = [row(3, f"query {i}", "word " * 40, 1.0) for i in range(3000)]
    write(run, "rounds-000003.parquet", rows)
    code = (
        "import sys; from lsp_lightning.cli.main import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "show", str(run), "--limit", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"round")
        process.stdout.close()
        assert process.stderr.read().strip() == b"[]"


def test_the_reader_gives_plain_rows(run):
    rows = RunFolder(run).transcripts()
    assert [r["round"] for r in rows] == [0, 0, 1, 1, 2, 2]
    assert [r["R"] for r in rows] == [1.0, 0.0, None, 1.0, 0.0, 0.0]


def hostile(folder, name, content):
    """A run whose transcripts hold one file, which no run writes."""
    (folder / "config.yaml").touch()
    (folder / "transcripts").mkdir()
    path = folder / "transcripts" / name
    if content is None:
        os.mkfifo(path)
    elif isinstance(content, str):
        path.write_text(content + "\n")
    else:
        pq.write_table(content, path)


ROUND = pa.table({"round": ["\x1b[2J"], "query": ["q"], "answer": ["a"]})
ROUNDS = pa.Table.from_pylist([row(1, "q", "a", 1.0), row(None, "q", "a", 1.0)])
HOSTILE = {
    "a round that is text": ("rounds-0.parquet", ROUND),
    "no round": ("rounds-0.parquet", ROUNDS),
    "too many rows": ("rounds-0.parquet", pa.table({"round": pa.repeat(0, 1_000_001)})),
    "a pipe": ("rounds-0.parquet", None),
    "an open pipe": ("open.jsonl", None),
    "a name with an escape": ("rounds-\x1b[2J.parquet", "no table"),
    "nested": ("open.jsonl", '{"round":0,"query":"q","answer":' + "[" * 10**5 + "]" * 10**5 + "}"),
    "a large number": ("open.jsonl", json.dumps(row(0, "q", "a", 10**400))),
    "a negative round": ("open.jsonl", json.dumps(row(-1, "q", "a", 1.0))),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_no_run_writes_is_skipped(case, tmp_path, capfd):
    hostile(tmp_path, *HOSTILE[case])
    assert main(["show", str(tmp_path)]) == 2
    shown = capfd.readouterr().err
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert lines[-1].startswith("error: run: no transcripts in ")
    assert all(line.startswith("skipped ") for line in lines[:-1])


def test_scores_of_any_type_and_megabytes_of_escapes_are_shown(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "80")
    odd = row(0, "q", "\x1b" * 10**6, ["x"], {"x": 1})
    hostile(tmp_path, "open.jsonl", json.dumps(odd))
    start = time.perf_counter()
    lines, _ = shown(capfd, tmp_path, "--sort", "reward")
    assert time.perf_counter() - start < 1
    assert lines[2].startswith("            -       -  unjudged   \\x1b\\x1b")
    assert lines[-1].endswith("...")


def test_two_rounds_stand_side_by_side(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "48")
    (tmp_path / "config.yaml").touch()
    first = [row(0, "Write.\n- no commas", f"answer {j}", r) for j, r in enumerate((1.0, 0.0))]
    first += [row(0, "Why?", "Because.", None)] * 2
    last = [row(7, "\u6c34 or \x1b[2J fire, which of them", "long " * 40, 1.0)]
    write(tmp_path, "rounds-000000.parquet", [*first, row(3, "between", "x", 1.0), *last])
    lines, _ = shown(capfd, tmp_path, "--compare", 2)
    assert lines == [
        "round 1                  round 8",
        "",
        "Write.                   \u6c34 or \\x1b[2J fire,",
        "- no commas              which of them",
        "  mean R 0.50, an          mean R 1.00, an",
        "  answer:                  answer:",
        "  answer 0                 long long long long",
        *["                           long long long long"] * 4,
        "                           long long long lo...",
        "",
        "Why?",
        "  mean R -, an answer:",
        "  Because.",
    ]
    lines, _ = shown(capfd, tmp_path, "--compare", 1)
    assert not any("Why?" in line for line in lines)


def test_a_query_that_was_written_twice_in_a_row_stands_twice(tmp_path, capfd):
    scores = [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]
    rows = [
        {**row(0, "Why?", "So.", R), "number": number}
        for number, pair in enumerate(scores)
        for R in pair
    ]
    write(tmp_path, "rounds-000000.parquet", rows)
    lines, _ = shown(capfd, tmp_path, "--compare", 3)
    assert lines[0] == "round 1"
    means = [line.split()[2] for line in lines if "mean R" in line]
    assert means == ["0.50,", "1.00,", "0.00,"]


@pytest.mark.parametrize(
    ("marks", "label"),
    [
        ({"query/v/malformed": True}, "malformed, mean R 0.00, an answer:"),
        ({"valid": False}, "invalid, mean R 0.00, an answer:"),
        ({"valid": False, "query/v/malformed": True}, "invalid, mean R 0.00, an answer:"),
    ],
)
def test_a_comparison_says_which_queries_are_not_well_formed(tmp_path, capfd, marks, label):
    (tmp_path / "config.yaml").touch()
    write(tmp_path, "rounds-000000.parquet", [row(0, "Why?", "So.", 0.0, **marks)])
    lines, _ = shown(capfd, tmp_path, "--compare", 1)
    assert lines == ["round 1", "", "Why?", f"  {label}", "  So."]


@pytest.mark.parametrize("flags", [("--round", "0"), ("--sort", "reward"), ("--limit", "3")])
def test_a_comparison_takes_no_choice_of_rounds_or_answers(run, capfd, flags):
    assert main(["show", str(run), "--compare", "3", *flags]) == 2
    told = capfd.readouterr().err
    assert told.startswith("error: show --compare: cannot be combined with --round, --sort or ")


@pytest.mark.parametrize("width", [1, 20, 47, 200])
def test_what_stands_side_by_side_fits_the_terminal(run, capfd, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    write(run, "rounds-000000.parquet", [row(0, "\u6c34" * 90, "\u0301" * 9 + "a" * 900, 1.0)])
    lines, _ = shown(capfd, run, "--compare", 3)
    assert max(map(columns, lines)) <= max(width - 1, 19)  # two columns of 8 and a gap


def test_a_comparison_of_no_queries_is_refused(run, capfd):
    assert main(["show", str(run), "--compare", "0"]) == 2
    assert capfd.readouterr().err == "error: show --compare: is 0; set 1 or more\n"


# -- refused queries, and how varied queries are ---------------------------------------------------


def refused(round_, query, reason):
    return {"round": round_, "number": None, "query": query, "valid": True, "admitted": False,
            "refused": reason, "answer": None}  # fmt: skip


@pytest.fixture
def gated_run(tmp_path, monkeypatch):
    """Rounds 0 to 2, each with two queries, a refused one, and from round 1 a replayed one."""
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "config.yaml").touch()
    for t in range(3):
        more = {"admitted": True, "replayed": False}
        rows = [
            row(t, f"ask {t} {i}", f"answer {j}", float(j), number=i, **more,
                **{"query/v/family": "ask", "query/v/parts": ["a", f"{i}"]})
            for i in range(2)
            for j in range(2)
        ]  # fmt: skip
        rows += [row(t, "ask 0 0", "again", 1.0, number=2, admitted=True, replayed=True)] * (t > 0)
        rows.append(refused(t, "ask 0 0", "repeated"))
        if t < 2:
            names = {name: None for found in rows for name in found}
            write(tmp_path, f"rounds-{t:06d}.parquet", [{**names, **found} for found in rows])
        else:
            lines = "".join(json.dumps(found) + "\n" for found in rows)
            (tmp_path / "transcripts" / "open.jsonl").write_text(lines)
    return tmp_path


def test_a_refused_query_stands_with_its_reason_and_without_answers(gated_run, capfd):
    lines, complaints = shown(capfd, gated_run, "--round", 0)
    assert complaints == []
    assert lines == [
        "round       R       Q  verdict    query, answers",
        "    0                  ask 0 0",
        "         0.00    0.50  wrong      answer 0",
        "         1.00    0.50  right      answer 1",
        "    0                  ask 0 1",
        "         0.00    0.50  wrong      answer 0",
        "         1.00    0.50  right      answer 1",
        "    0  refused (repeated)  ask 0 0",
    ]
    lines, _ = shown(capfd, gated_run, "--sort", "reward", "--limit", 3)
    assert lines[-1] == "3 of 17 answers and refused queries; --limit 0 shows all"
    assert sum("refused" in line for line in shown(capfd, gated_run, "--limit", 0)[0]) == 3


def test_what_was_replayed_and_what_was_out_of_range_is_marked(tmp_path, capfd):
    (tmp_path / "config.yaml").touch()
    new, old = {"replayed": False}, {"replayed": True}
    rows = [
        row(0, "new", "a", 1.0, admitted=True, **new),
        row(0, "easy", "a", 1.0, admitted=False, **new),
        row(0, "old", "a", 1.0, admitted=True, **old),
        row(0, "old, easy", "a", 1.0, admitted=False, **old),
    ]
    write(tmp_path, "rounds-000000.parquet", rows)
    lines, _ = shown(capfd, tmp_path)
    assert lines[1::2] == [
        "    0                  new",
        "    0  not admitted    easy",
        "    0  replayed        old",
        "    0  replayed, not admitted  old, easy",
    ]


def test_a_passage_stands_once_above_the_queries_about_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "60")
    (tmp_path / "config.yaml").touch()
    long = "Sugar is\x1b sweet.\nSalt is not. " + "And so on. " * 20
    about = [("a", long), ("b", long), ("c", "Short."), ("d", None)]
    rows = [row(0, q, "x", 1.0, passage=p) for q, p in about for _ in range(2)]
    rows.append({**dict.fromkeys(rows[0]), **refused(0, "e", "repeated")})
    rows.append(row(1, "f", "x", 1.0, passage="Short."))
    write(tmp_path, "rounds-000000.parquet", [{**dict.fromkeys(rows[8]), **r} for r in rows])
    lines, _ = shown(capfd, tmp_path)
    assert [line for line in lines[1:] if not line.endswith("x")] == [
        "    0  passage         Sugar is\\x1b sweet.\u23ceSalt is not....",
        "    0                  a",
        "    0                  b",
        "    0  passage         Short.",
        "    0                  c",
        "    0                  d",
        "    0  refused (repeated)  e",
        "    1  passage         Short.",
        "    1                  f",
    ]


def test_the_reason_of_a_stranger_is_harmless(tmp_path, monkeypatch, capfd):
    (tmp_path / "config.yaml").touch()
    bad = [refused(0, "q", "\x1b[2J\u202e" + "long " * 99), row(0, "q", "a", 1.0)]
    write(tmp_path, "rounds-000000.parquet", [{**dict.fromkeys(bad[1]), **line} for line in bad])
    for width in (40, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        lines, _ = shown(capfd, tmp_path)
        assert all(columns(line) < width and line.isprintable() for line in lines)


def test_a_comparison_leaves_out_refused_queries(gated_run, capfd):
    lines, _ = shown(capfd, gated_run, "--compare", 9)
    assert lines[0].split() == ["round", "1", "round", "3"]
    queries = [line.split() for line in lines if "ask" in line]
    assert queries == [["ask", *"00", "ask", *"20"], ["ask", *"01", "ask", *"21"], ["ask", *"00"]]


def test_breadth_is_a_table_of_the_written_queries(gated_run, capfd):
    lines, complaints = shown(capfd, gated_run, "--breadth")
    assert complaints == []
    # round 0 wrote "ask 0 0", "ask 0 1" and "ask 0 0" again: the word pairs ask-0, 0-0 and 0-1, of
    # six; twice 1 - 2 / 14, once 1. Round 1 wrote "ask 1 0", "ask 1 1" and "ask 0 0": five of six;
    # twice 1 - 2 / 14, once 1 - 4 / 14
    assert lines[:4] == [
        "rounds  queries  passed  distinct  distinct_2  alike  family  parts",
        "0             3    0.67      0.67        0.50   0.90       1      3",
        "1             3    0.67      1.00        0.83   0.81       1      3",
        "2             3    0.67      1.00        0.83   0.81       1      3",
    ]
    told = " ".join(lines[4:])
    assert "passed: share that the gate let through" in told
    assert (
        "family, parts: number of kinds that make up more than 5 % of the answered, well-formed "
        "queries"
    ) in told
    assert told.startswith("rounds: counted from 0, as for show --round; queries: ")
    assert "alike: mean similarity of two queries, of as many queries in each row" in told


@pytest.mark.parametrize("width", [1, 12, 40, 60, 80, 200])
def test_the_table_of_breadth_fits_the_terminal(gated_run, capfd, monkeypatch, width):
    name = "query/v/\x1b[2J" + "\u6c34" * 30
    monkeypatch.setenv("COLUMNS", str(width))
    more = {name: "x", "query/w/family": "y"}
    write(gated_run, "rounds-000009.parquet", [row(9, "\x1b q", "a", 1.0, **more)])
    lines, _ = shown(capfd, gated_run, "--breadth")
    assert all(columns(line) <= max(width - 1, 3) and line.isprintable() for line in lines)
    if width > 30:
        assert {"alike", "v/family", "w/family"} <= set(" ".join(lines).split())


def test_a_run_without_a_gate_or_of_an_older_version_has_a_table_too(run, capfd):
    lines, _ = shown(capfd, run, "--breadth")
    assert lines[0] == "rounds  queries  distinct  distinct_2  alike"
    # one query in each of three rounds
    assert [line.split() for line in lines[1:4]] == [
        [f"{t}", "1", "1.00", "1.00", "-"] for t in range(3)
    ]
    # the queries may come from a file as well
    told = " ".join(lines[4:])
    assert "; queries: all queries of these rounds, without those from earlier ones; " in told
    assert "Challenger" not in told


def test_a_long_run_is_told_in_ten_stretches(tmp_path, capfd):
    rows = [row(t, f"query {t % 4}", "a", 1.0, number=0) for t in range(25)]
    write(tmp_path, "rounds-000000.parquet", rows)
    lines, _ = shown(capfd, tmp_path, "--breadth")
    assert [line.split()[0] for line in lines[1:11]] == [
        *("0-1", "2-4", "5-6", "7-9", "10-11", "12-14", "15-16", "17-19", "20-21", "22-24")
    ]
    assert sum(int(line.split()[1]) for line in lines[1:11]) == 25


@pytest.mark.parametrize(
    "flags", [("--round", "0"), ("--sort", "reward"), ("--limit", "3"), ("--compare", "2")]
)
def test_breadth_takes_no_other_flag(run, capfd, flags):
    assert main(["show", str(run), "--breadth", *flags]) == 2
    assert capfd.readouterr().err == (
        "error: show --breadth: cannot be combined with --round, --sort, --limit or --compare; "
        "leave them out\n"
    )


def test_a_kind_counts_above_one_in_twenty_of_the_well_formed(tmp_path):
    # 40 well-formed queries: a 37 times, b 3 times (7.5 %), c twice beside a (5 %, not above)
    families = [["a", "c"]] * 2 + [["a"]] * 35 + [["b"]] * 3
    rows = [{"query/v/family": found, "query/v/malformed": False} for found in families]
    rows += [{"query/v/family": ["d"], "query/v/malformed": True}] * 9
    rows += [{"query/v/family": ["e"], "valid": False}] * 9
    assert common_kinds(rows, "query/v/family") == 2
    assert common_kinds(rows[:40], "query/v/level") == 0
    assert common_kinds(rows[40:], "query/v/family") is None


def test_where_no_query_was_answered_the_number_of_kinds_is_unknown(tmp_path, capfd):
    (tmp_path / "config.yaml").touch()
    rows = [row(0, "q", "a", 1.0, number=0, **{"query/v/family": "ask"})]
    rows.append({**dict.fromkeys(rows[0]), **refused(1, "q", "malformed")})
    write(tmp_path, "rounds-000000.parquet", [{**dict.fromkeys(rows[1]), **r} for r in rows])
    lines, _ = shown(capfd, tmp_path, "--breadth")
    assert [line.split()[-1] for line in lines[:3]] == ["family", "1", "-"]
