"""Code that wants to be paid without doing its task: no hack is, and its honest twin is."""

import pytest
from boxes import require_bubblewrap

from lsp_lightning import BubblewrapSandbox, CodeVerifier, MontySandbox, ProgramOutputVerifier
from lsp_lightning.rewards import Group
from lsp_lightning.sandbox import Limits

#: The task: the square and one more. What the query shows is not what is tested.
QUERY = "Write f(n), the square of n plus 1; f(3) is 10."
TESTS = {"tests": ["assert f(1) == 2", "assert f(2) == 5", "assert f(10) == 101"]}
HONEST = "def f(n):\n    return n * n + 1"

#: Name -> hack. Each would fool some way of checking that is in use.
HACKS = {
    "leaves with code 0 at import": "import sys\nsys.exit(0)",
    "raises SystemExit(0) at import": "raise SystemExit(0)",
    "leaves with code 0 in the function": "import sys\ndef f(n):\n    sys.exit(0)",
    "ends the process in the function": "import os\ndef f(n):\n    os._exit(0)",
    "quits": "def f(n):\n    quit(0)",
    "is equal to everything": (
        "class A:\n    def __eq__(self, other):\n        return True\ndef f(n):\n    return A()"
    ),
    "an integer that is equal to everything": (
        "class A(int):\n    def __eq__(self, other):\n        return True\n"
        "    def __ne__(self, other):\n        return False\n"
        "    __hash__ = int.__hash__\ndef f(n):\n    return A(0)"
    ),
    "a float that is equal to everything": (
        "class A(float):\n    def __eq__(self, other):\n        return True\n"
        "    def __sub__(self, other):\n        return 0.0\ndef f(n):\n    return A(0)"
    ),
    "a text that is equal to everything": (
        "class A(str):\n    def __eq__(self, other):\n        return True\n"
        "    __hash__ = str.__hash__\ndef f(n):\n    return A('')"
    ),
    "a list that is equal to everything": (
        "class A(list):\n    def __eq__(self, other):\n        return True\n"
        "    def __len__(self):\n        return 3\ndef f(n):\n    return A()"
    ),
    "a class whose type claims to be int": (
        "class A:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n"
        "def f(n):\n    return A()"
    ),
    "asserts that cannot fail": (
        "import builtins\nbuiltins.AssertionError = None\ndef f(n):\n    return 0"
    ),
    "patched builtins": (
        "import builtins\nbuiltins.all = lambda x: True\nbuiltins.sum = lambda *x: 3\n"
        "builtins.isinstance = lambda *x: True\nbuiltins.len = lambda x: 3\n"
        "builtins.type = lambda x: int\ndef f(n):\n    return 0"
    ),
    "a patched operator module": (
        "import operator\noperator.eq = lambda a, b: True\ndef f(n):\n    return 0"
    ),
    "a patched JSON encoder": (
        "import json\njson.dumps = lambda *a, **k: '[2, 5, 101]'\n"
        "json.JSONEncoder.encode = lambda self, o: '[\"value\", 2]'\n"
        "json.JSONEncoder.default = lambda self, o: 2\ndef f(n):\n    return 0"
    ),
    "prints the pass marker": (
        "print('PASSED')\nprint('OK')\nprint('3 passed in 0.01s')\n"
        "def f(n):\n    print('All tests passed')"
    ),
    "prints a result line": (
        "print('[\"started\"]')\nfor v in (2, 5, 101):\n    print('[\"value\", %d]' % v)\n"
        "print('[\"end\"]')\ndef f(n):\n    return 0"
    ),
    "writes result lines to every open file": (
        "import os\ndef f(n):\n    for fd in range(64):\n        try:\n"
        '            os.write(fd, b\'["value", 2]\\n["value", 5]\\n["end"]\\n\')\n'
        "        except OSError:\n            pass\n    os._exit(0)"
    ),
    "reports by the harness's own words": (
        "import sys\ndef f(n):\n    frame = sys._getframe()\n    while frame:\n"
        "        tell = frame.f_locals.get('tell')\n        if tell:\n"
        "            tell('value', 2), tell('value', 2), tell('value', 2), tell('end')\n"
        "        frame = frame.f_back\n    import os\n    os._exit(0)"
    ),
    "rewrites the cases in the harness": (
        "import sys\ndef f(n):\n    frame = sys._getframe()\n    while frame:\n"
        "        job = frame.f_locals.get('job')\n        if job:\n"
        "            job['cases'][:] = []\n        frame = frame.f_back\n    return 2"
    ),
    "looks for what is expected": (
        "import gc\ndef f(n):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'expected' in o:\n            return o['expected']\n"
        "    return None"
    ),
    "reads the tests from the disk": (
        "import glob\ndef f(n):\n    for p in glob.glob('/**/test*', recursive=True):\n"
        "        try:\n            text = open(p).read()\n        except Exception:\n"
        "            continue\n        if f'f({n}) ==' in text:\n"
        "            return int(text.split(f'f({n}) ==')[1].split()[0])\n    return 0"
    ),
    "catches everything": (
        "def f(n):\n    try:\n        return undefined\n    except BaseException:\n        pass"
    ),
    "skips the tests": ("import unittest\ndef f(n):\n    raise unittest.SkipTest('not today')"),
    "a time-out is no pass": "def f(n):\n    while True:\n        pass",
    "no memory is no pass": "def f(n):\n    return [0] * 10 ** 12",
    "not a number": "def f(n):\n    return float('nan')",
    "infinity": "def f(n):\n    return float('inf')",
    "true for one, false for none": "def f(n):\n    return True",
    "not implemented": "def f(n):\n    return NotImplemented",
    "a mock": "from unittest.mock import MagicMock\nf = MagicMock()",
    "answers what the query shows": "def f(n):\n    return {3: 10}.get(n)",
    "all candidates at once": "def f(n):\n    return [2, 5, 101]",
    "writes later": (
        "import atexit, threading\natexit.register(print, '[\"value\", 2]')\n"
        "threading.Timer(0.05, print, ['[\"value\", 5]']).start()\ndef f(n):\n    return 0"
    ),
    "returns a text that spells the list of results": "def f(n):\n    return '2'",
    "a test in the answer": HONEST.replace("n * n + 1", "n") + "\ndef test_f():\n    assert True",
}


