"""Units in one spelling: "km/h", "kilometers per hour" and ``km h^{-1}`` are the same unit.

Names, prefixes and sizes of units come from pint. This module adds money, a few words that pint
does not know, and units in other languages.
"""

import re
import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from lsp_lightning.checks.words import FOREIGN_UNITS

if TYPE_CHECKING:
    from pint import UnitRegistry

#: Units that equal themselves alone, with their names.
_OWN = {
    "degree": "degrees deg degs", "degC": "celsius centigrade", "degF": "fahrenheit",
    "unit": "units", "cent": "cents penny pennies pence \u00a2",
    "$": "dollar dollars usd buck bucks", "EUR": "\u20ac euro euros eur",
    "GBP": "\u00a3 gbp quid", "JPY": "\u00a5 yen jpy cny yuan rmb",
    "INR": "\u20b9 rupee rupees rs inr", "KRW": "\u20a9 \uc6d0 krw won",
    "RUB": "\u20bd \u0440\u0443\u0431 \u0440\u0443\u0431\u043b\u044c "
    "\u0440\u0443\u0431\u043b\u044f \u0440\u0443\u0431\u043b\u0435\u0439",
    "am": "", "pm": "", "ppb": "", "jiao": "\u89d2",
    "kopek": "\u043a\u043e\u043f\u0435\u0435\u043a",
    "peso": "pesos", "dime": "dimes", "nickel": "nickels",
}  # fmt: skip
_OWN_NAMES = {name: unit for unit, names in _OWN.items() for name in [unit, *names.split()]}
#: Other spellings -> pint's.
_SPELLINGS = {
    "gm": "g", "gms": "g", "kilo": "kg", "kilos": "kg", "kgs": "kg", "cms": "cm", "kms": "km",
    "mls": "ml", "inche": "inch", "kph": "km/h", "kmph": "km/h", "kmh": "km/h",
    "kilogramme": "kg", "kilogrammes": "kg", "gramme": "g", "grammes": "g", "moles": "mole",
    "amp": "ampere", "amps": "ampere", "mpg": "mile/gallon", "rev": "revolution",
    "ltr": "liter", "lit": "liter", "ton": "tonne", "tons": "tonne",
    "kilohm": "kiloohm", "kohm": "kiloohm", "Mohm": "megaohm", "mohm": "milliohm",
    "KM": "km", "CM": "cm", "MM": "mm", "KG": "kg", "ML": "ml",
} | {
    word: unit
    for unit, _, words in (line.partition(": ") for line in FOREIGN_UNITS.strip().splitlines())
    for word in words.split()
}  # fmt: skip
#: Letters that are units; pint's others are mostly constants: c, e, h, k.
_LETTERS = frozenset("mgshlLNJWVAKtCFTHdGSB\u00c5\u03a9")
#: Words that pint knows and that are not meant as units: the circle's constant, 100 square metres.
_NOT_UNITS = frozenset(
    ["pi", "are", "at", "as", "us", "point", "points", "count", "counts", "total", "fifth"]
) | {"fifths", "quarter", "quarters"}
_POWERS = {
    "square": 2, "sq": 2, "cubic": 3, "cu": 3, "\u5e73\u65b9": 2, "\u7acb\u65b9": 3,
    "squared": 2, "cubed": 3,
}  # fmt: skip
#: Chinese writes these without a space before the unit.
_JOINED_POWERS = ("\u5e73\u65b9", "\u7acb\u65b9")
_LONGEST = 30
_TOKEN = re.compile(r"\^\s*\{?\s*-?[0-9]\s*\}?|[/*()]|[^\s/*()^]+")
_DEGREES = re.compile(r"deg(?:ree)?s?_(c|f)(?:elsius|ahrenheit)?", re.IGNORECASE)


#: Two threads would each build a registry, and units of two registries cannot be multiplied.
_LOCK = threading.Lock()


def is_unit(words: str) -> bool:
    """Whether words name a unit: "square centimeters"."""
    return unit(words) != ""


