"""Normalise mathematical notation: LaTeX with ASCII digits and plain numbers.

:func:`to_latex` replaces Unicode characters in a whole text. :func:`plain_numbers` and
:func:`plain_content` then work on the answer alone. None of them computes anything: a value that
differs before differs afterwards.
"""

import re
import unicodedata

from lsp_lightning.checks.layout import readable, without_layout
from lsp_lightning.checks.words import MULTIPLE, MULTIPLES

_SYMBOLS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2019\u02bc\u2032", "'"),
    "\u2033": "''", "\u2236": ":", "\u2022": r"\cdot ", "\u02da": r"^\circ ",
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u3010\u3011", " "),
    **dict.fromkeys("\u00a0\u2007\u2009\u200a\u202f\u2008\u2005\u2006", " "),
    "\u00d7": r"\times ", "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u2219": r"\cdot ",
    "\u00f7": "/", "\u2215": "/", "\u2044": "/", "\u00b1": r"\pm ", "\u2213": r"\mp ",
    "\u2264": r"\le ", "\u2a7d": r"\le ", "\u2265": r"\ge ", "\u2a7e": r"\ge ",
    "\u2260": r"\ne ", "\u2248": r"\approx ", "\u221e": r"\infty ", "\u2026": r"\ldots ",
    "\u22ef": r"\cdots ", "\u2208": r"\in ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}",
    "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}", "\u2102": r"\mathbb{C}",
    "\u00b0": r"^\circ ", "\u00ba": r"^\circ ", "\u2103": r"^\circ C", "\u2109": r"^\circ F",
    "\u066a": "%", "\u066b": ".", "\u066c": ",", "\u3002": ". ", "\u0964": ". ", "\uff61": ". ",
    "\u060c": ",", "\u3001": ", ",
}  # fmt: skip
_GREEK = {
    "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03b3": r"\gamma ", "\u03b4": r"\delta ",
    "\u03b5": r"\epsilon ", "\u03b6": r"\zeta ", "\u03b7": r"\eta ", "\u03b8": r"\theta ",
    "\u03bb": r"\lambda ", "\u03bc": r"\mu ", "\u03c0": r"\pi ", "\u03c1": r"\rho ",
    "\u03c3": r"\sigma ", "\u03c4": r"\tau ", "\u03c6": r"\phi ", "\u03c9": r"\omega ",
    "\u0394": r"\Delta ", "\u03a3": r"\Sigma ", "\u03a9": r"\Omega ",
}  # fmt: skip
_SCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f\u1d62\u2093"
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u208a\u208b\u2099",
    "0123456789+-nix0123456789+-n",
)
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_SUBSCRIPT = re.compile("[\u2080-\u208b\u2093\u2099\u1d62]+")
_UPPER = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_SLASHED = re.compile(f"(?<![{_UPPER}])([{_UPPER}]++)\u2044([\u2080-\u2089]+)")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
#: A root sign with what it covers: brackets, a number or a letter.
_ROOT = re.compile(
    "([\u221a\u221b\u221c])\\s*(?:\\(([^()]*)\\)|\\{([^{}]*)\\}|([0-9]+(?:\\.[0-9]+)?|\\w))"
)
_ROOTS = {"\u221a": r"\sqrt", "\u221b": r"\sqrt[3]", "\u221c": r"\sqrt[4]"}
#: Greek letters are symbols unless they stand in a word.
_GREEK_SYMBOL = re.compile(
    f"(?<![\u0370-\u03ff\u1f00-\u1fff])[{''.join(_GREEK)}](?![\u0370-\u03ff\u1f00-\u1fff])"
)

