"""Files of queries: formats, keys, and rows that cannot be used."""

import csv
import datetime
import io
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsp_lightning import ConfigError, PromptFile, SelfPlayDataModule
from lsp_lightning.game import query_files
from lsp_lightning.game.known_queries import Query, counted, read_queries

ROWS = [
    {"question": "How many?", "answer": "72", "level": 1},
    {"question": 'a "quoted", two\nline text; ü', "answer": "1,000", "level": 2},
    {"question": "no answer", "answer": None, "level": 3},
]
EXPECTED = [("How many?", "72"), ('a "quoted", two\nline text; ü', "1,000"), ("no answer", None)]


def table(separator):
    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def lines(*rows):
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def read(tmp_path, content, name="q.jsonl"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_queries(str(path), "data.heldout")


def texts(queries):
    return [(query.text, query.solution) for query in queries]


def refusal(tmp_path, content, name="q.jsonl"):
    """The error of a file, without the path."""
    with pytest.raises(ConfigError) as error:
        read(tmp_path, content, name)
    message = str(error.value)
    assert message.startswith("data.heldout: ")
    assert len(message) < 500
    assert message.isprintable()
    return message.replace(repr(str(tmp_path / name)), "FILE").removeprefix("data.heldout: ")


# -- formats ---------------------------------------------------------------------------------------

BOM = b"\xef\xbb\xbf"
FORMATS = {
    "lines.jsonl": lines(*ROWS),
    "windows.jsonl": lines(*ROWS).replace("\n", "\r\n"),
    "marked.jsonl": BOM + lines(*ROWS).encode(),
    "lines.json": lines(*ROWS),
    "lines.ndjson": lines(*ROWS),
    "lines": lines(*ROWS),
    "lines.txt": lines(*ROWS),
    "array.json": json.dumps(ROWS),
    "pretty.json": json.dumps(ROWS, indent=2),
    "marked.json": BOM + json.dumps(ROWS).encode(),
    "array.jsonl": json.dumps(ROWS),
    "object.json": json.dumps({"data": ROWS}),
    "described.json": json.dumps({"version": 1, "data": ROWS}, indent=1),
    "table.csv": table(","),
    "excel.csv": BOM + table(";").replace(b"\r\n", b"\n"),
    "table.tsv": table("\t"),
    "tabs.csv": table("\t"),
    "table.parquet": parquet(),
    "misnamed.jsonl": parquet(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_queries(tmp_path, name):
    queries = read(tmp_path, FORMATS[name], name)
    assert texts(queries) == EXPECTED
    assert queries.ignored == ("level",)


def test_a_text_file_has_a_query_in_each_line(tmp_path):
    queries = read(tmp_path, "[INST] one\n\ntwo\r\n", "q.txt")
    assert texts(queries) == [("[INST] one", None), ("two", None)]


def test_a_table_or_an_array_in_a_text_file_is_no_query(tmp_path):
    assert texts(read(tmp_path, "question,answer\na,1\n", "q.txt")) == [("a", "1")]
    assert texts(read(tmp_path, '[{"query": "a"}]', "q.txt")) == [("a", None)]
    assert texts(read(tmp_path, "Is 1, 2\nor 3, 4?", "q.txt"))[0] == ("Is 1, 2", None)


def test_empty_lines_and_columns_without_a_name_are_no_part_of_a_table(tmp_path):
    queries = read(tmp_path, "\n\n,question,answer\n0,a,1\n", "q.csv")
    assert texts(queries) == [("a", "1")]
    assert queries.ignored == ()


@pytest.mark.parametrize("name", ["messages", "text"])
def test_one_line_whose_row_holds_a_list_names_its_keys(tmp_path, name):
    row = {name: [{"role": "user", "content": "hi"}], "test_list": ["assert f(1)"]}
    message = refusal(tmp_path, lines(row))
    assert message.startswith(f"line 1 of FILE has no 'query' text (its keys are '{name}', 'test_l")


def test_blank_lines_are_skipped_and_counted(tmp_path):
    rows = ['{"query": "a"}', '{"query": "b"}']
    assert texts(read(tmp_path, f"\n{rows[0]}\n\n  \n{rows[1]}\n\n")) == [("a", None), ("b", None)]
    message = refusal(tmp_path, lines(rows[0], "", {"q": 1}))
    assert message.startswith("line 3 of FILE has no 'query'")


def test_cells_that_say_that_there_is_no_value_are_no_solutions(tmp_path):
    found = read(tmp_path, "query,answer\na,NaN\nb,N/A\nc, None\nnull,null\nd,0\n", "q.csv")
    assert texts(found) == [("a", None), ("b", None), ("c", None), ("null", None), ("d", "0")]


@pytest.mark.parametrize(
    ("value", "type_", "word"),
    [
        (datetime.date(2024, 1, 2), None, "a date"),
        (datetime.datetime(2024, 1, 2), None, "a datetime"),
        (datetime.timedelta(1), None, "a timedelta"),
        (b"4", None, "bytes"),
        ([("k", "v")], pa.map_(pa.string(), pa.string()), "a map"),
        ({"v": datetime.date(2024, 1, 2)}, None, "a date"),
    ],
)
def test_values_of_parquet_that_json_does_not_have_are_no_solutions(tmp_path, value, type_, word):
    sink = io.BytesIO()
    pq.write_table(pa.table({"query": ["a"], "answer": pa.array([value], type_)}), sink)
    problem = f"row 1 of FILE has {word} as 'answer'; write the solution as text or a number"
    assert refusal(tmp_path, sink.getvalue(), "q.parquet") == problem


def test_numbers_and_tests_keep_their_types(tmp_path):
    tests = [{"call": "f(1)", "value": [1, {"a": None}]}]
    rows = [{"query": "a", "solution": 3}, {"query": "b", "solution": tests}]
    assert texts(read(tmp_path, lines(*rows))) == [("a", 3), ("b", tests)]
    pq.write_table(pa.Table.from_pylist([{"query": "a", "solution": 3}]), tmp_path / "q.parquet")
    assert texts(read_queries(str(tmp_path / "q.parquet"), "key")) == [("a", 3)]


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (b"\x1f\x8b\x08\x00 rest", "q.jsonl.gz", "FILE is gzip; unpack it first"),
        (b"PK\x03\x04 rest", "q.xlsx", "FILE is a zip archive or an Excel sheet; use JSON Lines"),
        (b"ARROW1\0\0", "q.arrow", "FILE is Arrow; use JSON Lines"),
        ('{"query": "a"}'.encode("utf-16"), "q.jsonl", "FILE is UTF-16 text; save it as UTF-8"),
        ('{"query": "a"}'.encode("utf-32"), "q.jsonl", "FILE is UTF-32 text; save it as UTF-8"),
        ('{"query": "ü"}'.encode("utf-16-be"), "q.csv", "FILE is UTF-16 or UTF-32 text; save it"),
        ('{"query": "ü"}'.encode("utf-32-le"), "q.txt", "FILE is UTF-16 or UTF-32 text; save it"),
        (b"query,answer\n1+\x001,2\n", "q.csv", "FILE is not text; use JSON Lines"),
        (b"\x00\x01\x02", "q.bin", "FILE is not text; use JSON Lines"),
        (b"- query: a\n", "q.yaml", "the format of FILE is unknown (its name ends in '.yaml')"),
        (b"a,b\n", "q", "the format of FILE is unknown (its name ends in 'nothing')"),
        (b"query\na\n", "q.parquet", "FILE is not Parquet, despite its name"),
        (b"PAR1 broken PAR1", "q.parquet", "FILE cannot be read as Parquet ("),
        (b"", "q.csv", "FILE contains no queries"),
        (b"query,solution\n", "q.csv", "FILE contains no queries"),
        (b"[]", "q.json", "FILE contains no queries"),
        (b"text,label\na,b\n", "q.csv", "FILE has no column 'query' (its header is 'text, label')"),
        (b"query,query\na,b\n", "q.csv", "FILE has two columns named 'query'; rename one"),
        (b'{"train": [], "test": []}', "q.json", "FILE is an object with 2 lists (train, test)"),
        (b"[{]", "q.json", "FILE is not JSON ("),
        (b'{\n"query" "a"\n}', "q.json", "FILE is not JSON (Expecting ':' delimiter, line 2)"),
        (b'[{"query": "\xff"}]', "q.json", "FILE is not UTF-8 text; save it as UTF-8"),
        (b"query\n\xff\n", "q.csv", "line 2 of FILE is not UTF-8 text; save the file as UTF-8"),
        (b'query\n"a\n', "q.csv", "line 2 of FILE is not CSV (unexpected end of data)"),
        (b"query,answer\na,b,c\n", "q.csv", "line 2 of FILE has 3 cells for 2 columns; quote"),
        (b"query,answer\na\n", "q.csv", "line 2 of FILE has 1 cells for 2 columns; quote"),
        (
            b'["a", "b"]',
            "q.json",
            "entry 1 of FILE is not an object (1 more bad rows: en",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_its_format(
    tmp_path, content, name, problem
):
    assert refusal(tmp_path, content, name).startswith(problem)


def test_a_folder_and_a_name_that_cannot_be_are_one_line(tmp_path):
    for path in (str(tmp_path), "a" * 5000, "\0", "pkg:", "pkg:../x", "pkg:sys/x"):
        with pytest.raises(ConfigError, match=r"^data\.test: ") as error:
            read_queries(path, "data.test")
        assert str(error.value).isprintable()


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["query", "prompt", "question", "problem", "instruction", "input", "Question", "QUERY "]
)
@pytest.mark.parametrize(
    "solution", ["solution", "answer", "reference", "ground_truth", "Ground Truth", "ground-truth"]
)
def test_usual_names_of_query_and_solution_are_understood(tmp_path, name, solution):
    assert texts(read(tmp_path, lines({name: "1+1=", solution: "2"}))) == [("1+1=", "2")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"query": "a", "solution": "1", "answer": "1"}, "1"),
        ({"query": "a", "solution": None, "answer": "1", "reference": " "}, "1"),
        ({"query": "a", "solution": 1, "answer": "1"}, 1),
        # a worked solution beside its final answer, as in MATH
        ({"problem": "a", "solution": "So $x = \\boxed{5}$.", "answer": "5"}, "5"),
        (
            {
                "problem": "a",
                "solution": "We get $\\dfrac12$ here: \\boxed{\\dfrac12}.",
                "answer": "1/2",
            },
            "1/2",
        ),
        ({"Problem": "a", "Solution": "We solve both equations, so t is 204.", "Answer": 204}, 204),
        ({"problem": "a", "solution": "So $\\boxed{33}$.", "answer": "033"}, "033"),
        # names in other data sets
        ({"problem": "a", "generated_solution": "So 5.", "expected_answer": "5"}, "5"),
        ({"input": "a", "target": "5"}, "5"),
        (
            {
                "problem": "a",
                "solution": "We add the numbers and so the result follows, which is five.",
                "final_answer": "5",
            },
            "5",
        ),
        ({"question": "a", "answer": "It is the sum of both.", "expected_answer": 5}, 5),
        # lists of one text, as in OlympiadBench
        ({"question": "a", "solution": ["So the sum is two."], "final_answer": ["2"]}, "2"),
        ({"question": "a", "finalAnswer": "5"}, "5"),
        ({"question": "a", "groundTruth": "5"}, "5"),
        ({"instruction": "a", "input": "", "answer": "1"}, "1"),
        ({"query": "a", "question": "a", "answer": "1"}, "1"),
        # metadata with names that are near the known names, or begin with one
        ({"query": "a", "answer": "1", "answers": ["1"], "answer_type": "int", "id": 3}, "1"),
        ({"query": "a", "query_id": 7, "level": 2, "source": "x", "preference": 1}, None),
    ],
)
def test_a_row_has_one_query_and_one_solution(tmp_path, row, expected):
    assert texts(read(tmp_path, lines(row))) == [("a", expected)]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"query": "a", "solution": "1", "answer": "2"}, "has 'solution' and 'answer' with differ"),
        (
            {"query": "a", "solution": "So it is $\\boxed{5}$.", "answer": "6"},
            "has 'solution' and 'answer' with different",
        ),
        ({"query": "a", "solution": "Answer 5", "target": "6"}, "has 'solution' and 'target' with"),
        ({"query": "a", "final_answer": 5, "answer": "6"}, "has 'final_answer' and 'answer' with"),
        ({"query": "a", "answer": []}, "has [] as 'answer'; write null if the solution is unknown"),
        ({"query": "a", "answer": {}}, "has {} as 'answer'; write null if the solution is unknown"),
        ({"query": "a", "answer": True}, "has true as 'answer'; write the solution as text or a n"),
        ({"instruction": "a", "input": "b"}, "has 'instruction' and 'input', and each could be t"),
        ({"messages": []}, "has no 'query' text (its keys are 'messages'); write the content of"),
        ({"query": "a", "question": "b"}, "has 'query' and 'question', and each could be the que"),
        ({"query": "a", "anwser": "1"}, "has the key 'anwser'; did you mean 'answer'?"),
        ({"query": "a", "awnser": "1"}, "has the key 'awnser'; did you mean 'answer'?"),
        ({"query": "a", "Refrence": "1"}, "has the key 'Refrence'; did you mean 'reference'?"),
        ({"query": "a", "groundtruth": "1"}, "has the key 'groundtruth'; did you mean 'ground_tr"),
        ({"query": "a", "solutions": ["1"]}, "has the key 'solutions'; did you mean 'solution'?"),
        ({"qurey": "a"}, "has no 'query' text, but the key 'qurey'; did you mean 'query'?"),
        ({"text": "a", "label": 1}, "has no 'query' text (its keys are 'text', 'label'); write"),
        ({"prompt": [{"role": "user"}]}, "has no 'query' text: 'prompt' is a list of chat messa"),
        ({"query": None, "answer": "1"}, "has no 'query' text: 'query' is null; write the query "),
        ({"query": "a\0b"}, "contains a NUL character in 'query'; remove it"),
        ({"query": "a\ud800"}, "contains half of a surrogate pair in 'query'; fix the text"),
        ({"query": "a", "answer": ["\ud800"]}, "contains half of a surrogate pair in 'answer'"),
        ({"query": "a", "answer": {"\udfff": 1}}, "contains half of a surrogate pair in 'answer'"),
        ('{"query": "a", "query": "b"}', "has the key 'query' twice; remove one"),
        ('{"query": "a", "answer": NaN}', "has nan as 'answer'; write null if the solution is un"),
        ('{"query": "a", "answer": 1e999}', "has inf as 'answer'; write null if"),
        ('{"query": "a", "answer": ' + "9" * 10_000 + "}", "contains a number with too many digi"),
        (
            '{"query": "a", "answer": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "is nested too deep; write a flat solution",
        ),
        (
            '{"query": "a", "answer": ' + "[" * 300 + "]" * 300 + "}",
            "has a 'answer' nested more than 100 deep; write a flat solution",
        ),
        (
            '{"query": "a", "answer": ' + '{"a":' * 300 + "1" + "}" * 300 + "}",
            "has a 'answer' nested more than 100 deep; write a flat solution",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line_with_its_place_and_a_remedy(tmp_path, row, problem):
    assert refusal(tmp_path, lines({"query": "good"}, row)).startswith(f"line 2 of FILE {problem}")


def test_bad_rows_of_a_large_file_are_counted_and_the_first_are_named(tmp_path):
    rows = [{"query": "a"}] * 1000
    for place in range(100, 900, 100):
        rows[place - 1] = {"text": "a"}
    message = refusal(tmp_path, lines(*rows))
    assert message.startswith("line 100 of FILE has no 'query' text")
    assert "(7 more bad rows: line 200, line 300, line 400, line 500, ...)" in message


@pytest.mark.parametrize(
    ("answer", "solution"),
    [
        ("He has 2 + 2 = <<2+2=4>>4 cats.\n#### 4", "4"),
        ("So it is\n#### 1,234\n", "1,234"),
        ("#### -3.5", "-3.5"),
        ("#### Step 1\nAdd.\n#### Step 2\nIt is 5.", "#### Step 1\nAdd.\n#### Step 2\nIt is 5."),
        ("a #### b", "a #### b"),
    ],
)
def test_the_solution_of_gsm8k_is_the_number_after_the_marks(tmp_path, answer, solution):
    assert texts(read(tmp_path, lines({"question": "q", "answer": answer}))) == [("q", solution)]


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.txt"])
def test_a_line_that_is_too_long_is_not_read_to_its_end(tmp_path, monkeypatch, name):
    monkeypatch.setattr(query_files, "LONGEST_LINE", 2**20)
    start = {"q.csv": b"query\n", "q.txt": b"a\n"}.get(name, b'{"query": "a"}\n')
    message = refusal(tmp_path, start + b'{"query": "' + b"x" * 2**22 + b'"}\n', name)
    assert message.startswith("line 2 of FILE is longer than 1 MiB; write one line for each query")


def test_a_document_that_is_too_large_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(query_files, "LARGEST_JSON", 2**20)
    message = refusal(tmp_path, "[" + '{"query": "a"},' * 10**5 + "{}]", "q.json")
    assert message.startswith("FILE is one JSON document of more than 1 MiB; write JSON Lines")


def test_a_quote_that_is_never_closed_does_not_swallow_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(query_files, "LONGEST_LINE", 1000)
    limit = csv.field_size_limit()
    message = refusal(tmp_path, 'query\n"a\n' + "b\n" * 10_000, "q.csv")
    assert "is not CSV (field larger than field limit (1000)); fix the quotes" in message
    assert csv.field_size_limit() == limit


# -- the Hub ---------------------------------------------------------------------------------------


class Split(list):
    column_names = ("question", "answer", "picture")

    def select_columns(self, names):
        return [{name: row[name] for name in names} for row in self]


@pytest.fixture
def hub(monkeypatch):
    """A Hub that answers with two rows; the calls of load_dataset."""
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return Split({"question": f"q{i}", "answer": f"so\n#### {i}"} for i in range(2))

    config = SimpleNamespace(HF_HUB_OFFLINE=False)
    fake = SimpleNamespace(load_dataset=load_dataset, config=config)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setitem(sys.modules, "datasets.config", config)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    return calls


@pytest.mark.parametrize(
    ("path", "args", "split"),
    [
        ("hf:openai/gsm8k:main:train", ("openai/gsm8k", "main"), "train"),
        ("hf:gsm8k:test", ("gsm8k", None), "test"),
        ("hf:a/b-c.1:d:train[:10%]", ("a/b-c.1", "d"), "train[:10%]"),
    ],
)
def test_a_split_of_the_hub_is_read(hub, path, args, split):
    queries = read_queries(path, "key")
    assert texts(queries) == [("q0", "0"), ("q1", "1")]
    assert queries.ignored == ("picture",)
    assert hub == [(args, {"split": split})]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("hf:openai/gsm8k", "does not name a split of a dataset; write hf:NAME:SPLIT"),
        ("hf:", "does not name a split of a dataset"),
        ("hf:../../x:train:a:b", "does not name a split of a dataset"),
        ("openai/gsm8k", "for a dataset of the Hugging Face Hub write hf:openai/gsm8k:SPLIT"),
        ("gsm8k", "for a dataset of the Hugging Face Hub write hf:gsm8k:SPLIT, such as hf:gsm8k:t"),
        ("datasets/openai/gsm8k", "write hf:openai/gsm8k:SPLIT"),
        ("https://huggingface.co/datasets/openai/gsm8k", "write hf:openai/gsm8k:SPLIT"),
        ("https://host/q.jsonl", "no file 'https://host/q.jsonl'; download it, and give the path"),
        ("file:///q.jsonl", "write the path alone: /q.jsonl"),
        ("data/*.jsonl", "no file 'data/*.jsonl'; give one file"),
        ("openai/gsm8k:main:train", "for a dataset of the Hugging Face Hub write hf:openai/gsm8k"),
    ],
)
def test_a_path_that_is_no_file_is_told_what_to_write(hub, path, problem):
    with pytest.raises(ConfigError) as error:
        read_queries(path, "key")
    assert problem in str(error.value)
    assert hub == []


