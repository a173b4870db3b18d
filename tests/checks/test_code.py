"""Code blocks, tests read from a file, and plain values: results, errors and speed."""

import json
import subprocess
import sys
from math import inf, nan

import pytest
from fast import assert_fast

from lsp_lightning.checks.code import Case, FunctionTests, code_block, read_tests, same_value
from lsp_lightning.sandbox import Program

#: Name of the case, text, its last block (None: the whole text).
BLOCKS = [
    ("no block", " x = 1\n", "x = 1"),
    ("nothing", "", ""),
    ("one", "Here.\n```python\nx = 1\n```\nDone.", "x = 1"),
    ("the last of two", "```\na\n```\n```\nb\n```", "b"),
    ("tildes", "~~~python\nx = 1\n~~~", "x = 1"),
    ("never closed", "```\na\n```\nor\n```\nb\nc", "b\nc"),
    ("an empty one", "```\na\n```\n```\n```", ""),
    ("opened at the very end", "```\na\n```\n```", ""),
    ("tildes in backticks", "```\n~~~\n```", "~~~"),
    ("backticks in tildes", "~~~\n```\na\n```\n~~~", "```\na\n```"),
    ("a longer fence around", "````\n```\na\n```\n````", "```\na\n```"),
    ("closed by a longer fence", "```\na\n`````\nb", "a"),
    ("an info string closes nothing", "```\na\n```python\nb\n```", "a\n```python\nb"),
    ("white space after the fences", "``` python \t\na\n``` \t\nb", "a"),
    ("info string of many words", '```python title="a b"\nx\n```', "x"),
    ("two backticks", "``\na\n``", "``\na\n``"),
    ("inline code on a line", "```f(1)```\nsays 2", "```f(1)```\nsays 2"),
    ("inline code in a block", "```\na\n```f(1)```\nb\n```", "a\n```f(1)```\nb"),
    ("inline code after prose", "Call ```f(1)```", "Call ```f(1)```"),
    ("inline code before a fence", "Call ```f(1)``` so: ```py\nx\n```", "x"),
    ("other inline code before a fence", "Call `f` so: ```py\nx\n```", "x"),
    ("after prose", "Here: ```python\nx = 1\n```\nDone.", "x = 1"),
    ("after prose, without a language", "Here: ```\nx = 1\n```\nDone.", "x = 1"),
    ("a fence mentioned in prose", "End it with ``` on its own line.", None),
    ("a fence in quotes", 'The fence "```" ends it.', None),
    ("tildes after prose", "Here: ~~~", None),
    ("a list item's", "1. Do:\n\n   ```py\n   if x:\n       y\n   ```\n2. Go", "if x:\n    y"),
    ("after a list marker", "- ```py\n  x\n  ```\nb", "x"),
    ("after a wide list marker", "10. ```py\n    x\n    ```\nb", "x"),
    ("after a list marker and prose", "10. So: ```py\n    x\n    ```\nb", "x"),
    ("far in", "        ```py\n        x\n        ```\nb", "x"),
    ("tabs", "\t```py\n\tx\n\t\ty\n\t```\nb", "x\n\ty"),
    ("closed further left", "  ```py\n  x\n```\nb", "x"),
    ("closed a little deeper", "```py\nx\n   ```\nb", "x"),
    ("an example in a docstring", "```\nx\n    ```\n    y\n    ```\n```\nb", None),
    ("blank lines in a margin", "  ```\n  a\n\n    \n  b\n  ```", "a\n\n  \nb"),
    ("blank lines without a margin", "```\na = '''\n  \n'''\n```", "a = '''\n  \n'''"),
    ("mixed margins", "```\n\ta\n  b\n```", "\ta\n  b"),
    ("\\r\\n", "```\r\na\r\nb\r\n```\r\n", "a\nb"),
    ("\\r\\n without a block", "a\r\nb", "a\nb"),
    (
        "what splitlines cuts at",
        "```\na = '\u2028\x0c\x0b\x85\x1c'\n```",
        "a = '\u2028\x0c\x0b\x85\x1c'",
    ),
    ("no fence after U+2028", "a\u2028```\nb\u2028```\n", "b\u2028```\n"),
]
DOCSTRING = "x\n    ```\n    y\n    ```"


