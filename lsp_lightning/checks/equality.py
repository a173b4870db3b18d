"""Compare two answers with math-verify; numbers are compared by their size, units must agree.

Only the worker process imports this module, because sympy takes long to load.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy.core.relational import Relational

from lsp_lightning.checks.final_answers import last_box
from lsp_lightning.checks.nearness import equal_at_points, is_number, numbers_equal, rounds_to
from lsp_lightning.checks.shapes import as_written, differ_in_form, repeats_differ
from lsp_lightning.checks.units import Quantity, quantity

#: math-verify would drop every unit, and letters that look like one: 3t would be 3.
_NORMAL = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
)
# priority 0: a box comes before all other candidates in the text
_EXTRACTION = (
    LatexExtractionConfig(boxed_match_priority=0, normalization_config=_NORMAL),
    ExprExtractionConfig(),
)
_NUMBER = re.compile(r"([-+]?)([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)")
_SCIENTIFIC = re.compile(r"([-+]?[0-9]*\.?[0-9]+)\s*\\(?:times|cdot)\s*10\^\{([-+]?[0-9]{1,4})\}")
_FRACTION = re.compile(
    r"(-?)\\[dt]?frac\{(-?[0-9]{1,9})\}\{([0-9]{1,9})\}|(-?)([0-9]{1,9})/([0-9]{1,9})"
)
_EXPRESSION = re.compile(r"[-+*/^().0-9\s]+")
_COMMA = re.compile(r"(?:[a-zA-Z]\s*=\s*)?[-+]?[0-9]+,[0-9]+")
_THOUSANDS = re.compile(r"(?:[a-zA-Z]\s*=\s*)?[-+]?[1-9][0-9]{0,2},[0-9]{3}")
#: 2e-1 as plain_numbers writes it; in LaTeX it may also mean 2e - 1.
_EULER = re.compile(r"([0-9]+)\\times10\^\{([-+][0-9]{1,2})\}")

#: The label of an option, and what may follow it: \\textbf{(C)}\\ 7.
_LABEL = (
    r"(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{\s*\(?([A-J])\)?[.:]?\s*\}"
    r"|\(([A-J])\)|([A-J])%s)"
)
_OPTION = re.compile(_LABEL % "[.:)]" + r"(?:\\[ ,;:]|\\quad|~|\s)*([^\s()=].*)")
_BARE_LABEL = re.compile(_LABEL % "")


@dataclass(frozen=True)
class Answer:
    """A parsed answer."""

    quantity: Quantity
    """The answer's value and unit; the whole text if there is no box."""
    parsed: tuple[Any, ...]
    """(expression, text), or (text,) if sympy cannot read it, or ()."""

    @property
    def readable(self) -> bool:
        """Whether sympy could read it."""
        return bool(self.parsed) and not isinstance(self.parsed[0], str)


@lru_cache(maxsize=4096)
def answer(text: str, solution: bool = False) -> Answer:
    """Parse a text, see :func:`lsp_lightning.checks.final_answers.final_answer`.

    A box is read as a whole; of a solution that cannot be, the last number counts.
    """
    content = last_box(text)
    if content is None:
        return Answer(Quantity(text), tuple(parse(text, _EXTRACTION, parsing_timeout=None)))
    split = quantity(content)
    read = Answer(split, _parsed(split.value))
    if solution and not read.readable:
        return Answer(split, tuple(parse(text, _EXTRACTION, parsing_timeout=None)))
    return read


@lru_cache(maxsize=4096)
def _parsed(content: str) -> tuple[Any, ...]:
    number = _plain(content.strip())
    if number is not None:
        return (number, content)
    written = as_written(content)
    if written is not None:
        return (sympy.Symbol(f"written {written}"), content)
    # without LaTeX's reading, the other would find a number in "\le 5"
    extraction = _EXTRACTION if _EXPRESSION.fullmatch(content) else _EXTRACTION[:1]
    found = parse(rf"\boxed{{{content}}}", extraction, parsing_timeout=None)
    if found and not isinstance(found[0], str):
        found[0] = _solution_set(_with_i(found[0]), content)
    return tuple(found)


