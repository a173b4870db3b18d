"""Find the answer that a text without a box states: "the answer is 42", or a last line "42".

Only a simple answer is found: a number, a formula or a list, perhaps with a unit. A sentence that
names several answers or negates one is left to the caller.
"""

import re
from itertools import pairwise

from lsp_lightning.checks.unit_names import is_unit
from lsp_lightning.checks.words import MULTIPLE, changed

#: A statement that denies: "the answer is not 5".
REFUSED = "refused"

_ENGLISH = "answer|result|(?:correct|right) (?:option|choice)"
_FOREIGN = (
    "r[ée]ponse|r[ée]sultat|antwort|ergebnis|antwoord|respuesta|resultado|resposta|risposta|"
    "risultato|ответ|результат|відповідь|odpowied[źz]|odpov[ěe][dď]|svar|svaret|vastaus|válasz|"
    "cevap|sonuç|đáp án|đáp số|jawaban|jawabannya|răspuns|răspunsul|απάντηση|отговор|odgovor|"
    "故选|应选|所以选|因此选|答案选|答案|答え|答|解答|结果|結果|정답|답|الجواب|الإجابة|جواب|پاسخ|उत्तर|תשובה|คำตอบ|উত্তর|பதில்"
)
_IS = r"(?:[:=]|->|\\to\b|\\Rightarrow\b|\b(?:is|equals|was|are|be|becomes)\b)"
_ADVERB = r"(?:(?:approximately|about|exactly|simply|just|clearly|thus|therefore|equal to)\s+)?"
#: "The answer to the question is"; in other languages any few words may follow the noun.
_CLAIM = re.compile(
    rf"(?<![^\W\d_])(?:(?:{_ENGLISH})[^\n.$\\]{{0,60}}?{_IS}\s*(?:{_IS}\s*)?{_ADVERB}"
    rf"|(?:{_FOREIGN})[^0-9\n.$\\(\[{{+-]{{0,30}}(?=[0-9$\\(\[{{+-]|(?<![a-zA-Z])[a-zA-Z]+[.)]*\s*$))",
    re.IGNORECASE,
)
_HEADING = re.compile(rf"(?:(?:the|final) )*(?:{_ENGLISH}|{_FOREIGN})", re.IGNORECASE)
_FOREIGN_DENIAL = re.compile(
    r"\b(?:pas|nicht|kein|keine|no|não|non|не|niet|nie|inte|ikke|değil|không|bukan|nu|δεν|ليس|ليست|नहीं)\b"
    r"|不|非|ない|아니",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\s*(?:definitely |certainly |clearly )?(?:not|never|neither|unknown|no|pas|nicht|kein|non|"
    r"不是|不)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")
#: "Answer: 1. Take x" begins a list.
#: "option C"
_OPTION = re.compile(r"^\s*(?:option|choice)\s+", re.IGNORECASE)
_LIST = re.compile(r"\s*1[.)]\s+\S")
_LIST_NUMBER = re.compile(
    r"^[ \t]*(?:[0-9]+[.)]|(?:step|part|case|question|problem|example)[ \t]+[0-9]+[.):]?)"
    r"(?:[ \t]+|$)",
    re.MULTILINE | re.IGNORECASE,
)
#: What follows a sentence and takes it back.
_DOUBT = re.compile(
    r"[.!;\s]*(?:\?|\b(?:no|wait|hmm|actually|sorry|oops|correction)\b)", re.IGNORECASE
)
_LIST_LINE = re.compile(r"^\s*[0-9]+[.)](?:\s|$)", re.MULTILINE)
_SEGMENT = re.compile(
    r"\$\$([^$]+)\$\$|\$((?:\\.|[^$\n\\])+)\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_FORMULA = re.compile(
    r"(?:\\[a-zA-Z]+|\\.|[-+*/^_=<>!|&%(){}\[\],.0-9\u00a2\u00a3\u00a5\u20ac\u20b9$\s]"
    r"|'(?![a-zA-Z])|(?<![^\W\d_])[a-zA-Z](?![^\W\d_]|\s+[^\W\d_]{2}))+"
)
_TWO_NUMBERS = re.compile(r"[0-9]\s+[0-9]")
_TWO_PLAIN = re.compile(r"[0-9]\s+[0-9]+/[0-9]|[0-9]\s[0-9]{3}")
_SOME_VALUE = re.compile(r"[0-9]|\\[a-zA-Z]|^[a-zA-Z]$|^\([a-zA-Z]\)$|=")
#: Words after an answer that would change it.
_CHANGES = re.compile(
    r"\b(?:or|and|not|no|nor|but|oder|und|ou|et|o|y|или|и|either|plus|minus|less|more|than|to|"
    r"if|unless|mod|percent of|thousand|million|billion|wrong|incorrect|false|hundred|dozen|wait)\b"
    r"|[0-9$\\|=<>]|或|和",
    re.IGNORECASE,
)
_SCALE = re.compile(rf"\s*({MULTIPLE})", re.IGNORECASE)
#: Words right after a number that make it another number, or one of several.
_MORE = re.compile(
    r"[\s,;]*(?:or|and|oder|und|ou|et|или|и|plus|minus|times(?!\s*[.!]?\s*$|\s+(?:as|more)\b)|less|more|"
    r"through|to|half|mod)\b|[或和]",
    re.IGNORECASE,
)
_UNIT_START = re.compile(
    r"[^\s,;.()0-9^]+(?:\^\{?[23]\}?)?(?: [^\s,;.()0-9^]+(?:\^\{?[23]\}?)?){0,2}"
)
_UNIT_WORDS = re.compile(r"\s*((?:[a-zA-Z]+[ /]?){1,3})(\^\{?[23]\}?)?\s*")

_MARKS = (
    (re.compile(r"~~[^~\n]*~~"), ""),
    (
        re.compile(
            r"</?(?:b|i|em|strong|u|p|br|span|div|code|sub|answer|final_answer|response|solution|"
            r"result|output)\s*/?>",
            re.IGNORECASE,
        ),
        " ",
    ),
    (re.compile(r"<sup>\s*([-+0-9a-z]+)\s*</sup>", re.IGNORECASE), r"^{\1}"),
    (re.compile(r"&nbsp;|&thinsp;"), " "),
    (re.compile(r"(?<![\w)*}])\*\*\*?(?=[^\s*])([^*\n]+?)\*\*\*?(?![\w(*{])"), r"\1"),
    (re.compile(r"(?<![\w\\}])__(?=[^\s_])([^_\n]+?)__(?!\w)"), r"\1"),
    (re.compile(r"(?<![0-9)}] )(?<![\w)*}])\*(?=[^\s*])([^*\n]+?)\*(?![\w(*{])"), r"\1"),
    (re.compile(r"(?<![\w\\}])_(?=[0-9$-])([^_\n{}]+?)_(?![\w{])"), r"\1"),
    (re.compile(r"```[a-z]*|`"), " "),
    (re.compile(r"^[ \t]*(?:#+|>+|[*+\u2022\u25cf]|-(?=[ \t]))[ \t]+", re.MULTILINE), ""),
)  # fmt: skip


def without_markup(text: str) -> str:
    """The text without Markdown and simple HTML: bold, code, headings, bullets."""
    for pattern, replacement in _MARKS:
        text = pattern.sub(replacement, text)
    return text


def stated_answer(text: str) -> str | None:
    """The answer that a text without markup states, as LaTeX.

    None if it states none, or one that is not simple; :data:`REFUSED` if it denies one.
    """
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    if not lines:
        return None
    bare = _formula(lines[-1])
    if bare is not None and not _is_list_number(lines[-1], text):
        return bare
    for line, following in reversed([*pairwise([*lines, ""])]):
        claims = list(_CLAIM.finditer(line))
        if claims:
            if _FOREIGN_DENIAL.search(claims[-1][0]):
                return REFUSED
            return _claimed(line[claims[-1].end() :], following)
        if _HEADING.fullmatch(line):
            return _formula(following)
    return None


def without_list_numbers(text: str) -> str:
    """The text without "1." and "Step 1:" at the start of lines: no answer is meant by them."""
    return _LIST_NUMBER.sub("", text)


def _is_list_number(line: str, text: str) -> bool:
    """Whether a line such as "2." or "2. Add" is an item of a list."""
    if re.fullmatch(r"[0-9]+[.)]", line):
        return len(_LIST_LINE.findall(text)) > 1 or line in ("1.", "1)")
    return _LIST_NUMBER.match(line) is not None


def _claimed(content: str, following: str) -> str | None:
    """The answer after "the answer is"; on the next line if nothing follows in this one."""
    if not re.search(r"\w", content):
        return _formula(following)
    if _DENIAL.match(content):
        return REFUSED
    if _LIST.match(content):
        return None
    sentence = _first_sentence(_OPTION.sub("", content))
    if _DOUBT.match(content[len(sentence) :]):
        return REFUSED
    return _formula(sentence, words=True)


def _first_sentence(content: str) -> str:
    segment = _SEGMENT.match(content.lstrip(" :"))
    start = len(content) - len(content.lstrip(" :")) + segment.end() if segment else 0
    end = _SENTENCE_END.search(content, start)
    return content[: end.start()] if end else content


def _formula(text: str, words: bool = False) -> str | None:
    """The text as LaTeX if it is a formula, perhaps with a unit.

    With ``words``, other words may follow.
    """
    text = text.strip().strip(":").strip()
    if segment := _SEGMENT.match(text):
        formula = next(group for group in segment.groups() if group is not None)
        rest = text[segment.end() :]
    elif match := _FORMULA.match(text):
        formula, rest = match[0], text[match.end() :]
    else:
        return None
    formula = formula.strip().rstrip(".,!").strip()
    simple = not (_TWO_NUMBERS.search(formula) and not _TWO_PLAIN.search(formula))
    if not simple or not _SOME_VALUE.search(formula):
        return None
    if scale := _SCALE.match(rest):
        formula, rest = f"{formula} {scale[1]}", rest[scale.end() :]
    elif words and _MORE.match(rest):
        return None if "$" in text else REFUSED  # math-verify reads lists of formulas
    if words and changed(rest):
        return REFUSED
    rest = rest.strip(" .,!?:;")
    if not rest:
        return formula
    unit = _UNIT_WORDS.fullmatch(rest)
    if not words and not (unit and (is_unit(rest) or (rest.islower() and rest.isalpha()))):
        return None
    named = _unit_at(rest) if words else rest
    if _CHANGES.search(rest[len(named) :]):
        return None
    return f"{formula} {named}" if named else formula


def _unit_at(rest: str) -> str:
    """The unit that the words begin with, "square meters" before "square"; "" if it is none."""
    found = _UNIT_START.match(rest)
    while found:
        words = rest[: found.end()].strip()
        if is_unit(words):
            return words
        found = _UNIT_START.match(rest, 0, len(words.rpartition(" ")[0]))
    return ""
