"""Split an answer into its value and its unit: 42 cm^2, \\$18, 90^\\circ, 12.5\\%, 101_2."""

import re
from dataclasses import dataclass

from lsp_lightning.checks.unit_names import is_unit, unit
from lsp_lightning.checks.words import CHANGES

#: Signs of money -> names of units.
_SIGNS = {
    "$": "$", "\u00a3": "GBP", "\u00a5": "JPY", "\u20ac": "EUR", "\u20b9": "INR", "USD": "$",
    "EUR": "EUR", "GBP": "GBP", "Rs": "INR",
}  # fmt: skip
#: Units of two letters that are no products of variables: 5 ab may be one.
_FAMILIAR = re.compile("[mcdk]m|in|ft|yd|mi|[mk]g|lb|oz|m[sl]|hr|k[WJ]|Pa|Hz|eV|[ap]m")
#: Words that change what an answer says; an answer with them is never cut.
_LOGIC = re.compile(
    r"\b(?:or|and|not|no|more|less|than|at|most|least|if|mod|modulo|base|to|from|is|are|of|over|for|"
    r"except|plus|minus|half|about|nor|but|unless|otherwise|hundred|thousand|million|billion|"
    r"trillion|dozen|dots)\b",
    re.IGNORECASE,
)

#: Short words that are not letters of a product.
_SHORT = frozenset(
    ["a", "an", "of", "in", "on", "by", "we", "he", "it", "so", "as", "my", "up", "sq", "cu"]
)

_TEXT = r"\\(?:text|textrm|textbf|textit|mathrm|mathbf|mathit|operatorname|mbox|hbox)\*?\s*"
_GAP = r"(?:\\[,;:! ]|~|\s)*"
#: A letter of any script, or a sign that belongs to one.
_LETTER = r"(?:[^\W\d_]|[\u0900-\u0dff\u0e00-\u0eff])"
_WORD = rf"{_LETTER}++(?:[23](?![0-9]))?"
_IN_TEXT = rf"{_TEXT}\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}"
#: What units are made of; anything else ends them.
_PIECE = re.compile(
    rf"(?P<text>{_IN_TEXT})|(?P<power>\^\s*(?:\{{\s*-?[0-9]\s*\}}|[0-9]))"
    rf"|(?P<times>\\cdot(?![a-zA-Z])|\*)|(?P<slash>/)|(?P<gap>(?:\\[,;:! ]|~|\s)+)"
    rf"|(?P<word>{_WORD}\.?|[\u00a2\u00a3\u00a5\u20ac\u20b9\u20bd\u20a9]|\\\$)"
    r"|\\[a-zA-Z]+|.",
    re.DOTALL,
)
_MOST_PIECES = 24
_TIMES_OR_GAP = re.compile(r"(?:\\[,;:! ]|~|\s|\*|\\cdot|\\times)+$")
_VALUE_END = re.compile(r"[\w)}\]!.|]$")
_OVER = re.compile(
    rf"\\[dt]?frac\s*\{{\s*{_IN_TEXT}\s*\}}\s*\{{\s*{_IN_TEXT}\s*\}}"
    rf"|(?<=[0-9}} ])\\[dt]?frac\s*\{{\s*({_LETTER}+)\s*\}}\s*\{{\s*({_LETTER}+)\s*\}}$"
)
_OHM = re.compile(
    rf"(?<=[0-9}})a-z])({_GAP})(?:{_TEXT}\{{\s*([kMm])\s*\}}|([kMm]))?\s*\\Omega(?![a-zA-Z])\s*"
)
_MICRO = re.compile(rf"\\mu\s*(?:{_TEXT}\{{\s*({_LETTER}+)\s*\}}|({_LETTER})(?!{_LETTER}))$")
_ANGSTROM = re.compile(r"\\(?:AA|mathring\s*\{?\s*(?:\\(?:text|mathrm)\s*\{)?A\}*)\s*$")
_TEMPERATURE = re.compile(
    rf"\^\s*\{{?\s*\\(?:circ|degree)\s*\}}?{_GAP}(?:{_TEXT})?\{{?([CF])\}}?\s*$"
)
_CIRC = re.compile(rf"(.*?\S)\s*\^\s*\{{?\s*\\(?:circ|degree)\s*\}}?{_GAP}")
_SI = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}|\\(?:si|unit)\s*\{([^{}]*)\}")
_ONE_DOLLAR = re.compile(r"(?<=[0-9}])\$(?=\s*[a-zA-Z\\])")  # $5$ cm without its first
_DOLLARS = re.compile(r"\$([^$]+)\$(\s*[^$]+)")
_LAST_TEXT = re.compile(rf"(.*?\S){_GAP}{_IN_TEXT}{_GAP}", re.DOTALL)
_LAST_WORDS = re.compile(
    rf"(.*[0-9}})!\]])({_GAP})((?:{_LETTER}|(?<=[^\W\d_]|[ ])[ ./])+){_GAP}", re.DOTALL
)
_PERCENT = re.compile(rf"([^%]*?\S){_GAP}(?:\\?%|\b(?:percent|per cent|pct)\b){_GAP}")
_MONEY = re.compile(
    rf"([-+]?){_GAP}(?:{_TEXT}\{{)?\s*(\\\$|\$|[\u00a3\u00a5\u20ac\u20b9]|USD|EUR|GBP|Rs\.?(?![a-z]))\s*\}}?"
    rf"{_GAP}([-+]?[0-9.\\].*)"
)
_BASE = re.compile(
    r"\(?([0-9][0-9A-Za-z]*|[A-Za-z]+[0-9][0-9A-Za-z]*)\)?\s*_\s*"
    r"(?:\{?\s*\(?([0-9]{1,2})\)?\s*\}?"
    rf"|\{{?\s*(?:{_TEXT}\{{)?\s*(two|three|four|five|six|seven|eight|nine|ten|hex)\s*\}}?\s*\}}?)"
)
_BASE_TEN = re.compile(r"(?<![0-9A-Za-z])([0-9]+)_(?:10(?![0-9])|\{\s*10\s*\})")
_IN_BASE = re.compile(r"(?<![0-9A-Za-z_.^{])([0-9]+)_(?:\{\s*([0-9]{1,2})\s*\}|([2-9])(?![0-9]))")
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "hex": "16",
}  # fmt: skip
_LIST = re.compile(
    r"(?<!\\),(?![0-9])\s*|\s*(?:,\s*)?(?:\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*"
)
_BRACKET = re.compile(r"[()\[\]]|\\\{")
_ONE_NUMBER = re.compile(r"[-+]?(?:[0-9.]+|\\[dt]?frac\{[0-9]+\}\{[0-9]+\}|[0-9]+/[0-9]+)")
#: A value without variables. Only after such a value a word that is not a unit is dropped.
_NUMERIC = re.compile(
    r"(?:[-+*/^(){}\[\]0-9.,:!\s]|\\(?:[dtc]?frac|sqrt|pi|cdot|times|left|right|pm|infty|[,;:! ])"
    r"(?![a-zA-Z]))+"
)


