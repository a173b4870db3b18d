"""The family `prog`: Python programs in one line. What do they print?

A program of level n assigns n variables in the order a, b, c, each from the ones before it, and
prints one expression: `a=3;b=a+4;print(b-2)`. Every accepted text is valid Python, and its answer
is what Python prints. The answer is computed from the parsed text; nothing is executed.
"""

import random
import re

VARIABLES = "abc"
VALUE_LIMIT = 20  # for values in generated programs; the grammar has no limit


def _expression(variables: str) -> str:
    """Pattern of one operation. The right operand of `*` is a digit, so values stay small."""
    operand = f"[0-9{variables}]"
    return rf"(?:{operand}[+-]{operand}|{operand}\*[0-9])"


def _program_pattern(level: int) -> re.Pattern[str]:
    """Pattern of a whole program; an expression may use the variables assigned before it."""
    rest = "".join(f";{VARIABLES[i]}={_expression(VARIABLES[:i])}" for i in range(1, level))
    return re.compile(rf"a=[0-9]{rest};print\({_expression(VARIABLES[:level])}\)")


PATTERNS = tuple(_program_pattern(level) for level in (1, 2, 3))


def _value(expression: str, known: dict[str, int]) -> int:
    """Value of a literal, of a variable, or of one operation on two of them."""
    if len(expression) == 1:
        return known[expression] if expression in known else int(expression)
    left, operator, right = (expression[0], expression[1], expression[2])
    x, y = _value(left, known), _value(right, known)
    return x + y if operator == "+" else x - y if operator == "-" else x * y


def _values(text: str) -> list[int]:
    """Values of all assignments of an accepted program in order; the printed value is last."""
    *assignments, output = text.split(";")
    known: dict[str, int] = {}
    for assignment in assignments:
        known[assignment[0]] = _value(assignment[2:], known)
    return [*known.values(), _value(output[len("print(") : -1], known)]


def run_program(text: str) -> tuple[int, str] | None:
    """(level, printed text) of a program; None if the grammar does not accept it."""
    for level, pattern in enumerate(PATTERNS, start=1):
        if pattern.fullmatch(text):
            return level, str(_values(text)[-1])
    return None


def _draw_expression(known: str, rng: random.Random) -> str:
    """One operation on any known variable; as in real programs, some variables stay unused."""
    variable, operator = rng.choice(known), rng.choice("++--*")
    if operator == "*":
        return f"{variable}*{rng.randint(2, 9)}"
    # no x-x: too many answers would be 0
    others = known.replace(variable, "") if operator == "-" else known
    digit = not others or rng.random() < 0.7
    pair = [variable, str(rng.randint(0, 9)) if digit else rng.choice(others)]
    if rng.random() < 0.3:
        pair.reverse()
    return operator.join(pair)


def make_program(level: int, rng: random.Random) -> str:
    """A program of the level (1..3), small enough for a small model to learn.

    Variables hold 0..VALUE_LIMIT; only the printed value may be negative. Level 1 has few programs,
    so products up to 9*9 are allowed there.
    """
    limit = 81 if level == 1 else VALUE_LIMIT
    while True:
        parts = [f"a={rng.randint(0, 9)}"]
        for i in range(1, level):
            parts.append(f"{VARIABLES[i]}={_draw_expression(VARIABLES[:i], rng)}")
        parts.append(f"print({_draw_expression(VARIABLES[:level], rng)})")
        text = ";".join(parts)
        *assigned, printed = _values(text)
        if all(0 <= value <= limit for value in assigned) and abs(printed) <= limit:
            return text
