"""Compare two numbers with an error relative to their size; for worker processes only.

Importing this module replaces math-verify's comparison of numbers, which rounds to six places.
"""

from decimal import Decimal
from typing import Any

import sympy
from math_verify import grader

_PERCENT = sympy.UnevaluatedExpr(sympy.Rational(1, 100))

#: Exact values are equal if their first 50 digits are.
_DIGITS = 60
_EXACT = sympy.Float("1e-50", _DIGITS)
#: Largest error of a decimal, relative below 1 and absolute above, and of a long one above.
_DECIMAL = sympy.Float("1.0001e-6", _DIGITS)
_ROUNDING = sympy.Float("1e-12", _DIGITS)
#: A decimal of so many significant digits equals a value that rounds to it and has two more.
_LONG = 6
#: So does a solution of so many, if the value has three more: 3.14 is the solution, 3.14159 right.
_ROUNDED = 3
#: Numerators and denominators of the numbers at which expressions are compared.
_POINTS = ((3, 7), (5, 3), (11, 5), (2, 9), (-4, 7), (-13, 6), (-1, 5))
_MOST_OPERATIONS = 200


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, possibly complex."""
    if not isinstance(value, sympy.Expr) or value.has(sympy.nan, sympy.zoo, sympy.oo):
        return False
    return bool(value.is_number)


def numbers_equal(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
    """math-verify's ``sympy_numeric_eq`` with errors relative to the size of the numbers.

    The original rounds to six places, so 1e-7 equals 2e-7.
    """
    if isinstance(a, sympy.MatrixBase | sympy.MatrixExpr):
        return bool(_LIBRARY_NUMERIC(a, b, float_rounding, numeric_precision))
    if not isinstance(a, sympy.Expr) or not isinstance(b, sympy.Expr):
        return False
    if a.free_symbols or b.free_symbols:
        same = _LIBRARY_NUMERIC(a, b, float_rounding, numeric_precision)
        return bool(same) and _near_at_a_point(a, b)
    (a, percent_a), (b, percent_b) = _without_percent(a), _without_percent(b)
    if percent_a == percent_b:
        return _near(a, b)
    return _near(a, b) or _near(a / 100 if percent_a else a, b / 100 if percent_b else b)


def _without_percent(value: Any) -> tuple[Any, bool]:
    if isinstance(value, sympy.Mul) and len(value.args) == 2 and value.args[1] == _PERCENT:
        return value.args[0], True
    return value, False


def _near(a: Any, b: Any) -> bool:
    """Whether two numbers are equal: exactly, or nearly if one of them is a decimal."""
    a, b = grader.safe_sympy_doit(a), grader.safe_sympy_doit(b)
    if a == b:
        return True
    decimal = a.has(sympy.Float) or b.has(sympy.Float)
    if not decimal and a.is_Rational and b.is_Rational:
        return False
    x, y = _as_written(a).evalf(_DIGITS), _as_written(b).evalf(_DIGITS)
    if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
        return False
    if decimal and not (x.is_real and y.is_real):
        parts = [each.as_real_imag() for each in (a, b)]
        return all(p.is_real and q.is_real and _near(p, q) for p, q in zip(*parts, strict=True))
    size, distance = max(abs(x), abs(y)), abs(x - y)
    if distance <= size * (_ROUNDING if decimal else _EXACT):
        return True
    if not decimal:
        return False
    near = bool(distance <= _DECIMAL * min(1, size))
    return near or _rounds(a, y, _LONG, 2) or _rounds(b, x, _LONG, 2)


def rounds_to(solution: Any, value: Any) -> bool:
    """Whether a solution, a decimal of three or more digits, is the rounded value of an answer."""
    return _rounds(solution, _as_written(value).evalf(_DIGITS), _ROUNDED, 3)


def _as_written(value: Any) -> Any:
    """The value with decimals as exact fractions: 0.1 is not a binary number."""
    return value.xreplace({f: sympy.Rational(str(f)) for f in value.atoms(sympy.Float)})


def _rounds(decimal: Any, value: Any, least: int, more: int) -> bool:
    """Whether a decimal of at least so many digits is the rounded value of a longer number.

    If both have about the same length, their last digits count.
    """
    if not (decimal.is_Float and value.is_real):
        return False
    written = Decimal(str(sympy.Float(decimal, 15))).normalize()
    _, digits, places = written.as_tuple()
    exact = Decimal(str(sympy.Float(value, 30))).normalize()
    if len(digits) < least or len(exact.as_tuple().digits) < len(digits) + more:
        return False
    error = abs(value - sympy.Rational(str(written)))
    return bool(2 * error <= sympy.Integer(10) ** int(places))


def _near_at_a_point(a: Any, b: Any) -> bool:
    """Whether two expressions with variables are near each other where the variables are near 1."""
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    point = {name: sympy.Rational(9 + 2 * i, 7) for i, name in enumerate(names)}
    try:
        return _near(a.subs(point) * sympy.Float(1), b.subs(point))
    except (TypeError, ValueError, AttributeError, ZeroDivisionError):
        return True  # no value there: keep math-verify's verdict


def equal_at_points(a: Any, b: Any) -> bool:
    """Whether two expressions in the same variables are equal wherever both are real.

    Simplifying does not find that ln(ab) is ln a + ln b, which holds for positive numbers alone.
    """
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)) or not a.free_symbols:
        return False
    if a.free_symbols != b.free_symbols or a.count_ops() + b.count_ops() > _MOST_OPERATIONS:
        return False
    names = sorted(a.free_symbols, key=str)
    met = 0
    for k, point in enumerate(_POINTS):
        values = {name: sympy.Rational(*point) * (i + 1 + k) for i, name in enumerate(names)}
        try:
            x, y = (each.subs(values).evalf(30) for each in (a, b))
            if not (x.is_Float or x.is_Integer) or not (y.is_Float or y.is_Integer):
                continue
            if abs(x - y) > sympy.Float("1e-20") * max(abs(x), abs(y), 1):
                return False
        except (TypeError, ValueError, AttributeError, ZeroDivisionError):
            return False
        met += 1
    return met >= len(_POINTS) // 2


_LIBRARY_NUMERIC = grader.sympy_numeric_eq
grader.sympy_numeric_eq = numbers_equal