@dataclass(frozen=True)
class Quantity:
    """An answer's value with its unit."""

    value: str
    """LaTeX without the unit."""
    unit: str = ""
    """The unit in one spelling ("cm^2", "%", "base 2"), or ""."""
    product: str = ""
    """The whole, if the unit may be variables: 5m; else ""."""


def quantity(content: str) -> Quantity:
    """Split the content of a box. Words after a number that are not units are dropped."""
    content = _BASE_TEN.sub(r"\1", content.strip())
    if match := _BASE.fullmatch(content):
        return Quantity(match[1].lstrip("0").upper() or "0", f"base {match[2] or _BASES[match[3]]}")
    content = _with_text_units(_IN_BASE.sub(_in_tens, content))
    if not _BRACKET.search(content) and len(parts := _LIST.split(content)) > 1:
        items = [quantity(part) for part in parts]
        if items[0].unit not in ("", "%") and len({item.unit for item in items}) == 1:
            return Quantity(", ".join(item.value for item in items), items[0].unit)
        return Quantity(content)
    if match := _MONEY.fullmatch(content):
        money = _SIGNS[match[2].strip("\\.") or "$"]
        rest = quantity(match[3])
        return Quantity(
            match[1] + rest.value, money if rest.unit in ("", money) else f"{money} {rest.unit}"
        )
    if match := _PERCENT.fullmatch(content):
        return Quantity(match[1], "%")
    if match := _CIRC.fullmatch(content):
        return Quantity(match[1], "degree")
    return _with_unit(content) or _with_words(content)


