"""Split an answer into its value and its unit: 42 cm^2, \\$18, 90^\\circ, 12.5\\%, 101_2."""

import re
from dataclasses import dataclass

from lsp_lightning.checks.words import CHANGES, FOREIGN_UNITS

_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "dm": "decimeter decimetre",
    "m": "meter metre", "km": "kilometer kilometre", "in": "inch inche", "ft": "foot feet",
    "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram gm", "kg": "kilogram kilo",
    "lb": "pound lbs", "oz": "ounce", "t": "tonne ton", "ms": "millisecond",
    "s": "second sec", "min": "minute", "h": "hour hr", "day": "", "week": "", "month": "",
    "year": "yr", "ml": "milliliter millilitre mL", "l": "liter litre L", "gal": "gallon",
    "mph": "mi/h miles/hour mi/hr", "km/h": "kmh kph km/hr kmph", "m/s": "m/sec", "ft/s": "",
    "acre": "", "hectare": "ha", "N": "newton", "J": "joule", "W": "watt", "kW": "kilowatt",
    "V": "volt", "A": "ampere amp", "Pa": "pascal", "Hz": "hertz", "mol": "mole", "K": "kelvin",
    "degree": "deg", "rad": "radian", "degC": "celsius", "degF": "fahrenheit",
    "$": "dollar usd buck", "cent": "penny pennie \u00a2", "EUR": "\u20ac euro eur",
    "GBP": "\u00a3 gbp", "JPY": "\u00a5 yen jpy cny yuan", "INR": "\u20b9 rupee rs inr",
    "am": "a.m", "pm": "p.m", "KRW": "\u20a9 \uc6d0",
    "RUB": "\u20bd \u0440\u0443\u0431 \u0440\u0443\u0431\u043b\u044c "
    "\u0440\u0443\u0431\u043b\u044f \u0440\u0443\u0431\u043b\u0435\u0439",
}  # fmt: skip
_UNITS = {name: unit for unit, names in _NAMES.items() for name in [unit, *names.split()]}
_UNITS |= {
    word: unit
    for unit, _, words in (line.partition(": ") for line in FOREIGN_UNITS.strip().splitlines())
    for word in words.split()
}
_UNITS |= {f"{name}s": unit for name, unit in list(_UNITS.items()) if len(name) > 2}
#: Written without \\text, these are letters of algebra: 5m may be a product.
_LETTERS = frozenset("mgshlLNJWVAKt")
_CHINESE_SQUARES = {"\u5e73\u65b9": "^2", "\u7acb\u65b9": "^3"}
_SQUARES = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
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
_EXPONENT = r"(?:\^\s*\{?\s*([23])\s*\}?)?"
#: A letter of any script, or a sign that belongs to one.
_LETTER = r"(?:[^\W\d_]|[\u0900-\u0dff\u0e00-\u0eff])"
_LAST_TEXT = re.compile(
    rf"(.*?\S){_GAP}{_TEXT}\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}{_EXPONENT}{_GAP}", re.DOTALL
)
_LAST_WORDS = re.compile(
    rf"(.*[0-9}})!\]])({_GAP})"
    rf"((?:{_LETTER}|[\u00a2\u00a3\u00a5\u20ac\u20b9\u20bd\u20a9]|\\\$|(?<=[^\W\d_]|[ ])[ ./])+)"
    rf"{_EXPONENT}{_GAP}",
    re.DOTALL,
)
_CIRC = re.compile(
    rf"(.*?\S)\s*\^\s*\{{?\s*\\(?:circ|degree)\s*\}}?{_GAP}(?:(?:{_TEXT})?\{{?([CF])\}}?)?"
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
    sure: bool = True
    """False if the unit may be a variable: 5m."""


def quantity(content: str) -> Quantity:
    """Split the content of a box. Words after a number that are not units are dropped."""
    content = _BASE_TEN.sub(r"\1", content.strip())
    if match := _BASE.fullmatch(content):
        return Quantity(match[1].lstrip("0").upper() or "0", f"base {match[2] or _BASES[match[3]]}")
    content = _IN_BASE.sub(_in_tens, content)
    if not _BRACKET.search(content) and len(parts := _LIST.split(content)) > 1:
        items = [quantity(part) for part in parts]
        if items[0].unit not in ("", "%") and len({item.unit for item in items}) == 1:
            return Quantity(", ".join(item.value for item in items), items[0].unit)
        return Quantity(content)
    if match := _MONEY.fullmatch(content):
        unit = _UNITS.get(match[2].strip("\\.").lower(), "") or _UNITS[match[2]]
        rest = quantity(match[3])
        return Quantity(
            match[1] + rest.value, unit if rest.unit in ("", unit) else f"{unit} {rest.unit}"
        )
    if match := _PERCENT.fullmatch(content):
        return Quantity(match[1], "%")
    if match := _CIRC.fullmatch(content):
        return Quantity(match[1], f"deg{match[2]}" if match[2] else "degree")
    return _worded(content)


def _worded(content: str) -> Quantity:
    """An answer whose unit is a word, in \\text{} or after a number."""
    if match := _LAST_TEXT.fullmatch(content):
        value, words, exponent, apart, text = match[1], match[2], match[3], True, True
    elif match := _LAST_WORDS.fullmatch(content):
        value, words, exponent, apart, text = match[1], match[3], match[4], bool(match[2]), False
    else:
        return Quantity(content)
    plain = re.sub(r"~|\\[,;:! ]?|\s+", " ", words).strip(" .,")
    unit = _unit(plain) if not exponent else f"{_unit(plain)}^{exponent}" * bool(_unit(plain))
    numeric = _NUMERIC.fullmatch(value) is not None and any(c.isdigit() for c in value)
    if unit and (text or len(plain) > 1 or plain in _LETTERS or not plain.isalpha()):
        if not text and not numeric:
            return Quantity(content)  # 2x cm without \text may be a product
        sure = text or len(plain) > 1 or apart
        if not sure and not _ONE_NUMBER.fullmatch(value):
            return Quantity(content)
        return Quantity(_clock(value), unit, sure)
    tokens = re.findall(rf"{_LETTER}+", plain)
    long = all(len(t) > 2 or not t.isascii() or t.lower() in _SHORT or t in _UNITS for t in tokens)
    plainly = (text or apart or not plain.isascii()) and long and not re.search(r"[0-9]", plain)
    if numeric and tokens and plainly and not (_LOGIC.search(plain) or CHANGES.search(plain)):
        return Quantity(
            value, next((u for u in map(_unit, map(str.lower, tokens)) if u and len(u) > 1), "")
        )
    return Quantity(content)


def is_unit(words: str) -> bool:
    """Whether words name a unit: "square centimeters"."""
    return _unit(words) != ""


def _clock(value: str) -> str:
    """3:05 as a pair, because a colon divides."""
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{2})", value)
    return f"({match[1]},{match[2]})" if match else value