@pytest.mark.parametrize(("text", "block"), [row[1:] for row in BLOCKS], ids=[r[0] for r in BLOCKS])
def test_code_block_returns_the_last_block(text, block):
    if block is None:
        block = DOCSTRING if "    y" in text else text
    assert code_block(text) == block


F = "def f(n):\n    return n"


@pytest.mark.parametrize(
    "definition",
    [
        F,
        "import math\n\n" + F,
        "async def f(n):\n    return n",
        "def  f (n): return n",
        "class f:\n    pass",
        "class f(int): pass",
        "f = lambda n: n",
        "f=abs",
        "f: Callable[[int], int] = abs",
        "f = g = abs",
    ],
)
def test_code_block_prefers_the_last_block_that_defines_the_function(definition):
    usage = "Example:\n```python\nprint(f(1))\n```\nOutput:\n```\n1\n```\n"
    text = f"```python\n{definition}\n```\n{usage}"
    assert code_block(text, defines="f") == definition
    assert code_block("```\ndef f():\n    wrong\n```\n" + text, defines="f") == definition
    assert code_block(text) == "1"


@pytest.mark.parametrize(
    "other",
    [
        "def ff(n): pass",
        "def f2(n): pass",
        "deff = 1",
        "f == 1",
        "f(1)",
        "f += 1",
        "x.f = 1",
        "if x:\n    def f(n): pass",
        "    f = 1\nx",
        "# def f(n):",
        "class ff: pass",
        "for f in x: pass",
    ],
)
def test_a_mere_mention_of_the_name_defines_nothing(other):
    text = f"```\n{F}\n```\n```\n{other}\n```"
    assert code_block(text, defines="f") == F
    assert code_block(f"```\n{other}\n```\n```\nlast\n```", defines="f") == "last"


def test_a_definition_may_be_indented_with_its_block_or_cut_off():
    assert code_block("- ```\n  def f(): 1\n  ```\n```\nf()\n```", defines="f") == "def f(): 1"
    assert code_block("```\nf()\n```\n```\ndef f(): 1", defines="f") == "def f(): 1"
    assert code_block("def f(): 1", defines="f") == "def f(): 1"
    assert code_block("```\nx = 1\n```\n```\ny = 1\n```", defines="a.*") == "y = 1"


#: Length of hostile texts: anything quadratic would take many seconds.
M = 200_000