def _with_text_units(content: str) -> str:
    """The content with units that have notations of their own as words."""
    content = _DOLLARS.sub(r"\1\2", content) if content.count("$") == 2 else content
    content = _SI.sub(lambda m: rf"{m[1] or ''}\text{{ {m[2] or m[3]}}}", content)
    content = _ONE_DOLLAR.sub("", _OVER.sub(_fraction, content))
    content = _OHM.sub(lambda m: rf"{m[1]}\text{{{m[2] or m[3] or ''}ohm}}", content)
    content = _MICRO.sub(lambda m: rf"\text{{u{m[1] or m[2]}}}", content)
    content = _ANGSTROM.sub(r"\\text{angstrom}", content)
    return _TEMPERATURE.sub(r"\\text{deg\1}", content)


def _fraction(match: re.Match[str]) -> str:
    over, under, letters, letters_under = match.groups()
    return rf"\text{{ {over}/({under})}}" if over else f"{letters}/{letters_under}"


def _with_unit(content: str) -> Quantity | None:
    """The longest end of the content that names a unit, and what stands before it."""
    pieces = [*_PIECE.finditer(content)]
    start = len(pieces)
    while start and pieces[start - 1].lastgroup and len(pieces) - start < _MOST_PIECES:
        start -= 1
    for first in range(start, len(pieces)):
        unit_pieces = pieces[first:]
        value = _TIMES_OR_GAP.sub("", content[: unit_pieces[0].start()])
        words = [piece["word"] for piece in unit_pieces if piece["word"]]
        in_text = any(piece["text"] for piece in unit_pieces)
        starts = unit_pieces[0].lastgroup in (("text", "slash") if in_text else ("word",))
        starts = starts and _VALUE_END.search(value) is not None
        name = unit("".join(map(_plain, unit_pieces))) if starts else ""
        if not name:
            continue
        if in_text:
            return Quantity(_clock(value), name)
        if not _is_numeric(value):
            return None  # 2x cm without \text may be a product
        letters = len(words) > 1 and max(map(len, words)) == 1  # 2 m g h
        letters = letters and not any(piece["slash"] for piece in unit_pieces)
        apart = pieces[first - 1].lastgroup == "gap" and not letters
        if apart or any(map(_is_word, words)):
            return Quantity(_clock(value), name)
        return Quantity(value, name, content) if _ONE_NUMBER.fullmatch(value) else None
    return None


def _is_word(word: str) -> bool:
    """Whether letters are no product of variables."""
    return len(word) > 2 or not word.isascii() or bool(_FAMILIAR.fullmatch(word))


def _with_words(content: str) -> Quantity:
    """A number without the words after it, if they do not change it: 3 apples, 5 cm long."""
    if match := _LAST_TEXT.fullmatch(content):
        value, words, apart = match[1], match[2], True
    elif match := _LAST_WORDS.fullmatch(content):
        value, words, apart = match[1], match[3], bool(match[2]) or not match[3].isascii()
    else:
        return Quantity(content)
    tokens = re.findall(rf"{_LETTER}+", words)
    long = all(len(t) > 2 or not t.isascii() or t.lower() in _SHORT or is_unit(t) for t in tokens)
    plain = apart and tokens and long and not re.search(r"[0-9]", words)
    number = _is_numeric(value) and _VALUE_END.search(value)
    if not (plain and number) or _LOGIC.search(words) or CHANGES.search(words):
        return Quantity(content)
    named = (unit(token.lower()) for token in tokens if len(token) > 1)
    return Quantity(value, next(filter(None, named), ""))


def _plain(piece: re.Match[str]) -> str:
    """A piece of a unit without LaTeX."""
    if piece["text"]:
        return _words(piece[2])
    kinds = {"times": "*", "gap": " ", "slash": "/", "power": piece[0], "word": f"{piece[0]} "}
    return kinds.get(piece.lastgroup or "", "").replace("\\$", "$")


def _words(text: str) -> str:
    """The words in \\text{}, without LaTeX."""
    text = re.sub(r"\\mu(?![a-zA-Z])\s*", "u", re.sub(r"\\cdot(?![a-zA-Z])", "*", text))
    return " " + re.sub(r"~|\\[,;:! ]?|\s+", " ", text) + " "


def _is_numeric(value: str) -> bool:
    return _NUMERIC.fullmatch(value) is not None and any(c.isdigit() for c in value)


def _clock(value: str) -> str:
    """3:05 as a pair, because a colon divides."""
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", value)
    return f"({match[1]},{match[2]})" if match else value


def _in_tens(match: re.Match[str]) -> str:
    """A number in another base within an answer, in base ten; other subscripts stay as they are."""
    base = int(match[2] or match[3])
    try:
        return str(int(match[1], base)) if 2 <= base <= 36 else match[0]
    except ValueError:
        return match[0]
