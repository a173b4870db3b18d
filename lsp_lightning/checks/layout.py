"""Remove LaTeX that changes how an answer looks, and rewrite what sympy would misread.

sympy drops primes and transposes, so f'(2) would be f(2), and reads dy/dx as a product. Names that
it keeps apart take their place here: f_{prime}, A_{turned}, y_{dx}.
"""

import re

_STYLE = re.compile(
    r"\\(?:textcolor|color)\s*\{[a-zA-Z]+\}"
    r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle|"
    r"limits|nolimits|bf|rm|it|sf|tt|therefore|because|blacksquare|qed|checkmark|nonumber|hfill|centering|"
    r"(?:math)?strut)(?![a-zA-Z])"
    r"|\\[hv]space\*?\s*\{[^{}]*\}|\\(?:[hv]?phantom|tag|label)\s*\{[^{}]*\}"
    r"|\\(?:[bB]igg?[lrm]?)(?=\s*(?:[()\[\]|/]|\\[{}|lr]))"
)
#: A number in a style of its own: \\mathbf{5}, \\underline{42}.
_STYLED_NUMBER = re.compile(
    r"\\(?:bm|boldsymbol|mathbf|mathsf|mathit|mathrm|mathtt|mathcal|texttt|textbf|textit|textsf|text|"
    r"underline|emph|ensuremath|mbox|hbox)\s*\{\s*([-+]?[0-9]+(?:[.,][0-9]+)*)\s*\}"
)
_BARE_STYLE = re.compile(
    r"\\(?:mathrm|mathbf|mathsf|mathit|bm|boldsymbol)\s+([a-zA-Z0-9])(?![a-zA-Z])"
)
#: \\text{5 apples} and \\text{The answer is }5.
_ALL_TEXT = re.compile(r"\\text\s*\{\s*([-+]?[0-9][0-9.,]*)(\s+[^{}0-9]+|\\?%)\}")
_NOTHING = re.compile(r"\\text\s*\{\s*[.!]?\s*\}$|\^\{\s*\}")
_ORDINAL_WORD = re.compile(r"([0-9]+)(?:st|nd|rd|th)")
_ARRAY = re.compile(
    r"\\left\s*[(\[]\s*\\begin\{array\}\s*\{[lcr|]*\}(.*)\\end\{array\}\s*\\right\s*[)\]]",
    re.DOTALL,
)
_CALLED_ANSWER = re.compile(
    r"^\\text\s*\{\s*(?:the\s+)?(?:final\s+)?(?:answer|result)\s*(?:is)?\s*[:=]?\s*\}\s*",
    re.IGNORECASE,
)
_ORDINAL = re.compile(
    r"(?<=[0-9])\^\s*\{?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?|(?:st|nd|rd|th)\s*\})"
)
_ALIGNED = re.compile(
    r"\\begin\{(aligned|align\*?|gathered|split|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL
)
_CASES = re.compile(
    r"(?:\\left\s*\\\{)?\\begin\{(cases|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}(?:\\right\s*\.)?",
    re.DOTALL,
)
_COLUMN = re.compile(
    r"\\begin\{([pb]?matrix)\}([^&{}]*(?:\{[^&]*\}[^&{}]*)*)\\end\{\1\}", re.DOTALL
)

