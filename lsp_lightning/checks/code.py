"""Code in a text, tests written down as data, and the comparison of plain values."""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

_FENCE = "```"
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Case:
    """One test of a function."""

    arguments: tuple[object, ...]
    """What it is called with."""
    expected: object
    """What it must return."""


@dataclass(frozen=True)
class FunctionTests:
    """What a function must do."""

    function: str
    """Its name."""
    cases: tuple[Case, ...]
    """At least one."""


def code_block(text: str) -> str:
    """The last fenced block of a text, or the whole text if it has none.

    A block that is never closed, as in an answer that was cut off, goes to the end.
    """
    lines = text.splitlines()
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith(_FENCE)]
    if not fences:
        return text.strip()
    last_open = fences[-1] if len(fences) % 2 else fences[-2]
    end = len(lines) if len(fences) % 2 else fences[-1]
    return "\n".join(lines[last_open + 1 : end])


def read_tests(reference: object) -> FunctionTests:
    """Tests as a prompt file holds them.

    Two forms: ``{"function": "f", "tests": [{"args": [1], "output": 2}]}``, and
    ``{"tests": ["assert f(1) == 2"]}`` of nothing but calls and literals.

    Raises:
        ValueError: it has neither form; the message goes on "the reference of this query ...".
    """
    if not isinstance(reference, dict) or not isinstance(reference.get("tests"), list):
        raise ValueError('is not of the form {"tests": [...]}')
    tests = reference["tests"]
    if not tests:
        raise ValueError("has no tests")
    if all(isinstance(test, str) for test in tests):
        read = [_read_assert(test) for test in tests]
        names = {name for name, _ in read}
        if len(names) > 1:
            raise ValueError(f"tests several functions ({', '.join(sorted(names))})")
        return FunctionTests(names.pop(), tuple(case for _, case in read))
    name = reference.get("function")
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError("names no function to test")
    if not all(
        isinstance(test, dict) and isinstance(test.get("args"), list) and "output" in test
        for test in tests
    ):
        raise ValueError('has a test that is not of the form {"args": [...], "output": ...}')
    return FunctionTests(name, tuple(Case(tuple(t["args"]), t["output"]) for t in tests))


def _read_assert(test: str) -> tuple[str, Case]:
    try:
        match ast.parse(test.strip()).body:
            case [
                ast.Assert(
                    test=ast.Compare(
                        left=ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]),
                        ops=[ast.Eq()],
                        comparators=[expected],
                    )
                )
            ]:
                values = tuple(ast.literal_eval(argument) for argument in arguments)
                return name, Case(values, ast.literal_eval(expected))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    raise ValueError(f"has a test that is not of the form 'assert f(1) == 2': {test[:60]!r}")


def same_value(got: object, expected: object, depth: int = 0) -> bool:
    """Whether two plain values are the same one.

    Types are compared exactly, so nothing that answers to ``==`` by itself is taken for a value;
    but a tuple is its list, an integer the float of its value, and floats agree to 1e-9.
    """
    if depth > _MAX_DEPTH:
        return False
    if type(got) in (int, float) and type(expected) in (int, float):
        return _same_number(got, expected)  # type: ignore[arg-type]
    if type(got) in (list, tuple) and type(expected) in (list, tuple):
        return _same_rows(got, expected, depth)  # type: ignore[arg-type]
    if type(got) is not type(expected):
        return False
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            same_value(got[key], expected[key], depth + 1) for key in expected
        )
    return type(got) in (str, bool, type(None)) and got == expected


def _same_number(got: float, expected: float) -> bool:
    if type(got) is int and type(expected) is int:
        return got == expected
    try:
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # an integer beyond all floats
        return False


def _same_rows(got: Sequence[object], expected: Sequence[object], depth: int) -> bool:
    return len(got) == len(expected) and all(
        same_value(a, b, depth + 1) for a, b in zip(got, expected, strict=True)
    )