_SPACE = r"(?:\\[,;:! ]|~|\s|\\(?:thinspace|quad)(?![a-zA-Z]))"
#: 1 000 000 with any space, 1,\!000, 1{,}000 and 1'000; not 1 000/3, which may be a mixed number.
_GROUPED = re.compile(
    rf"(?<![0-9.,'])[1-9][0-9]{{0,2}}(?:(?:{_SPACE}+|\{{,\}}|,(?:\\!)+|')[0-9]{{3}})+(?![0-9'/])"
)
#: 5\u20137 are the numbers from 5 to 7; a minus is another character.
_RANGE = re.compile("(?<=[0-9])[\u2013\u2014](?=[0-9])")
_NOT_DIGITS = re.compile("[^0-9]+")
_DECIMAL_COMMA = re.compile(r"([0-9])\{,\}(?=[0-9])")
#: A whole answer in the notation of a country: sign, digits in groups, decimals.
_INDIAN = re.compile(r"([-+]?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})(\.[0-9]+)?")
_DOTTED = re.compile(
    r"([-+]?[0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)|([-+]?[0-9]{1,3}(?:\.[0-9]{3}){2,})"
)
_SPACED = re.compile(rf"([-+]?[0-9]{{1,3}}(?:{_SPACE}+[0-9]{{3}})+),([0-9]+)")
_SCIENTIFIC = re.compile(
    r"(?<![a-zA-Z0-9_.\\{])([0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE]([-+]?[0-9]+)(?![a-zA-Z0-9.(^_{])"
)
_POWER_OF_TEN = re.compile(r"(?<![0-9.])10\^([-+]?[0-9]+)")

_WRAPPED = re.compile(
    r"\\(?:text|textrm|textit|textbf|mathrm|mathbf|mathit|mathsf|operatorname|bm|boldsymbol|mbox)\*?"
    r"\s*\{\s*([a-zA-Z]{1,6})\s*\}"
)
_FUNCTION = re.compile(
    "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log|exp|min|max|gcd|lcm|det"
)
_TEXT_PERCENT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{\s*(?:\\?%|percent)\s*\}")
_OLD_ROMAN = re.compile(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}")
_BUILDER = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|\||:|\\vert)\s*([^{}]*)\\\}"
)
_REPETEND = re.compile(r"([0-9]+)\.([0-9]*)\\(?:overline|bar|dot)\s*\{([0-9]+)\}")
_RECURRING = re.compile(r"([0-9]+)\.([0-9]*?)([0-9]{1,6}?)\3{2,}(?:\s*\\[lc]?dots|\.\.\.)")
_UNDERSCORED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:\\?_[0-9]{3})+")
_SCALE = re.compile(
    rf"(?<![0-9.,])([0-9]+(?:\.[0-9]+)?){_SPACE}*(\\text\s*\{{\s*)?({MULTIPLE})", re.IGNORECASE
)
_MARKED = re.compile(r"^(\*{1,3}|__|`)([^*_`]+)\1$")
_WRAPPED_COMMAND = re.compile(r"\\(?:mathrm|mathbf|mathit|bm|boldsymbol)\s*\{\s*(\\[a-zA-Z]+)\s*\}")
#: ]1, 2[ is the open interval in French.
_FRENCH = re.compile(r"([\[\]])([^\[\](),;]+[,;][^\[\](),;]+)([\[\]])")
_GAP_COMMAND = re.compile(r"\\;")
_SEMICOLON = re.compile(r"(?<!\\);")
_PAIR = re.compile(r"\([^();]*,[^();]*\)")
_RATIO = re.compile(r"[1-9][0-9.]*+(?:\s*:\s*[0-9.]++){2,}")
_ABOUT = re.compile(
    r"^(?:\\(?:approx|simeq)(?![a-zA-Z])|\\text\s*\{\s*(?:about|approximately|approx\.?)\s*\})\s*"
)
_ANGLES = re.compile(r"\\([lr])angle(?![a-zA-Z])")
_ASIDE = re.compile(r"(?<=[0-9])\s*\(([a-zA-Z ]{3,})\)$")
_RUPEES = re.compile(r"(?<=[0-9])/[-=]$")
#: What the letter in 2k\pi may be, and what stands before that.
_INTEGERS = re.compile(r"\s*\\mathbb\s*\{?[ZN]\}?\)?\s*")
_BEFORE_DOMAIN = re.compile(r"(?:,|\\quad|\\text\s*\{[^{}]{0,20}\}|\\[ ,;:]|\s|\()+$")
_FOREIGN_FUNCTION = re.compile(r"\\(arctg|ctg|tg|lg)(?![a-zA-Z])")
_FUNCTIONS = {"tg": r"\tan ", "ctg": r"\cot ", "arctg": r"\arctan ", "lg": r"\log_{10} "}
_PYTHON_POWER = re.compile(r"\s*\*\*\s*([-+]?[0-9.]+|[a-zA-Z])")
_NEGATION = re.compile(r"\\(?:neg|lnot)(?![a-zA-Z])")
_MIXED = re.compile(r"([-+]?[0-9]+)\s+([0-9]+)/([0-9]+)")
_DOTS = re.compile(r"\\(?:ldots|cdots|dots[cbmio]?)(?![a-zA-Z])|\.\.\.")


