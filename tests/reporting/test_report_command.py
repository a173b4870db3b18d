"""``lsp-lightning report``: a page of any run, whole or not, and one line for a mistake."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from report_runs import answers, write_metrics, write_run

from lsp_lightning.cli.main import main
from lsp_lightning.reporting.page import page
from lsp_lightning.reporting.reading import read_runs

pytestmark = pytest.mark.usefixtures("untouched_process")
PLOTLY = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=alert(1)>\u202e\x00\u2028"


class Parsed(HTMLParser):
    """Tags, attributes and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.attributes, self.words = [], set(), set(), []
        self.feed(text.replace(PLOTLY, ""))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids |= {value for name, value in attrs if name == "id"}

    def handle_data(self, data):
        self.words.append(data)


def made(run, *more):
    out = run / "page.html"
    assert main(["report", str(run), *more, "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_is_written_into_the_run_and_its_size_told(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    out = run / "report.html"
    size = out.stat().st_size / 1e6
    assert capsys.readouterr() == (f"{out} ({size:.1f} MB)\n", "")
    assert size < 6
    assert [path.name for path in run.glob("report*")] == ["report.html"]


def test_a_whole_run_has_all_sections_and_an_absent_file_leaves_none(tmp_path):
    run = write_run(tmp_path / "run")
    assert {"settings", "curves", "collapse", "queries"} <= Parsed(made(run)).ids
    assert not {"crossplay", "evaluations", "warnings"} & Parsed(made(run)).ids
    (run / "metrics.csv").unlink()
    assert not {"curves", "collapse"} & Parsed(made(run)).ids
    (run / "transcripts" / "rounds-000000.parquet").unlink()
    ids = Parsed(made(run)).ids
    assert "queries" not in ids
    assert "settings" in ids


def test_results_are_shown(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "evaluations").mkdir()
    table = {"columns": ["subset", "n"], "rows": [["all", 50], ["short", None]]}
    result = {"title": "Win rate", "note": "50 % is even.", "rounds": 60, "table": table}
    (run / "evaluations" / "a.json").write_text(json.dumps(result))
    ratings = {"solver": [{"rating": 0, "low": -1, "high": 1}, None]}
    game = {"players": ["base", "last"], "solve_rate": [[0.5, None], [0.25, 1.0]], "n": 8}
    game |= {"group_size": 2, "ratings": ratings}
    (run / "crossplay.json").write_text(json.dumps(game))
    line = {"round": 12, "symptom": "malformed", "text": "72 % of the queries"}
    (run / "warnings.jsonl").write_text(json.dumps(line) + "\n")
    text = made(run)
    parsed = Parsed(text)
    assert {"crossplay", "evaluations", "warnings"} <= parsed.ids
    words = " ".join(parsed.words)
    for told in ("Win rate", "after 60 rounds", "short", "+0.00 [-1.00, +1.00]", "round 12"):
        assert told in words
    assert data_of(text)["crossplay"][0]["rate"] == [[0.5, None], [0.25, 1.0]]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.csv", b"step,reward\n0,abc\n"),
        ("metrics.csv", b"step,reward\n0," + b"9" * 200_000),
        ("metrics.csv", b"\xff\xfe"),
        ("summary.json", b"[1]"),
        ("summary.json", b'{"heldout_before": 3, "heldout_after": [1], "seconds": "x"}'),
        ("config.yaml", b"a: [b\n"),
        ("config.yaml", b"- 1\n"),
        ("config.yaml", b"model: 3\ndata: [x]\ntrainer: null\n"),
        ("transcripts/rounds-000000.parquet", b"PAR1"),
        ("transcripts/open.jsonl", b"{}\n[[\n"),
        ("crossplay.json", b'{"players": ["a"], "solve_rate": [[1, 2]]}'),
        ("crossplay.json", b'{"players": ["a"], "solve_rate": [[0]], "ratings": {"solver": [7]}}'),
        ("crossplay.json", b"[" * 100_000),
        ("evaluations/a.json", b'{"table": {"columns": ["a"], "rows": [[1, 2]]}}'),
        ("evaluations/a.json", b"null"),
        ("warnings.jsonl", b'{"round": "x"}\n[]\n\xff\n'),
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_note_and_the_rest_is_shown(tmp_path, file, content, capfd):
    run = write_run(tmp_path / "run")
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_bytes(content)
    parsed = Parsed(made(run))
    assert "settings" in parsed.ids
    assert ("curves" in parsed.ids) == (file != "metrics.csv")
    assert str(tmp_path) not in " ".join(parsed.words).replace(str(run), "", 1)
    assert "Traceback" not in capfd.readouterr().err


def test_pipes_in_the_place_of_files_do_not_block(tmp_path):
    run = write_run(tmp_path / "run", rounds=2)
    for name in ("metrics.csv", "config.yaml", "summary.json", "crossplay.json", "warnings.jsonl"):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
    assert "queries" in Parsed(made(run)).ids


def test_a_run_that_plays_or_has_not_begun_is_shown(tmp_path):
    run = write_run(tmp_path / "run", rounds=1, heldout=None)
    assert "the run has not ended" in made(run)
    (run / "transcripts" / "rounds-000000.parquet").unlink()
    (run / "transcripts" / "open.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in answers(0, "an open query")) + '{"rou'
    )
    assert data_of(made(run))["queries"][0]["groups"][0]["q"] == "an open query"
    (run / "metrics.csv").unlink()
    text = made(run)
    assert "no round has ended yet" in text
    assert "nothing to judge yet" in text


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["nowhere"], "run: no folder 'nowhere'"),
        (["."], "run: '.' is not the folder of a run"),
        (["run", "run"], "'run' is given twice"),
        (["run", "--rows", "-1"], "report --rows: is -1"),
        (["run", "--rows", "many"], "invalid int value"),
        (["run", "--out", "nowhere/page.html"], "report --out: no folder 'nowhere'"),
        (["run", "--out", "run"], "report --out: 'run' is a folder"),
        (["run", "--html"], "unrecognized arguments: --html"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, typed, message):
    write_run(tmp_path / "run", rounds=2)
    monkeypatch.chdir(tmp_path)
    assert main(["report", *typed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.skipif(
    os.geteuid() == 0 and not os.path.exists("/dev/full"), reason="needs a full disk"
)
def test_a_page_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", rounds=2)
    (run / "page.html.partial").symlink_to("/dev/full")
    assert main(["report", str(run), "--out", str(run / "page.html")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (run / "page.html").exists()


def test_hostile_texts_are_text_wherever_they_come_from(tmp_path):
    run = write_run(
        tmp_path / "run", rows=answers(0, HOSTILE, [HOSTILE] * 2, **{f"reward/{HOSTILE}": 1.0})
    )
    harmless = Parsed(made(run))
    other = write_run(tmp_path / "<img src=x onerror=alert(1)>", rows=answers(0, "q", ["a"]))
    (other / "config.yaml").write_text(
        "model: " + json.dumps({"base": HOSTILE, "rewards": [{"class_path": HOSTILE}], HOSTILE: 1})
    )
    write_metrics(other, [{"step": 0, "reward": 1, f"reward/{HOSTILE.replace(chr(0), '')}": 1}])
    table = {"columns": [HOSTILE], "rows": [[HOSTILE]]}
    result = {"title": HOSTILE, "note": HOSTILE, "table": table, "settings": {HOSTILE: HOSTILE}}
    (other / "evaluations").mkdir()
    (other / "evaluations" / "a.json").write_text(json.dumps(result))
    game = {"players": [HOSTILE], "solve_rate": [[1]], "note": HOSTILE, "malformed": [0.5]}
    (other / "crossplay.json").write_text(json.dumps(game))
    line = {"round": 1, "symptom": HOSTILE, "text": HOSTILE}
    (other / "warnings.jsonl").write_text(json.dumps(line))
    text = page(read_runs([str(run), str(other)]))
    parsed = Parsed(text)
    assert "img" not in parsed.tags
    assert parsed.tags.count("script") == harmless.tags.count("script") == 4
    assert not {name for name in parsed.attributes if name.startswith("on")}
    assert not set("\u202e\u2028\x00") & set(text.replace(PLOTLY, ""))
    assert "onerror" in text  # it is shown


def test_rows_limits_the_answers_of_all_runs_together(tmp_path):
    runs = [str(write_run(tmp_path / name)) for name in ("a", "b")]
    text = made(tmp_path / "a", runs[1], "--rows", "80")
    assert [found["shown"] for found in data_of(text)["queries"]] == [40, 40]
    assert "a: 40 of 240 answers" in text
    whole = data_of(made(tmp_path / "a", "--rows", "0"))
    assert len(whole["queries"][0]["groups"]) == 60


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [write_run(tmp_path / parent / "run", rounds=2) for parent in ("a", "b")]
    assert [run.name for run in read_runs(list(map(str, runs)))] == ["a/run", "b/run"]


def test_the_page_is_the_same_each_time(tmp_path):
    run = write_run(tmp_path / "run")
    assert made(run, "--rows", "60") == made(run, "--rows", "60")


def test_the_command_imports_nothing_heavy(tmp_path):
    run = write_run(tmp_path / "run", rounds=2)
    code = (
        "import sys; from lsp_lightning.cli.main import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'lightning', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
