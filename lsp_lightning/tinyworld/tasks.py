"""Tasks of the tiny world: seven families with their grammar, answers and generators.

A query is *well-formed* if the grammar of a family accepts it; it then has one right answer.
Any other text is *malformed* and has no right answer.

| family | example                 | answer                   | levels 1 / 2 / 3                 |
|--------|-------------------------|--------------------------|----------------------------------|
| add    | `7+5=?`                 | the sum                  | 2 / 3 / 4 digits in all          |
| sub    | `5-12=?`                | the absolute difference  | 2 / 3 / 4 digits in all          |
| rev    | `reverse abcd`          | the letters backwards    | 2-3 / 4 / 5-7 letters            |
| sort   | `sort 5162`             | the digits in order      | 2-3 / 4 / 5-7 digits             |
| max    | `max 37 12`             | the largest number       | 2 / 3 / 4-6 numbers              |
| cnt    | `count a in abcab`      | number of occurrences    | 2-3 / 4-5 / 6-9 letters          |
| prog   | `a=3;b=a+4;print(b-2)`  | what Python prints       | 1 / 2 / 3 assignments            |
"""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lsp_lightning.tinyworld.programs import make_program, run_program

Split = Literal["train", "dev", "test"]

FAMILIES: tuple[str, ...] = ("add", "sub", "rev", "sort", "max", "cnt", "prog")
LEVELS: tuple[int, ...] = (1, 2, 3)
MAX_QUERY = 27  # characters; longer texts are malformed
MAX_ANSWER = 7  # characters of the longest right answer
DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD_LETTERS = "abcdefgh"
COUNT_LETTERS = "abc"
ALPHABET = "\n " + DIGITS + LETTERS + "+-*=?;()"

_NUMBER = "(0|[1-9][0-9]?)"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "add": re.compile(rf"{_NUMBER}\+{_NUMBER}=\?"),
    "sub": re.compile(rf"{_NUMBER}-{_NUMBER}=\?"),
    "rev": re.compile(f"reverse ([{WORD_LETTERS}]{{2,7}})"),
    "sort": re.compile("sort ([0-9]{2,7})"),
    "max": re.compile("max ([1-9][0-9](?: [1-9][0-9]){1,5})"),
    "cnt": re.compile(f"count ([{COUNT_LETTERS}]) in ([{COUNT_LETTERS}]{{2,9}})"),
}


@dataclass(frozen=True)
class Task:
    """A well-formed query with its family, level and answer."""

    query: str
    """The text as the Challenger writes it, at most MAX_QUERY characters."""
    family: str
    """One of FAMILIES."""
    level: int
    """1, 2 or 3; grows with the length of the query within a family."""
    answer: str
    """The only right answer, at most MAX_ANSWER characters."""


def parse(query: str) -> Task | None:
    """The task of a query, or None if it is malformed. Accepts any string."""
    if len(query) > MAX_QUERY:
        return None
    for family, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(query):
            level, answer = _SOLVERS[family](*match.groups())
            return Task(query, family, level, answer)
    if (printed := run_program(query)) is not None:
        return Task(query, "prog", *printed)
    return None