def test_a_hub_that_cannot_be_reached_is_one_line_and_asked_once(hub, monkeypatch):
    seen = []

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    def load_dataset(*args, **kwargs):
        seen.append(sys.modules["datasets"].config.HF_HUB_OFFLINE)
        raise ConnectionError("Couldn't reach 'a/b'\non the Hub")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    sys.modules["datasets"].load_dataset = load_dataset
    with pytest.raises(ConfigError) as error:
        read_queries("hf:a/b:train", "key")
    assert seen == [True]  # nothing is tried again
    assert not sys.modules["datasets"].config.HF_HUB_OFFLINE
    assert str(error.value) == (
        "key: cannot load 'hf:a/b:train' (ConnectionError: Couldn't reach 'a/b' on the Hub); check "
        "name, config, split and connection, or give a file"
    )


def test_without_the_package_the_remedy_is_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"needs the package datasets; run `pip install datasets`"
    ):
        read_queries("hf:a/b:train", "key")


# -- what is said ----------------------------------------------------------------------------------


def test_a_file_of_queries_alone_is_no_fault():
    assert counted([Query("Write."), Query("Sing.")], "tasks") == "2 tasks without solutions"


def test_each_file_in_use_says_how_many_solutions_it_has(tmp_path, capsys):
    for name in ("train", "dev", "final"):
        (tmp_path / f"{name}.jsonl").write_text(lines(*ROWS))
    data = SelfPlayDataModule(
        PromptFile(str(tmp_path / "train.jsonl")),
        heldout=str(tmp_path / "dev.jsonl"),
        test=str(tmp_path / "final.jsonl"),
    )
    data.announce("fit")
    assert capsys.readouterr().out.splitlines() == [
        "data.queries: 3 queries, solutions: 2 of 3; ignored keys: level",
        "data.heldout: 3 tasks, solutions: 2 of 3; ignored keys: level",
        "data.test: 3 tasks, solutions: 2 of 3; ignored keys: level",
    ]
    for stage, key in (("validate", "heldout"), ("test", "test"), ("predict", "test")):
        data.announce(stage)
        shown = capsys.readouterr()
        assert shown.err == f"data.{key}: 3 tasks, solutions: 2 of 3; ignored keys: level\n"
        assert shown.out == ""  # for the command's JSON


def test_only_the_first_ignored_keys_are_named(tmp_path):
    row = {"query": "a"} | {f"k{i}": i for i in range(20)}
    line = counted(read(tmp_path, lines(row)), "tasks")
    assert line.endswith("; ignored keys: k0, k1, k2, k3, k4, k5, k6, k7, ...")