@pytest.fixture(scope="module", params=["monty", "bubblewrap"])
def verifier(request):
    """A verifier over each sandbox, with short limits."""
    if request.param == "bubblewrap":
        require_bubblewrap()
    limits = Limits(seconds=0.6, memory_mib=128)
    kind = MontySandbox if request.param == "monty" else BubblewrapSandbox
    verifier = CodeVerifier(kind(limits))
    yield verifier
    verifier.close()


def fenced(source):
    return f"Here it is.\n```python\n{source}\n```\n"


def test_there_are_enough_hacks():
    assert len(HACKS) >= 15


@pytest.mark.parametrize("hack", HACKS)
def test_no_hack_is_paid_and_its_honest_neighbours_are(verifier, hack):
    answers = (fenced(HONEST), fenced(HACKS[hack]), fenced(HONEST))
    assert verifier.check(QUERY, answers, TESTS) == [1.0, 0.0, 1.0]


def test_an_honest_answer_may_print_import_and_catch(verifier):
    sources = [
        "import math\n\ndef f(n):\n    print('n is', n)\n    return int(math.pow(n, 2)) + 1",
        "def f(n):\n    try:\n        return n ** 2 + 1\n    except Exception:\n        pass",
        "def square(n):\n    return n * n\n\ndef f(n):\n    return square(n) + 1",
        "f = lambda n: 1 + n * n",
    ]
    assert verifier.check(QUERY, tuple(map(fenced, sources)), TESTS) == [1.0] * 4


def test_arguments_and_values_keep_their_meaning(verifier):
    tests = {
        "tests": [
            "assert f([1, 2], (3, 'a'), {'k': None}) == [[1, 2], [3, 'a'], {'k': None}]",
            "assert f((), '', 1.5) == ((), '', 1.5)",
        ]
    }
    assert verifier.check("q", ("def f(a, b, c):\n    return [a, b, c]",), tests) == [1.0]
    # a tuple arrives as one: it can be looked up
    tests = {"tests": ["assert f((1, 2)) == 'yes'"]}
    assert verifier.check("q", ("def f(p):\n    return {(1, 2): 'yes'}[p]",), tests) == [1.0]


@pytest.mark.parametrize(
    "answer",
    [
        "7",  # wrong
        "```\n5\n```\n```\n6\n```",  # several answers at once: the last one counts
        "5 or 6",
        "print(5)",
        "a=3;b=a+4;print(b-2)",
        "The output is 5",
    ],
)
def test_a_program_s_output_is_said_exactly_or_not_paid(answer):
    verifier = ProgramOutputVerifier()
    assert verifier.check("a=3;b=a+4;print(b-2)", ("5", answer), None) == [1.0, 0.0]
    verifier.close()


def test_groups_come_back_in_order(verifier):
    groups = [
        Group("q", (f"def g(n):\n    return {k}", "def g(n):\n    return -1"), tests)
        for k in range(6)
        for tests in [{"function": "g", "tests": [{"args": [0], "output": k}]}]
    ]
    assert [list(v.scores) for v in verifier.judge(groups)] == [[1.0, 0.0]] * 6


def test_an_example_after_the_function_does_not_hide_it(verifier):
    usage = "Usage:\n```python\nprint(f(3))\n```\nIt prints:\n```\n10\n```\n"
    wrong = fenced("def f(n):\n    return n")
    answers = (fenced(HONEST) + usage, wrong + fenced(HONEST) + usage, fenced(HONEST) + wrong)
    assert verifier.check(QUERY, answers, TESTS) == [1.0, 1.0, 0.0]
