"""Solutions with texts of a careless or hostile Solver, for fuzzing and benchmarks."""

import random

#: Texts that sympy cannot handle in time; a verifier may leave them undecided.
_MONSTERS = (
    "\\boxed{9^{9^{9^{9}}}}",
    "\\boxed{99999999!}",
    "\\boxed{" + "(" * 300 + "1" + ")" * 300 + "}",
    "\\boxed{" + "x^{" * 100 + "2" + "}" * 100 + "}",
    "\\boxed{(x+y+z+1)^{200}}",
    "9**9**9**9**9**9",
    "\\boxed{\\sum_{i=1}^{10^9} i^i}",
)
_ODD = "\x00\u200f\u202e\ud800\udfff\ufeff\u0301\uff14\u0663\U0001f600{}\\$%^_&#~|[]<>"


def _gold(draw: random.Random) -> tuple[str, list[str], list[str]]:
    """A gold answer, ways to write it, and wrong answers."""
    n, m = draw.randint(-999, 9999), draw.randint(2, 9)
    return draw.choice(
        [
            (str(n), [str(n), f"x={n}", f"{n}.0", f"{n}\\text{{ cm}}"], [str(n + 1), f"{n},{m}"]),
            (f"\\frac{{{n}}}{{{m}}}", [f"{n}/{m}", f"\\dfrac{{{n}}}{{{m}}}"], [f"{n}/{m + 1}"]),
            (f"({n},{m})", [f"({n}, {m})"], [f"({m}, {n + 1})", str(n)]),
            (f"{m}\\sqrt{{2}}", [f"\\sqrt{{{2 * m * m}}}"], [f"\\sqrt{{{m}}}", str(m)]),
            (f"x^2+{m}", [f"{m}+x^2", f"x\\cdot x+{m}"], [f"x^2+{m + 1}", "x^2"]),
        ]
    )


def _mangled(text: str, draw: random.Random) -> str:
    """A text with some characters dropped, doubled or replaced: mostly malformed LaTeX."""
    kept = list(text)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(kept))
        kept[at] = draw.choice(["", kept[at] * 2, draw.choice(_ODD), "\\frac{", "\\left("])
    return "".join(kept) or "{"


def _noise(draw: random.Random) -> str:
    """Random characters, sometimes very many."""
    length = draw.choice([3, 30, 300, 3000, 30_000])
    return "".join(draw.choices(_ODD + "0123456789+-*/^(),. xy\n", k=length))


def _other_gold(draw: random.Random) -> tuple[str, list[str], list[str]]:
    """As :func:`_gold`, of the kinds that a parser alone gets wrong: sizes, units, writing."""
    n, m, e = draw.randint(11, 998), draw.randint(2, 9), draw.randint(7, 30)
    digits = "".join(chr(0x0966 + int(c)) for c in str(n))
    return draw.choice(
        [
            (
                f"{m}e-{e}",
                [f"{m}\\times10^{{-{e}}}", f"{m}E-{e}"],
                [f"{m}e-{e + 1}", f"{m + 1}e-{e}"],
            ),
            (f"{n}\\text{{ cm}}", [f"{n}", f"{n} cm"], [f"{n}\\text{{ m}}", f"{n}\\text{{ cm}}^2"]),
            (f"{n}\\%", [f"{n}\\%", f"{n / 100}"], [f"{n + 1}\\%", f"{n * 100}"]),
            (str(n), [digits, f"{n}\\text{{ apples}}"], [f"{n}0", f"{n} \\text{{ or }} {n + 1}"]),
            (str(n * 1000), [f"{n}\\,000", f"{n} 000", f"{n},000"], [f"{n}, 000", f"{n}"]),
            (f"({n},\\infty)", [f"x>{n}", f"{n}<x"], [f"x<{n}", f"x\\ge {n}", str(n)]),
            (f"1,2,\\ldots,{n}", [f"1, 2, \\dots, {n}"], [f"1,3,\\ldots,{n}", f"1,2,{n}"]),
            (f"1{m % 2}1_2", [f"1{m % 2}1_{{2}}"], [f"1{m % 2}1_3", f"1{(m + 1) % 2}1_2"]),
        ]
    )


def graded_answers(
    n: int, seed: int, monsters: float = 0.002, others: float = 0.0
) -> list[tuple[str, str, bool | None]]:
    """``n`` solutions with a text and whether it is right; None where nobody can know.

    ``monsters`` is the share of texts that may take forever, ``others`` that of solutions with
    units, many digits, intervals and the like. Of the texts, 70 % are well-formed (half of them
    right), 20 % malformed and 10 % noise.
    """
    draw = random.Random(seed)
    graded: list[tuple[str, str, bool | None]] = []
    for _ in range(n):
        gold, right, wrong = (_other_gold if others and draw.random() < others else _gold)(draw)
        is_right = draw.random() < 0.5
        answer = draw.choice(right if is_right else wrong)
        way = draw.choice(["Thus we get \\boxed{%s}.", "$$\\boxed{%s}$$", "The answer is $%s$."])
        text = "First I add the two numbers. " * draw.randrange(20) + way % answer
        sort = draw.random()
        known: bool | None = is_right
        if sort < monsters:
            text, known = draw.choice(_MONSTERS), False
        elif sort < 0.1:
            text, known = _noise(draw), None
        elif sort < 0.3:
            text, known = _mangled(text, draw), None
        if gold.startswith("\\frac{0}"):  # 0/2 is 0/3
            known = None
        graded.append((gold, text, known))
    return graded


def answers(n: int, seed: int, monsters: float = 0.002) -> list[tuple[str, str]]:
    """``n`` pairs of a solution and a text, see :func:`graded_answers`."""
    return [(gold, text) for gold, text, _ in graded_answers(n, seed, monsters)]