def _plain(content: str) -> sympy.Number | None:
    """A plain number or fraction without the parser, which is slow."""
    if match := _NUMBER.fullmatch(content):
        digits = match[2]
        number = sympy.Integer(int(digits)) if digits.isdigit() else sympy.Float(digits)
        return -number if match[1] == "-" else number
    if match := _SCIENTIFIC.fullmatch(content):
        number, power = _plain(match[1]), sympy.Integer(10) ** int(match[2])
        whole = isinstance(number, sympy.Integer)
        return number * power if whole else sympy.Float(f"{match[1]}e{match[2]}")
    if match := _FRACTION.fullmatch(content):
        sign, upper, lower = match[1] or match[4], match[2] or match[5], match[3] or match[6]
        if int(lower):
            return sympy.Rational(int(upper), int(lower)) * (-1 if sign else 1)
    return None


def _with_i(found: Any) -> Any:
    """The value with the letter i as the imaginary unit if it is the only letter."""
    side = found.rhs if isinstance(found, sympy.Eq) else found
    names = getattr(side, "free_symbols", ())
    if len(names) != 1 or (letter := next(iter(names))).name != "i":
        return found
    return found.xreplace({letter: sympy.I})


def _solution_set(found: Any, content: str) -> Any:
    """x < -1 or x > 1 as the set of its solutions; other values unchanged."""
    parts = found.args if isinstance(found, sympy.FiniteSet) else ()
    if not parts or not all(map(_is_inequality, parts)):
        return found
    names = set().union(*(part.free_symbols for part in parts))
    either = re.search(r"\bor\b|\\(?:lor|vee|cup)\b", content)
    both = re.search(r"\band\b|\\(?:land|wedge|cap)\b", content)
    if len(names) != 1 or bool(either) == bool(both):
        return found
    sets = [part.as_set() for part in parts]
    return sympy.Union(*sets) if either else sympy.Intersection(*sets)


def _is_inequality(value: Any) -> bool:
    if isinstance(value, sympy.And):
        return all(map(_is_inequality, value.args))
    return isinstance(value, Relational) and not isinstance(value, sympy.Eq | sympy.Ne)


def equal(gold: Answer, given: Answer) -> bool:
    """Whether the given answer is right if ``gold`` is the solution.

    "x = 3" is right for "3". A unit may be left out; one that differs is wrong.
    """
    options = _OPTION.fullmatch(gold.quantity.value), _OPTION.fullmatch(given.quantity.value)
    if any(options):
        return _equal_options((gold, given), options)
    if gold.quantity.unit.startswith("base ") or given.quantity.unit.startswith("base "):
        return _equal_digits(gold.quantity, given.quantity)
    gold, given = _agreed(gold, given)
    units = {gold.quantity.unit, given.quantity.unit} - {""}
    values = gold.quantity.value, given.quantity.value
    if not _same_unit(gold.quantity.unit, given.quantity.unit) or differ_in_form(*values):
        return False
    if repeats_differ(*values, lambda a, b: _same(_parsed(a), _parsed(b))):
        return False
    if _same(gold.parsed, given.parsed):
        return True
    for whole, part in ((gold, given), (given, gold)):  # 50% is 0.5, 180 degrees are pi
        factor = {"%": sympy.Rational(1, 100), "degree": sympy.pi / 180}.get(whole.quantity.unit)
        if factor is not None and len(units) == 1 and not part.quantity.unit and whole.readable:
            scaled = _times(whole.parsed[0], factor)
            pair = (scaled, part.parsed[:1]) if whole is gold else (part.parsed[:1], scaled)
            if scaled and part.readable and _same(*pair):
                return True
    return _same_otherwise(gold, given)


def right(solution: Answer, given: Answer) -> bool:
    """Whether an answer equals the solution, or is more precise than a rounded solution."""
    if equal(solution, given):
        return True
    if not (solution.readable and given.readable) or solution.quantity.unit.startswith("base "):
        return False
    a, b = solution.parsed[0], given.parsed[0]
    same_unit = _same_unit(solution.quantity.unit, given.quantity.unit)
    return same_unit and is_number(a) and is_number(b) and rounds_to(a, b)