def split(query: str) -> Split:
    """The split of a query, by its MD5: a tenth each for dev and test."""
    digest = hashlib.md5(query.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    remainder = digest[0] % 10
    return "dev" if remainder == 0 else "test" if remainder == 1 else "train"


def make_query(family: str, level: int, rng: random.Random) -> str:
    """A well-formed query of the family (one of FAMILIES) and level (1..3)."""
    return _MAKERS[family](level, rng)


def make_malformed(rng: random.Random) -> str:
    """A malformed text of 1..MAX_QUERY characters of ALPHABET; half of them are near misses."""
    draw = _near_miss if rng.random() < 0.5 else _nonsense
    while True:
        text = draw(rng)
        if text and len(text) <= MAX_QUERY and parse(text) is None:
            return text


# -- answers: groups of the pattern -> (level, answer) ----------------------------------------


def _grade(size: int, first: int, second: int) -> int:
    """Level by size: 1 up to `first`, 2 up to `second`, 3 above."""
    return 1 if size <= first else 2 if size <= second else 3


def _solve_add(x: str, y: str) -> tuple[int, str]:
    return len(x + y) - 1, str(int(x) + int(y))


def _solve_sub(x: str, y: str) -> tuple[int, str]:
    return len(x + y) - 1, str(abs(int(x) - int(y)))


def _solve_rev(word: str) -> tuple[int, str]:
    return _grade(len(word), 3, 4), word[::-1]


def _solve_sort(digits: str) -> tuple[int, str]:
    return _grade(len(digits), 3, 4), "".join(sorted(digits))


def _solve_max(numbers: str) -> tuple[int, str]:
    values = numbers.split()
    return _grade(len(values), 2, 3), max(
        values
    )  # all have two digits, so text order is number order


def _solve_cnt(letter: str, word: str) -> tuple[int, str]:
    return _grade(len(word), 3, 5), str(word.count(letter))


_SOLVERS: dict[str, Callable[..., tuple[int, str]]] = {
    "add": _solve_add,
    "sub": _solve_sub,
    "rev": _solve_rev,
    "sort": _solve_sort,
    "max": _solve_max,
    "cnt": _solve_cnt,
}


# -- generators: (level, rng) -> query -----------------------------------------------------------


_LENGTHS = {1: [2, 3, 3], 2: [4], 3: [5, 5, 6]}  # lengths of words in `rev` and `sort`, by level


def _text(letters: str, length: int, rng: random.Random) -> str:
    return "".join(rng.choice(letters) for _ in range(length))


def _make_sum(operator: str, level: int, rng: random.Random) -> str:
    short, long = rng.randint(0, 9), rng.randint(10, 99)
    pair = {
        1: [short, rng.randint(0, 9)],
        2: [long, short],
        3: [long, rng.randint(10, 99)],
    }[level]
    rng.shuffle(pair)
    return f"{pair[0]}{operator}{pair[1]}=?"


def _make_add(level: int, rng: random.Random) -> str:
    return _make_sum("+", level, rng)


def _make_sub(level: int, rng: random.Random) -> str:
    return _make_sum("-", level, rng)


def _make_rev(level: int, rng: random.Random) -> str:
    return "reverse " + _text(WORD_LETTERS, rng.choice(_LENGTHS[level]), rng)


def _make_sort(level: int, rng: random.Random) -> str:
    return "sort " + _text(DIGITS, rng.choice(_LENGTHS[level]), rng)


def _make_max(level: int, rng: random.Random) -> str:
    count = rng.choice({1: [2], 2: [3], 3: [4, 4, 5]}[level])
    return "max " + " ".join(str(rng.randint(10, 99)) for _ in range(count))


def _make_cnt(level: int, rng: random.Random) -> str:
    length = rng.choice({1: [2, 3, 3], 2: [4, 5], 3: [6, 7, 8]}[level])
    return f"count {rng.choice(COUNT_LETTERS)} in {_text(COUNT_LETTERS, length, rng)}"


_MAKERS: dict[str, Callable[[int, random.Random], str]] = {
    "add": _make_add,
    "sub": _make_sub,
    "rev": _make_rev,
    "sort": _make_sort,
    "max": _make_max,
    "cnt": _make_cnt,
    "prog": make_program,
}


# -- malformed texts -----------------------------------------------------------------------------


def _near_miss(rng: random.Random) -> str:
    """A text that breaks one rule of a family; programs, the hardest to judge, come most often."""
    return _MISSES[rng.choice((*FAMILIES, "prog"))](rng)


def _miss_sum(operator: str, rng: random.Random) -> str:
    pair = [str(rng.randint(100, 999)), str(rng.choice([rng.randint(0, 9), rng.randint(10, 999)]))]
    rng.shuffle(pair)
    too_long = operator.join(pair) + "=?"
    x, y = rng.randint(1, 99), rng.randint(1, 99)
    return rng.choice([too_long] * 3 + [f"0{x}{operator}{y}=?", f"{x}{operator}{y}"])


def _miss_rev(rng: random.Random) -> str:
    word = _text(WORD_LETTERS, rng.randint(2, 6), rng)
    foreign = _replace_one(word, LETTERS[8:] + DIGITS, rng)
    wrong_length = _text(WORD_LETTERS, rng.choice([1, 8, 9, 10]), rng)
    return "reverse " + rng.choice([foreign, wrong_length])


def _miss_sort(rng: random.Random) -> str:
    digits = _text(DIGITS, rng.randint(2, 6), rng)
    foreign = _replace_one(digits, LETTERS, rng)
    wrong_length = _text(DIGITS, rng.choice([1, 8, 9, 10, 11]), rng)
    return "sort " + rng.choice([foreign, wrong_length])


def _miss_max(rng: random.Random) -> str:
    numbers = [str(rng.randint(10, 99)) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.2:
        return f"max {numbers[0]}"
    position = rng.randrange(len(numbers))
    numbers[position] = str(rng.choice([rng.randint(0, 9), rng.randint(100, 999)]))
    return "max " + " ".join(numbers)


def _miss_cnt(rng: random.Random) -> str:
    letter, word = rng.choice(COUNT_LETTERS), _text(COUNT_LETTERS, rng.randint(2, 8), rng)
    wrong_length = _text(COUNT_LETTERS, rng.choice([1, 11, 12, 13]), rng)
    return rng.choice(
        [
            f"count {rng.choice('def')} in {word}",
            f"count {letter} in {_replace_one(word, 'def', rng)}",
            f"count {letter} in {wrong_length}",
        ]
    )


def _miss_prog(rng: random.Random) -> str:
    """A program with an unknown variable, a wrong product or number, or a missing part."""
    text = make_program(rng.choice(LEVELS), rng)
    places = [i for i, c in enumerate(text[:-1]) if c.isdigit() or text[i - 1] in "+-*"]
    place = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:  # a variable that is not assigned yet
        return text[:place] + rng.choice("abcd") + text[place + 1 :]
    if kind == 1:  # a number of two digits
        return text[:place] + str(rng.randint(10, 99)) + text[place + 1 :]
    if kind == 2:  # a product of variables, or two operators
        return text[:place] + rng.choice(["a*a", "b*a", "+1", "*a"]) + text[place + 1 :]
    lost = rng.choice(["print", "(", ")", ";", "=", "a=", "b=", ";print", rng.choice("+-*")])
    return text.replace(lost, "", 1)


_MISSES: dict[str, Callable[[random.Random], str]] = {
    "add": lambda rng: _miss_sum("+", rng),
    "sub": lambda rng: _miss_sum("-", rng),
    "rev": _miss_rev,
    "sort": _miss_sort,
    "max": _miss_max,
    "cnt": _miss_cnt,
    "prog": _miss_prog,
}


def _replace_one(text: str, letters: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(letters) + text[place + 1 :]


def _nonsense(rng: random.Random) -> str:
    """A damaged query, random words of the families, or random characters."""
    query, kind = make_query(rng.choice(FAMILIES), rng.choice(LEVELS), rng), rng.randrange(5)
    if kind == 0:  # tokens in another order
        tokens = re.findall(r"[a-z]+|[0-9]+|.", query)
        rng.shuffle(tokens)
        return "".join(tokens)
    if kind == 1:  # cut off, then random characters
        kept = query[: rng.randint(1, len(query) - 1)]
        return kept + _text(ALPHABET[1:], rng.randint(0, 4), rng)
    if kind == 2:  # one character changed, dropped or inserted
        place = rng.randrange(len(query))
        middle = rng.choice(["", rng.choice(ALPHABET[1:]), query[place] + rng.choice(ALPHABET[1:])])
        return query[:place] + middle + query[place + 1 :]
    if kind == 3:
        words = ["reverse", "sort", "max", "count", "in", "print", "a", "7", "12", "=?", "+", "abc"]
        return " ".join(rng.choice(words) for _ in range(rng.randint(1, 5)))
    return _text(ALPHABET[1:], rng.randint(1, 20), rng)
