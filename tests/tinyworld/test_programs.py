"""Programs of the family `prog` print what Python prints; cases were worked out by hand."""

import ast
import random

import pytest

from lsp_lightning.tinyworld.programs import VALUE_LIMIT, make_program, run_program

CASES = [
    ("a=5;print(a+0)", 1, "5"),
    ("a=5;print(a-9)", 1, "-4"),
    ("a=5;print(9-a)", 1, "4"),
    ("a=7;print(a*8)", 1, "56"),
    ("a=7;print(7*8)", 1, "56"),  # the variable may be unused
    ("a=0;b=a-3;print(b*4)", 2, "-12"),  # b = -3
    ("a=6;b=a+a;print(a-b)", 2, "-6"),  # b = 12
    ("a=6;b=2-a;print(0-b)", 2, "4"),  # b = -4
    ("a=1;b=a+2;c=b*3;print(c-a)", 3, "8"),  # b = 3, c = 9
    ("a=8;b=a-9;c=a-b;print(c+b)", 3, "8"),  # b = -1, c = 9
    ("a=2;b=3*4;c=b-a;print(5+c)", 3, "15"),  # b = 12, c = 10
]


@pytest.mark.parametrize(("text", "level", "printed"), CASES)
def test_programs_print_what_python_prints(text, level, printed):
    assert run_program(text) == (level, printed)


def test_generated_programs_are_valid_python_with_python_values():
    rng = random.Random(1)
    for level in (1, 2, 3):
        for _ in range(200):
            text = make_program(level, rng)
            assert run_program(text) == (level, str(_by_syntax_tree(text)))


def test_generated_outputs_stay_small():
    rng = random.Random(2)
    for level in (2, 3):
        printed = [run_program(make_program(level, rng))[1] for _ in range(500)]
        assert all(abs(int(value)) <= VALUE_LIMIT for value in printed)


def _by_syntax_tree(text: str) -> int:
    """The printed value, computed from Python's syntax tree: an independent second way."""
    *assignments, output = ast.parse(text).body
    known: dict[str, int] = {}

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return known[node.id]
        left, right = value(node.left), value(node.right)
        return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]

    for statement in assignments:
        known[statement.targets[0].id] = value(statement.value)
    assert output.value.func.id == "print"
    return value(output.value.args[0])
