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


def answers(n: int, seed: int, monsters: float = 0.002) -> list[tuple[str, str]]:
    """``n`` pairs of a solution and a text; ``monsters`` is the share that may take forever.

    Of the others, 70 % are well-formed (half of them right), 20 % malformed and 10 % noise.
    """
    draw = random.Random(seed)
    pairs = []
    for _ in range(n):
        gold, right, wrong = _gold(draw)
        answer = draw.choice(right if draw.random() < 0.5 else wrong)
        way = draw.choice(["Thus we get \\boxed{%s}.", "$$\\boxed{%s}$$", "The answer is $%s$."])
        text = "First I add the two numbers. " * draw.randrange(20) + way % answer
        sort = draw.random()
        if sort < monsters:
            text = draw.choice(_MONSTERS)
        elif sort < 0.1:
            text = _noise(draw)
        elif sort < 0.3:
            text = _mangled(text, draw)
        pairs.append((gold, text))
    return pairs
