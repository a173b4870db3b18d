"""Check code: find it in a text, read its tests from a file, compare returned values."""

import ast
import keyword
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lsp_lightning.sandbox.base import MAX_INPUT_BYTES
from lsp_lightning.sandbox.plain import NotPlainError, plain

# All quantifiers are possessive (++), so that a hostile text of a megabyte takes one pass.
_LEFT = re.compile(r"[ \t]*+(?:(?:[-*+]|\d{1,9}+[.)])[ \t]++)?+")
_FENCE = re.compile(r"(`{3,}+|~{3,}+)[^`]*+\Z")
#: At most one word may follow, so that "end it with ``` on its own line" opens no block.
_FENCE_AFTER_PROSE = re.compile(r"(?<!`)(`{3,}+)(?:[\w{][^\s`]*+)?+[ \t]*+\Z")
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Case:
    """One test of a function."""

    arguments: tuple[object, ...]
    """Positional arguments of the call."""
    expected: object
    """The value that the call must return."""


@dataclass(frozen=True)
class FunctionTests:
    """The tests of one function."""

    function: str
    """Name of the function."""
    cases: tuple[Case, ...]
    """At least one test."""


class _Fence(NamedTuple):
    """The opening fence of a block; it decides which fence closes the block."""

    run: str
    """The backticks or tildes that it consists of."""
    column: int
    """Column where the text of its line starts; in a list item, after the marker."""


def code_block(text: str, defines: str | None = None) -> str:
    """The last fenced block of a text, or the whole text if it has none.

    Blocks follow CommonMark; in addition, a block may open at the end of a line of prose. A block
    that is never closed, as in an answer that was cut off, extends to the end.

    Args:
        text: prose with code in it, as a model wrote it.
        defines: a name. The last block that defines it at the start of a line is returned instead,
            because answers often end with an example of its use.
    """
    text = text.replace("\r\n", "\n")
    blocks = _blocks(text)
    if not blocks:
        return text.strip()
    if defines is not None:
        name = re.escape(defines)
        definition = re.compile(
            rf"^(?:(?:(?:async[ \t]++)?def|class)[ \t]++{name}(?!\w)"
            rf"|{name}[ \t]*+(?::[^=\n]*+)?=(?!=))",
            re.MULTILINE,
        )
        for lines in reversed(blocks):
            block = _dedented(lines)
            if definition.search(block):
                return block
    return _dedented(blocks[-1])


def _blocks(text: str) -> list[list[str]]:
    """The lines of each fenced code block."""
    blocks: list[list[str]] = []
    fence: _Fence | None = None
    for line in text.split("\n"):  # not splitlines, which splits at form feeds and U+2028 too
        if fence is None:
            fence = _opened(line)
            if fence is not None:
                blocks.append([])
        elif _closes(line, fence):
            fence = None
        else:
            blocks[-1].append(line)
    return blocks


def _opened(line: str) -> _Fence | None:
    if "```" not in line and "~~~" not in line:
        return None
    left = _LEFT.match(line)
    assert left is not None  # the pattern also matches the empty string
    column = len(left[0].expandtabs(4))
    if found := _FENCE.match(line, left.end()):
        return _Fence(found[1], column)
    if found := _FENCE_AFTER_PROSE.search(line):
        run, before = found[1], line[: found.start()]
        # after an odd number of equal runs, this one closes inline code
        if run not in before or re.findall("`++", before).count(run) % 2 == 0:
            return _Fence(run, column)
    return None


def _closes(line: str, fence: _Fence) -> bool:
    bare = line.strip(" \t")
    if not bare.startswith(fence.run) or bare.strip(fence.run[0]):
        return False
    # indented further, it is part of the code, such as an example in a docstring
    return len(_indent(line).expandtabs(4)) < fence.column + 4


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _dedented(lines: list[str]) -> str:
    """The lines without their common indent, joined.

    Unlike textwrap.dedent it is fast on long indents and keeps blank lines inside of literals.
    """
    if not lines or lines[0][:1].strip():  # a shortcut for most blocks
        return "\n".join(lines)
    indents = [_indent(line) for line in lines if line.strip(" \t")]
    first, last = min(indents, default=""), max(indents, default="")  # they differ earliest
    margin = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return "\n".join(line[margin:] for line in lines)