def _unit(words: str) -> str:
    """The unit that words name: "square centimeters" is cm^2; "" if they name none."""
    tokens = words.replace(" per ", "/").replace("$", " $ ").split()
    power = ""
    if tokens and (square := _SQUARES.get(tokens[0].lower())):
        power, tokens = square, tokens[1:]
    elif tokens and (square := _CHINESE_SQUARES.get(tokens[0][:2])):
        power, tokens = square, [tokens[0][2:], *tokens[1:]]
    elif len(tokens) == 2 and tokens[1].lower() in ("squared", "cubed"):
        power, tokens = "^2" if tokens[1].lower() == "squared" else "^3", tokens[:1]
    elif len(tokens) == 2 and tokens[0].lower() in ("degrees", "degree"):
        tokens = tokens[1:]
    if len(tokens) == 2 and (inverse := re.fullmatch(r"(.+?)\^\{?-([0-9])\}?", tokens[1])):
        tokens = [f"{tokens[0]}/{inverse[1]}" + f"^{inverse[2]}" * (inverse[2] != "1")]
    if len(tokens) != 1:
        return ""
    parts = [_named(part) for part in tokens[0].strip(".").split("/")]
    joined = "/".join(parts) if all(parts) else ""
    known = _UNITS.get(tokens[0]) or _UNITS.get(joined, joined)
    return f"{known}{power}" if known else ""


def _named(word: str) -> str:
    """The unit of a word, which may have an exponent."""
    word = re.sub(r"^([a-z]{1,2})([23])$", r"\1^\2", word)  # cm2
    name, _, exponent = word.partition("^")
    unit = _UNITS.get(name) or (_UNITS.get(name.lower(), "") if len(name) > 1 else "")
    exponent = exponent.strip("{}")
    return f"{unit}^{exponent}" if unit and exponent else unit


def _in_tens(match: re.Match[str]) -> str:
    """A number in another base within an answer, in base ten; other subscripts stay as they are."""
    base = int(match[2] or match[3])
    try:
        return str(int(match[1], base)) if 2 <= base <= 36 else match[0]
    except ValueError:
        return match[0]