_PRIME = re.compile(r"([a-zA-Z])\s*(?:\^\s*\{?\s*((?:\\prime\s*)+)\}?|('+)(?![a-zA-Z]))")
_TRANSPOSED = re.compile(
    r"(?<=[A-Z])\s*\^\s*(?:T(?![a-z])|\\top|\\intercal|"
    r"\{\s*(?:T|\\top|\\intercal|\\(?:mathrm|text|mathsf)\s*\{?\s*T\s*\}?)\s*\})"
)
_INVERSE = re.compile(r"(?<![a-zA-Z\\])([f-h])\s*\^\s*\{\s*-1\s*\}(?=\s*(?:\\left\s*)?\()")
_ORDER = r"(?:\^\s*\{?\s*([2-9n])\s*\}?)?\s*"
_DERIVATIVE = re.compile(
    rf"\\[dt]?frac\s*\{{\s*(?:d|\\partial|\\mathrm\s*\{{?d\}}?){_ORDER}([a-zA-Z])\s*\}}"
    rf"\s*\{{\s*(?:d|\\partial|\\mathrm\s*\{{?d\}}?)\s*([a-zA-Z]){_ORDER}\}}"
    r"|(?<![a-zA-Z\\])d([a-zA-Z])\s*/\s*d([a-zA-Z])(?![a-zA-Z])"
)
_MODULO = re.compile(
    r"(?:\\[,;:! ]|\s)*\(?\s*(?:\\[pb]?mod(?![a-zA-Z])"
    r"|\\(?:text|mathrm|operatorname)\s*\{\s*mod\s*\}|(?<![a-zA-Z])mod(?![a-zA-Z]))\s*\{?\s*([0-9a-zA-Z]+)\s*\}?\s*\)?"
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})")
_ODD_ROOT = re.compile(r"\\sqrt\s*\[\s*([357])\s*\]\s*\{\s*-\s*([0-9]+)\s*\}")
#: 22 degrees 30 minutes
_MINUTES = re.compile(
    r"([0-9]+)\s*\^\s*\{?\s*\\circ\s*\}?\s*([0-9]{1,2})\s*(?:'|\^\s*\{?\s*\\prime\s*\}?)"
)
_EXPONENT = re.compile(
    r"(?<=[0-9])\s*\\(?:text|mathrm)\s*\{\s*[eE]\s*([-+]?[0-9]*)\s*\}\s*\{?\s*([-+]?[0-9]*)\s*\}?$"
)
#: 0.1(6) and 0,(3)
_PERIOD = re.compile(r"([0-9]+)[.,]([0-9]*)\(([0-9]+)\)$")
_FUNCTION = re.compile(r"(?<![a-zA-Z\\])(log|ln|sin|cos|tan)(?=_[{0-9]|[0-9(]|\s+[0-9a-z(\\])")
_ROOT_WORD = re.compile(
    r"(?<![a-zA-Z\\])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+|[a-z])(?![a-z0-9]))"
)
_TEN = re.compile(r"(?<=[0-9])\s*(?:[xX*]|\\ast|\\star)\s*(?=10\s*\^)")
_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_BOLD = r"\\(?:mathbf|boldsymbol|bm)\s*\{?\s*([a-zA-Z])\s*\}?\s*"
_SPELLINGS = (
    (re.compile(r"\\text\s*\{\s*:\s*\}|\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"^\\\{\s*(\(.*\)\s*,\s*\(.*\))\s*\\\}$", re.DOTALL), r"\1"),
    (re.compile(rf"{_BOLD}\\times\s*{_BOLD}"), r"\\vec{\1}\\times\\vec{\2}"),
    (re.compile(r"\\([dt]?frac)\s*(\\[a-zA-Z]+)\s*(?=[0-9a-zA-Z{\\])"), r"\\\1{\2}"),
    (re.compile(r"(\\[dt]?frac\{\\[a-zA-Z]+\})\s*([0-9a-zA-Z])"), r"\1{\2}"),
    (re.compile(r"\\d?binom(?![a-zA-Z])|\\tbinom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset "),
    (re.compile(r"\\up(pi|alpha|beta|theta|mu)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"\\(le|ge)q(?:q|slant)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"(?<![a-zA-Z])oo(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"(?<=[0-9])\s*(?:\\degrees?|\^\s*o)(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"\\(?:land|wedge)(?![a-zA-Z])"), r"\\text{ and }"),
    (re.compile(r"\\text\s*\{\s*(?:,\s*(?:and\s*)?|and\s*)\}(?=\s*[-0-9(])"), ", "),
    (re.compile(r"^[A-Z]\s*(?=\([^()a-zA-Z]*[0-9][^()a-zA-Z]*,[^()a-zA-Z]*\)$)"), ""),
    (re.compile(r"^\\mathbb\s*\{?R\}?\s*(?:\^\s*\{?\+\}?|_\s*\{?(?:\+|>0)\}?)$"), r"(0,\\infty)"),
    (re.compile(r"^(?:\\text\s*\{\s*)?[Aa]ll real (?:numbers|values)\s*\}?$"), r"\\mathbb{R}"),
)  # fmt: skip


def without_layout(content: str) -> str:
    """The content of a box without sizes, colours, fonts of numbers and environments."""
    content = _STYLE.sub("", content)
    content = _BARE_STYLE.sub(r"{\1}", _STYLED_NUMBER.sub(r"\1", content))
    content = _NOTHING.sub("", _CALLED_ANSWER.sub("", _ORDINAL.sub("", content))).strip()
    if match := _ORDINAL_WORD.fullmatch(content):
        return match[1]
    if match := _ALL_TEXT.fullmatch(content):
        content = match[1] + (rf"\text{{{match[2]}}}" if "%" not in match[2] else r"\%")
    if match := _ARRAY.fullmatch(content):
        content = rf"\begin{{pmatrix}}{match[1]}\end{{pmatrix}}"
    if (match := _ALIGNED.fullmatch(content)) and "\\\\" not in match[2]:
        content = match[2].replace("&", "")
    if (match := _CASES.fullmatch(content)) and _is_system(match[2]):
        content = re.sub(r"\s*,?\s*\\\\\s*", ", ", match[2].replace("&", "").strip())
    return _COLUMN.sub(_vector, content).strip()


def readable(content: str) -> str:
    """The content with what sympy would misread or not know in words that it reads right."""
    content = _PRIME.sub(lambda m: f"{m[1]}_{{prime{_count(m)}}}", content)
    content = _INVERSE.sub(r"\1_{inverse}", _TRANSPOSED.sub("_{turned}", content))
    content = _DERIVATIVE.sub(_derivative, content)
    if "\\equiv" in content:
        content = _MODULO.sub(r"\\text{ mod \1}", content)
    if _TRIGONOMETRIC.search(content):
        content = _DEGREES.sub(r"{\\frac{\1\\pi}{180}}", content)
    content = _PERIOD.sub(r"\1.\2\\overline{\3}", _EXPONENT.sub(r"\\times10^{\1\2}", content))
    content = _MINUTES.sub(lambda m: rf"\frac{{{int(m[1]) * 60 + int(m[2])}}}{{60}}^\circ", content)
    content = _FUNCTION.sub(r"\\\1 ", content)
    content = _ROOT_WORD.sub(lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", content)
    content = _TEN.sub(r"\\times ", _ODD_ROOT.sub(r"-\\sqrt[\1]{\2}", content))
    if match := _DATE.fullmatch(content):
        content = f"({int(match[1])},{int(match[2])},{int(match[3])})"
    for pattern, spelling in _SPELLINGS:
        content = pattern.sub(spelling, content)
    return content


def _is_system(lines: str) -> bool:
    """Whether each line of a brace is an equation, not a case."""
    parts = [part for part in lines.split("\\\\") if part.strip()]
    return len(parts) > 1 and all(part.count("=") == 1 and "text" not in part for part in parts)


def _vector(match: re.Match[str]) -> str:
    """A column as a tuple."""
    items = [item.strip() for item in match[2].split("\\\\") if item.strip()]
    return f"({','.join(items)})" if len(items) > 1 else match[0]


def _count(match: re.Match[str]) -> int:
    return len(match[3]) if match[3] else match[2].count("prime")


def _derivative(match: re.Match[str]) -> str:
    order, of, by, _, of_slash, by_slash = match.groups()
    return f"{of or of_slash}_{{d{order or ''}{by or by_slash}}}"