def _equal_options(
    answers: tuple[Answer, Answer], options: tuple[re.Match[str] | None, re.Match[str] | None]
) -> bool:
    """Whether "(C) 7" equals the other answer, which may be "C", "7" or an option too."""
    labels, values = [], []
    for one, option in zip(answers, options, strict=True):
        match = option or _BARE_LABEL.fullmatch(one.quantity.value)
        labels.append(match and (match[1] or match[2] or match[3]))
        if option:
            value = Quantity(option[4], one.quantity.unit)
            values.append(Answer(value, _parsed(option[4])))
        elif not match:
            values.append(one)
    if all(labels):
        return labels[0] == labels[1] and (len(values) < 2 or equal(values[0], values[1]))
    return equal(values[0], values[1])


def _agreed(gold: Answer, given: Answer) -> tuple[Answer, Answer]:
    """Both answers, with 5m read as five metres if the other has a unit m, else as a product."""

    def whole(one: Answer, other: Answer) -> Answer:
        product = one.quantity.product
        if not product or (other.quantity.unit == one.quantity.unit and not other.quantity.product):
            return one
        return Answer(Quantity(product), _parsed(product))

    number = gold.readable and is_number(gold.parsed[0])
    if number and not gold.quantity.unit:
        return gold, given  # a unit that the solution leaves out
    return whole(gold, given), whole(given, gold)


def _equal_digits(gold: Quantity, given: Quantity) -> bool:
    """Numbers in a base: 101_2 is 101_2 or 101, and neither 5 nor 101_3."""
    digits = given.value.strip().lstrip("0").upper() or "0"
    return gold.unit.startswith("base ") and given.unit in ("", gold.unit) and digits == gold.value


def _same_unit(gold: str, given: str) -> bool:
    return not gold or not given or gold == given


def _times(value: Any, factor: Any) -> tuple[Any, ...]:
    try:
        return (value.doit() * factor,) if isinstance(value, sympy.Expr) else ()
    except (TypeError, ValueError, AttributeError):
        return ()


def _same_otherwise(gold: Answer, given: Answer) -> bool:
    """Whether the answers are equal if 2,5 is a decimal, or 2e-1 is 2e - 1."""

    def readings(one: Answer, other: Answer) -> Iterator[tuple[Any, ...]]:
        yield one.parsed
        value = one.quantity.value.strip()
        number = other.readable and is_number(other.parsed[0])
        if number and _COMMA.fullmatch(value) and not _THOUSANDS.fullmatch(value):
            yield _parsed(value.replace(",", "."))
        match = _EULER.fullmatch(value)
        if match and other.readable and other.parsed[0].has(sympy.E, sympy.exp):
            yield _parsed(f"{match[1]}e{match[2]}")

    pairs = list(product(readings(gold, given), readings(given, gold)))[1:]
    if any(_same(first, second) for first, second in pairs) or _same_solutions(gold, given):
        return True
    return gold.readable and given.readable and equal_at_points(gold.parsed[0], given.parsed[0])


def _same_solutions(gold: Answer, given: Answer) -> bool:
    """Whether two inequalities in the same variable have the same solutions."""
    if not (gold.readable and given.readable):
        return False
    a, b = gold.parsed[0], given.parsed[0]
    if not (_is_inequality(a) and _is_inequality(b)) or len(a.free_symbols) != 1:
        return False
    try:
        return a.free_symbols == b.free_symbols and bool(a.as_set() == b.as_set())
    except (NotImplementedError, TypeError, ValueError):
        return False


def _same(gold: tuple[Any, ...], given: tuple[Any, ...]) -> bool:
    if all(parsed and not isinstance(parsed[0], str) for parsed in (gold, given)):
        gold, given = gold[:1], given[:1]  # without the texts: 0/0 does not equal itself
        if is_number(gold[0]) and is_number(given[0]):
            return _numbers_same(gold[0], given[0])
    # the parent process has a time limit; math-verify's would need signals and whole seconds
    return bool(verify(list(gold), list(given), timeout_seconds=None, allow_set_relation_comp=True))


def _numbers_same(gold: Any, given: Any) -> bool:
    """Compare two numbers without simplifying their difference, as the library would."""
    try:
        return numbers_equal(gold, given, 0, 0)
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False  # as math-verify does if sympy cannot compute a value