@pytest.mark.parametrize(
    "text",
    [
        "`" * M,
        "~" * M,
        "```\n" * (M // 4),
        "```\n~~~\n" * (M // 8),
        "```\nf\n```\n" * (M // 10),
        "```\n def f\nx\n```\n" * (M // 17),
        "x ```\n```\n" * (M // 10),
        " " * M,
        " " * M + "```",
        "```\n" + " " * M + "x",
        "```\n" + " " * (M // 2) + "x\n" + " " * (M // 2) + "y",
        "```\n" + " \n" * (M // 2),
        "```\n" + "\tx\n" * (M // 3),
        "\n" * M,
        "```a" * (M // 4),
        "``` " * (M // 4),
        "`` ``` " * (M // 7),
        "```" + "a" * M + "`",
        "x ```" + "a" * M + " !",
        "x ```" + " " * M + "!",
        "`" * (M // 2) + "\n" + "`" * (M // 2 - 1),
        "1" * M + ". ```",
        "- " * (M // 2) + "```",
        "```\ndef" + " " * M + "g",
        "```\nf" + " " * M + "g",
        "```\n" + "f:" * (M // 2),
        "```\n" + "f:\n" * (M // 3),
        "\r" * M + "```\n" + "\r\n" * (M // 4),
    ],
    ids=range(28),
)
@pytest.mark.parametrize("defines", [None, "f"])
def test_hostile_texts_are_read_in_linear_time(text, defines):
    assert_fast(lambda: code_block(text, defines), 0.5)


def test_both_forms_of_tests_are_read():
    cases = (Case((-1, (2, (3, "a"))), [1.5, None]), Case(({"k": [True]}, -0.5), -7))
    asserts = [
        "assert f(-1, (2, (3, 'a'))) == [1.5, None]",
        " assert f({'k': [True]}, -0.5) == -7\n",
    ]
    assert read_tests({"tests": asserts}) == FunctionTests("f", cases)
    records = [
        {"args": [-1, (2, (3, "a"))], "output": [1.5, None]},
        {"args": [{"k": [True]}, -0.5], "output": -7},
    ]
    assert read_tests({"function": "f", "tests": records}) == FunctionTests("f", cases)


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (None, "is not of the form"),
        ("assert f(1) == 2", "is not of the form"),
        ({"tests": "assert f(1) == 2"}, "is not of the form"),
        ({"tests": []}, "has no tests"),
        ({"tests": ["assert f(1) == 2", "assert g(1) == 2"]}, "tests several functions"),
        ({"tests": [{"args": [], "output": 1}]}, "does not name the function"),
        ({"function": "f g", "tests": [{"args": [], "output": 1}]}, "does not name the function"),
        ({"function": "def", "tests": [{"args": [], "output": 1}]}, "does not name the function"),
        ({"function": "f", "tests": [{"args": 1, "output": 1}]}, "a test that is not of the form"),
        ({"function": "f", "tests": [{"args": []}]}, "a test that is not of the form"),
        ({"function": "f", "tests": ["assert f(1) == 2", {}]}, "a test that is not of the form"),
    ],
)
def test_solutions_of_another_form_are_refused(solution, message):
    with pytest.raises(ValueError, match=message):
        read_tests(solution)


@pytest.mark.parametrize(
    "test",
    [
        "f(1) == 2",
        "assert f(1)",
        "assert f(1) != 2",
        "assert f(1) == 2 == 2",
        "assert f(1) == 2; x",
        "assert f(n=1) == 2",
        "assert f(*[1]) == 2",
        "assert f(g(1)) == 2",
        "assert a.f(1) == 2",
        "assert f(nan) == 2",
        "assert f({[1]: 2}) == 2",
        "assert f(1) ==",
        "assert f(" + "9" * 10_000 + ") == 1",
        "assert f(" + "(" * 10_000 + ")" * 10_000 + ") == 1",
        "assert f(" + "-" * 10_000 + "1) == 1",
    ],
)
def test_other_asserts_are_refused(test):
    with pytest.raises(ValueError, match="that is not of the form 'assert f"):
        read_tests({"tests": [test]})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{1, 2}", "not None, bool"),
        ("set()", "not None, bool"),
        ("b'a'", "not None, bool"),
        ("1 + 2j", "not None, bool"),
        ("...", "not None, bool"),
        ("{1: 2}", "a dict with a key that is not str"),
        ("{(1, 2): 3}", "a dict with a key that is not str"),
        ("[{None: 2}]", "a dict with a key that is not str"),
        ("1e999", "not finite"),
        ("-1e999", "not finite"),
        ("(1, [{'a': 1e999}])", "not finite"),
        (r"'\ud800'", "lone surrogates"),
        ("0x1" + "0" * 4_000, "bits"),
    ],
)
def test_values_that_are_not_plain_are_refused(value, reason):
    for test in (f"assert f({value}) == 1", f"assert f(1) == {value}"):
        with pytest.raises(ValueError, match="has a test whose values are not plain") as caught:
            read_tests({"tests": ["assert f(0) == 0", test]})
        assert reason in str(caught.value)
        assert str(caught.value).endswith(f"): {test[:60]!r}")


def test_the_error_names_the_test_and_the_reason():
    with pytest.raises(ValueError, match="plain") as caught:
        read_tests({"tests": ["assert f({1: 2}) == 1"]})
    assert str(caught.value) == (
        "has a test whose values are not plain (a dict with a key that is not str): "
        "'assert f({1: 2}) == 1'"
    )


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '{"a": [NaN]}'])
@pytest.mark.parametrize("form", ['{"args": [%s], "output": 1}', '{"args": [], "output": %s}'])
def test_numbers_that_are_not_finite_are_refused(value, form):
    test = json.loads(form % value)
    with pytest.raises(ValueError, match=r"not plain \(a number that is not finite\): number 2"):
        read_tests({"function": "f", "tests": [{"args": [], "output": 0}, test]})


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def accepted(solution: object) -> bool:
    try:
        tests = read_tests(solution)
    except ValueError:
        return False
    Program("", tests.function, tuple(case.arguments for case in tests.cases))
    return True


def test_every_accepted_test_can_be_run():
    rows = [{"function": "f", "tests": [{"args": [deep(n)], "output": 1}]} for n in range(90, 110)]
    verdicts = [accepted(row) for row in rows]
    assert verdicts == sorted(verdicts, reverse=True)
    assert set(verdicts) == {True, False}
    large = {"args": ["x" * (9 * 2**20)], "output": 1}
    assert accepted({"function": "f", "tests": [large]})
    with pytest.raises(ValueError, match="arguments together are larger than"):
        read_tests({"function": "f", "tests": [large, large]})


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class LyingText(str):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("a")


class LyingList(list):
    def __eq__(self, other):
        return True


class LyingDict(dict):
    def __eq__(self, other):
        return True


class Anything:
    def __eq__(self, other):
        return True

    __hash__ = None


HUGE = 10**400


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (None, None),
        (True, True),
        ("a", "a"),
        ("", ""),
        (1, 1),
        (HUGE, HUGE),
        (1, 1.0),
        (1.0, 1),
        (0.0, -0.0),
        (0.1 + 0.2, 0.3),
        (10**300, 1e300),
        ([], ()),
        ((1, 2), [1, 2]),
        ([(1,), {"a": (2.0,)}], ([1], {"a": [2]})),
        ({"a": 1, "b": None}, {"b": None, "a": 1}),
        ({}, {}),
        (deep(100), deep(100)),
    ],
)
def test_equal_values(got, expected):
    assert same_value(got, expected)
    assert same_value(expected, got)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (True, 1),
        (False, 0),
        (True, 1.0),
        (False, None),
        (None, 0),
        ("1", 1),
        ("a", ["a"]),
        ("", []),
        ("a", "A"),
        (1, 2),
        (1.0, 1.0001),
        (HUGE, HUGE + 1),
        (HUGE, 1e300),
        (HUGE, inf),
        (-HUGE, -inf),
        (nan, nan),
        (nan, 1),
        ([nan], [nan]),
        (inf, 1e308),
        ([1], [1, 2]),
        ([1, 2], [2, 1]),
        ([[1]], [1]),
        ([True], [1]),
        ({}, []),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 1}),
        ({"a": True}, {"a": 1}),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}),
        (deep(101), deep(101)),
        (deep(100_000), deep(100_000)),
        (b"a", b"a"),
        ({1}, {1}),
        (1j, 1j),
        ({1: 2}, {1: 2}),
        (Liar(1), 1),
        (Liar(1), Liar(1)),
        (LyingText("b"), "b"),
        (LyingList(), []),
        (LyingDict(), {}),
        ({LyingText("b"): 1}, {"a": 1}),
        ([Anything()], [1]),
        (Anything(), Anything()),
    ],
    ids=range(43),
)
def test_unequal_values(got, expected):
    assert not same_value(got, expected)
    assert not same_value(expected, got)


def test_nan_is_unequal_to_itself_even_as_the_same_object():
    rows = [nan]
    assert not same_value(rows, rows)


def test_importing_checks_code_loads_no_torch():
    code = (
        "import sys, lsp_lightning.checks.code\nassert not {'torch', 'lightning'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