@lru_cache(maxsize=1024)
def unit(words: str) -> str:
    """The unit that words name, in one spelling; "" if they name none.

    Args:
        words: without LaTeX: "kg m/s^2", "square feet", "m s^{-1}".
    """
    words = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", words.replace(" per ", "/"))
    words = re.sub(r"-(?![0-9])", " ", words).replace("$", " $ ").replace("\u03bc", "\u00b5")
    tokens = _TOKEN.findall(words)
    with _LOCK:
        found = _product(tokens) if 0 < len(tokens) <= _LONGEST else None
        if found is None:
            return ""
        size, base = _registry().get_root_units(found)
    spelled = f"{size:.10g} {base}"
    own = re.fullmatch("1 own_([0-9]+)", spelled)
    return list(_OWN)[int(own[1])] if own else spelled


def _product(tokens: list[str]) -> Any:
    """The product of units, read from left to right; None if a word is no unit."""
    product: Any = None
    last: Any = None
    sign, ahead, inside = 1, 0, False  # of the next unit; all in a bracket have the same sign
    while tokens:
        token, *tokens = tokens
        word = token.lower().strip(".")
        if token == "*":
            continue
        if token in "/()":
            inside = token == "("
            sign = -1 if token == "/" else sign if inside else 1
        elif word in ("squared", "cubed") or token[0] == "^":
            if last is None:
                return None
            power = _POWERS[word] if word in _POWERS else int(token.strip("^{} "))
            product, last = product * last ** (power - 1), None
        elif word in _POWERS:
            ahead = _POWERS[word]
        else:
            found = _named(f"{token}_{tokens[0]}") if tokens and tokens[0][0].isalpha() else None
            tokens = tokens[1:] if found is not None else tokens
            found = _named(token) if found is None else found
            if found is None:
                return None
            last = found**sign
            product = last ** (ahead or 1) if product is None else product * last ** (ahead or 1)
            sign, ahead = sign if inside else 1, 0
    return None if ahead or sign < 0 else product


def _named(word: str) -> Any:
    """The unit that one word names, which may end in an exponent: cm2. None if it names none."""
    word = _DEGREES.sub(lambda match: f"deg{match[1].upper()}", word.strip("."))
    if not 0 < len(word) <= _LONGEST or word.lower() in _NOT_UNITS:
        return None
    if match := re.fullmatch(r"([^\W\d_]{1,2})([23])", word):
        found = _named(match[1])
        return None if found is None else found ** int(match[2])
    for square in _JOINED_POWERS:
        if word.startswith(square) and (found := _named(word.removeprefix(square))) is not None:
            return found ** _POWERS[square]
    lower = word.lower()
    word = (
        _SPELLINGS.get(word)
        or _SPELLINGS.get(lower)
        or _SPELLINGS.get(lower.removesuffix("s"), word)
    )
    own = _OWN_NAMES.get(word) or _OWN_NAMES.get(word.lower())
    if own:
        return _registry().Unit(f"own_{list(_OWN).index(own)}")
    if "/" in word:
        over, under = map(_named, word.split("/"))
        return None if over is None or under is None else over / under
    if len(word) == 1:
        return _of_pint(word) if word in _LETTERS else None
    found = _of_pint(word)
    return _of_pint(word.lower()) if found is None else found


def _of_pint(word: str) -> Any:
    """A unit of pint by its name, symbol or plural, perhaps with a prefix; None for no unit."""
    registry = _registry()
    for prefix, name, _ in registry.parse_unit_name(word):
        whole = prefix + name
        # pint adds plurals to symbols too: cats would be hundredths of an atmosphere
        plural = word.endswith("s") and word not in (f"{whole}s", str(registry.get_symbol(whole)))
        return None if prefix and plural and len(word) < 6 else registry.Unit(whole)
    return None


@cache
def _registry() -> "UnitRegistry[Any]":
    """All units. Pint is imported when the first unit is met, because that takes half a second."""
    from pint import UnitRegistry

    registry: UnitRegistry[Any] = UnitRegistry(cache_folder=None)
    for number, _ in enumerate(_OWN):
        registry.define(f"own_{number} = [own_{number}]")
    return registry