def read_tests(solution: object) -> FunctionTests:
    """Read a function's tests from the solution in a prompt file.

    A solution has one of two forms: ``{"function": "f", "tests": [{"args": [1], "output": 2}]}`` or
    ``{"tests": ["assert f(1) == 2"]}``, where the asserts hold calls and literals only. All values
    must be plain (:func:`lsp_lightning.sandbox.plain.plain`).

    Raises:
        ValueError: the solution has neither form, or a value is not plain. The message starts with
            a verb, because it follows "the solution of 'QUERY'".
    """
    if not isinstance(solution, dict) or not isinstance(solution.get("tests"), list):
        raise ValueError('is not of the form {"tests": [...]}')
    tests = solution["tests"]
    if not tests:
        raise ValueError("has no tests")
    if all(isinstance(test, str) for test in tests):
        read = [_read_assert(test) for test in tests]
        names = {name for name, _ in read}
        if len(names) > 1:
            raise ValueError(f"tests several functions ({', '.join(sorted(names))})")
        function, cases = names.pop(), tuple(case for _, case in read)
    else:
        function, cases = _read_name(solution.get("function")), _read_records(tests)
    _require_plain(tests, cases)
    return FunctionTests(function, cases)


def _read_name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError("does not name the function to test")
    return name


def _read_records(tests: list[object]) -> tuple[Case, ...]:
    cases = []
    for test in tests:
        match test:
            case {"args": list(arguments), "output": expected}:
                cases.append(Case(tuple(arguments), expected))
            case _:
                raise ValueError(
                    'has a test that is not of the form {"args": [...], "output": ...}'
                )
    return tuple(cases)


def _require_plain(tests: list[object], cases: tuple[Case, ...]) -> None:
    for number, (test, case) in enumerate(zip(tests, cases, strict=True), start=1):
        try:
            plain((case.arguments,), MAX_INPUT_BYTES)  # nested as deeply as in a Program
            plain(case.expected, MAX_INPUT_BYTES)
        except NotPlainError as error:
            shown = repr(test[:60]) if isinstance(test, str) else f"number {number}"
            raise ValueError(f"has a test whose values are not plain ({error}): {shown}") from None
    try:
        plain(tuple(case.arguments for case in cases), MAX_INPUT_BYTES)
    except NotPlainError as error:
        raise ValueError(f"has tests whose arguments together are {error}") from None


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
    """Whether two plain values are equal.

    Types must be equal too, so an object with its own ``==`` never counts as a value. Exceptions: a
    tuple equals a list of its items, and an integer or float equals a float within 1e-9 relative or
    1e-12 absolute.
    """
    if depth > _MAX_DEPTH:
        return False
    if type(got) in (int, float) and type(expected) in (int, float):
        return _same_number(got, expected)  # type: ignore[arg-type]
    if type(got) in (list, tuple) and type(expected) in (list, tuple):
        return _same_rows(got, expected, depth)  # type: ignore[arg-type]
    if type(got) is not type(expected):
        return False
    if type(got) is dict and type(expected) is dict:
        return _same_dict(got, expected, depth)
    return type(got) in (str, bool, type(None)) and got == expected


def _same_number(got: float, expected: float) -> bool:
    if type(got) is int and type(expected) is int:
        return got == expected
    try:
        return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # an integer too large for a float
        return False


def _same_rows(got: Sequence[object], expected: Sequence[object], depth: int) -> bool:
    return len(got) == len(expected) and all(
        same_value(a, b, depth + 1) for a, b in zip(got, expected, strict=True)
    )


def _same_dict(got: dict[object, object], expected: dict[object, object], depth: int) -> bool:
    # keys must be exact strings: a key with its own == could equal any other
    return (
        all(type(key) is str for key in (*got, *expected))
        and got.keys() == expected.keys()
        and all(same_value(got[key], expected[key], depth + 1) for key in expected)
    )