def to_latex(text: str) -> str:
    """The text with Unicode mathematics as LaTeX, and digits of all scripts as 0 to 9."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_fraction, _RANGE.sub(r"\\text{ to }", text))
    text = _SLASHED.sub(lambda m: rf"\frac{{{m[1]}}}{{{m[2]}}}".translate(_SCRIPTS), text)
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{m[0].translate(_SCRIPTS)}}}", text)
    text = _SUBSCRIPT.sub(lambda m: f"_{{{m[0].translate(_SCRIPTS)}}}", text)
    text = _GREEK_SYMBOL.sub(lambda m: _GREEK[m[0]], text)
    text = "".join(_SYMBOLS.get(c) or _digit(c) for c in text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # marks of direction
    return _ROOT.sub(lambda m: f"{_ROOTS[m[1]]}{{{m[2] or m[3] or m[4] or ''}}}", text)


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _fraction(match: re.Match[str]) -> str:
    upper, lower = unicodedata.normalize("NFKC", match[0]).split("\u2044")
    return f"\\frac{{{upper}}}{{{lower}}}" if lower else match[0]


def plain_content(content: str) -> str:
    """The content of a box with its notation normalised; empty stays empty."""
    content = without_layout(_OLD_ROMAN.sub(r"\\mathrm{\1}", content))
    content = _TEXT_PERCENT.sub(r"\\%", readable(content))
    content = _WRAPPED.sub(_unwrapped, content)
    content = _NEGATION.sub(r"\\text{not}", _BUILDER.sub(r"\2", content))
    content = _FRENCH.sub(_interval, _WRAPPED_COMMAND.sub(r"\1 ", content))
    content = _PYTHON_POWER.sub(r"^{\1}", _MARKED.sub(r"\2", content.strip()))
    content = _SCALE.sub(lambda m: rf"{m[1]}\times{MULTIPLES[m[3].lower()]}{m[2] or ''}", content)
    content = _ASIDE.sub(r"\\text{ \1}", _RUPEES.sub("", _ABOUT.sub("", content)))
    content = _FOREIGN_FUNCTION.sub(lambda m: _FUNCTIONS[m[1]], content)
    content = _ANGLES.sub(lambda m: "(" if m[1] == "l" else ")", content)
    content = _without_domain(content)
    content = _semicolons(content)
    content = _ratio(match) if (match := _RATIO.fullmatch(content)) else content
    content = _MIXED.sub(r"\1\\frac{\2}{\3}", content)
    content = _RECURRING.sub(_repeating, _REPETEND.sub(_repeating, content))
    return _listed_dots(plain_numbers(content.strip()))


def _interval(match: re.Match[str]) -> str:
    if match[1] == "[" and match[3] == "]":
        return match[0]
    return ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]")


def _semicolons(content: str) -> str:
    """[0,5; 1[ and 1,5; 2 with commas: where semicolons separate, a comma is a decimal one."""
    if ";" not in _GAP_COMMAND.sub("", content):
        return content
    if not _PAIR.search(content):
        content = re.sub(r"(?<=[0-9]),(?=[0-9])", ".", content)
    return _SEMICOLON.sub(",", content)


def _without_domain(content: str) -> str:
    """2k\\pi for "2k\\pi, k \\in \\mathbb{Z}"."""
    before, found, integers = content.rpartition("\\in")
    letter = before.rstrip()[-1:]
    if not (found and letter.islower() and _INTEGERS.fullmatch(integers)):
        return content
    value = _BEFORE_DOMAIN.sub("", before.rstrip()[:-1])
    used = re.search(rf"(?<![a-zA-Z\\]){letter}(?![a-zA-Z])", value)
    return value if used else content


def _ratio(match: re.Match[str]) -> str:
    """1:2:3 as a list in order that 2:4:6 equals; read from left to right it is 1/6."""
    first, *others = match[0].split(":")
    parts = (rf"\frac{{{other}}}{{{first}}}" for other in others)
    return f"(1,{','.join(parts)})"


def _unwrapped(match: re.Match[str]) -> str:
    """\\mathrm{e} is e, \\mathrm{ln} is \\ln; other words keep their wrapper."""
    word: str = match[1]
    if _FUNCTION.fullmatch(word):
        if match.end() == len(match.string):  # of nothing: \mathrm{min} are minutes
            return match[0]
        return f"\\{word} "
    if word in _FUNCTIONS:
        return _FUNCTIONS[word]
    symbol = len(word) == 1 and (word in "eiI" or not match[0].startswith(("\\text", "\\mathrm")))
    return f"{{{word}}}" if symbol else match[0]


def plain_numbers(content: str) -> str:
    """The content with numbers as 1234.5 and 1.6\\times10^{-19}, where their form is clear."""
    if re.fullmatch(r"[-+]?[0-9.]+\{,\}[0-9]+", content):
        content = content.replace("{,}", ",")
    if match := _SPACED.fullmatch(content):
        return f"{_joined(match[1])}.{match[2]}"
    if match := _DOTTED.fullmatch(content):
        return _joined(match[3]) if match[3] else f"{_joined(match[1])}.{match[2]}"
    if _UNDERSCORED.fullmatch(content):
        return _joined(content)
    if match := _INDIAN.fullmatch(content):
        return _joined(match[1]) + (match[2] or "")
    content = _GROUPED.sub(lambda match: _NOT_DIGITS.sub("", match[0]), content)
    content = _DECIMAL_COMMA.sub(r"\1.", content)
    content = _SCIENTIFIC.sub(r"\1\\times10^{\2}", content)
    return _POWER_OF_TEN.sub(r"10^{\1}", content)


def _joined(number: str) -> str:
    sign = number[0] if number[0] in "-+" else ""
    return sign + _NOT_DIGITS.sub("", number)


def _repeating(match: re.Match[str]) -> str:
    """0.1\\overline{6} and 0.1666... as a fraction."""
    whole, start, block = match[1], match[2], match[3]
    scale = 10 ** len(start)
    nines = 10 ** len(block) - 1
    upper = int(whole + start) * nines + int(block)
    return rf"\frac{{{upper}}}{{{scale * nines}}}"


def _listed_dots(content: str) -> str:
    """Keep the dots of 1, 2, ..., n as an item of a list in order: math-verify drops them."""
    content = re.sub(r"(?<=[0-9])\s*(?:\\ldots|\\dots|\.\.\.)\s*$", "", content)  # 3.14...
    if not _DOTS.search(content):
        return content
    content = _DOTS.sub(r"\\text{dots}", content)
    inner = re.sub(r"^\s*(?:\\\{|[(\[])|(?:\\\}|[)\]])\s*$", "", content)
    return f"({inner})" if "," in inner else content
