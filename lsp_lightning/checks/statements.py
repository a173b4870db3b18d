"""Find the answer that a text without a box states: "the answer is 42", or a last line "42".

Only a simple answer is found: a number, a formula or a list, perhaps with a unit. A sentence that
names several answers or negates one is left to the caller.
"""

import re
from itertools import pairwise

from lsp_lightning.checks.numerals import numeral
from lsp_lightning.checks.phrases import MINUS, TAKES_BACK, changed_around, denied, without_contrast
from lsp_lightning.checks.prose import (
    NUMBERS_IN_A_ROW,
    REFUSED,
    SEGMENT,
    balanced,
    last_value,
    unit_at,
)
from lsp_lightning.checks.unit_names import is_unit
from lsp_lightning.checks.words import MULTIPLE, changed

_ENGLISH = "answer|result|(?:correct|right) (?:option|choice)"
_FOREIGN = (
    "r[ée]ponse|r[ée]sultat|antwort|ergebnis|antwoord|respuesta|resultado|resposta|risposta|"
    "risultato|ответ|результат|відповідь|odpowied[źz]|odpov[ěe][dď]|svar|svaret|vastaus|válasz|"
    "cevap|sonuç|đáp án|đáp số|jawaban|jawabannya|răspuns|răspunsul|απάντηση|отговор|odgovor|"
    "答|الجواب|الإجابة|جواب|پاسخ|उत्तर|תשובה|উত্তর|பதில்|yan\u0131t"
)
#: Chinese, Japanese, Korean and Thai write the words before these without a space.
_CHOSEN = "(?:故|应|应该|(?<=[以此题]))选|^选|选项"
_UNSPACED = rf"{_CHOSEN}|答案选?|故答案|结果|結果|得到|答え|正解|解答|정답|답|คำตอบ"
_OPTION_LETTER = r"[A-J](?![a-zA-Z0-9^_=<>+*/(]|\s*[=<>+*/^-])"
_IS = r"(?:[:=]|->|\\to\b|\\Rightarrow\b|\b(?:is|equals|was|are|be|becomes)\b)"
_ADVERB = r"(?:(?:approximately|about|exactly|simply|just|clearly|thus|therefore|equal to)\s+)?"
#: "The answer to the question is"; in other languages any few words may follow the noun.
_CLAIM = re.compile(
    rf"(?<![^\W\d_])(?:{_ENGLISH})[^\n.$\\]{{0,60}}?{_IS}\s*(?:{_IS}\s*)?{_ADVERB}"
    rf"|(?:(?<![^\W\d_])(?:{_FOREIGN})|{_UNSPACED})[^0-9a-zA-Z\n.$\\(\[{{+-]{{0,30}}"
    rf"(?:(?<=\s)(?!{_OPTION_LETTER})[^\W\d_]+[^0-9\n.$\\(\[{{+-]{{0,30}})?"
    rf"(?=[0-9$\\(\[{{+-]|(?<![a-zA-Z]){_OPTION_LETTER}|(?<![a-zA-Z])[a-zA-Z]\s*[\^=<>+*/-])",
    re.IGNORECASE,
)
_HEADING = re.compile(rf"(?:(?:the|final) )*(?:{_ENGLISH}|{_FOREIGN}|{_UNSPACED})", re.IGNORECASE)
_DENIAL = re.compile(
    r"\s*(?:definitely |certainly |clearly )?(?:not|never|neither|unknown|no|pas|nicht|kein|non|"
    r"不是|不)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")
#: "option C"
_OPTION = re.compile(r"^\s*(?:option|choice)\s+", re.IGNORECASE)
#: "Answer: 1. Take x" begins a list, and so does a line "1." or "(a)" after "Answer:".
_LIST = re.compile(r"\s*1[.)]\s+\S|\s*\(?(?:1|a|i)[.):]+\s*$")
#: A last line that may be the number of an item whose text was never written.
_LABEL = re.compile(r"\(?(?:[0-9]{1,2}|[a-z]|[ivx]{2,4})[.):]+|[#]{1,3}\s*[0-9]{1,2}[.):]*")
_LONE_OPTION = re.compile(r"\(?([a-j])[.)]\.?")
_REVERSED = re.compile(
    r"(?:(?<![\w])(?:[Oo]ption|[Cc]hoice)\s+\(?([A-J])\)?|\(([A-J])\)|(?:^|(?<=[.,:] ))([A-J])) is "
    r"(?:the )?(?:(?:correct|right|best) )?(?:answer|option|choice|correct|right)(?![\w])"
)
#: A line that is nothing but a number, perhaps with the label of an item.
_ITEM = re.compile(
    r"((?:[a-z]|[0-9]{1,2})[.)]|\([a-z0-9]\)|(?:(?:the )?final )?answer(?: [a-z0-9])?\s*[:=]"
    r"|[a-z] ?=|)\s*\$?(-?[0-9][0-9.,]*)\$?",
    re.IGNORECASE,
)
_ITEM_LABEL = re.compile(r"^\(?\w{1,2}[.)]|(?<= )\w(?= ?:)|\s")
_LIST_NUMBER = re.compile(
    r"^[ \t]*(?:[0-9]+[.)]|(?:step|part|case|question|problem|example)[ \t]+[0-9]+[.):]?)"
    r"(?:[ \t]+|$)",
    re.MULTILINE | re.IGNORECASE,
)
#: What follows a sentence and takes it back.
_DOUBT = re.compile(rf"[.!;\s]*(?:\?|\bor\b|{TAKES_BACK})", re.IGNORECASE)
_LIST_LINE = re.compile(r"^\s*[0-9]+[.)](?:\s|$)", re.MULTILINE)
_FORMULA = re.compile(
    r"(?:\\[a-zA-Z]+|\\.|[-+*/^_=<>!|&%(){}\[\],.0-9\u00a2\u00a3\u00a5\u20ac\u20b9$\s]"
    r"|(?<=[0-9]):(?=[0-9])|(?<=[0-9] ):(?= [0-9])"
    r"|'(?![a-zA-Z])|(?<![^\W\d_])[a-zA-Z](?![^\W\d_]|\s+[^\W\d_]{2}))+"
)
_LABELLED = re.compile(r"[A-Ja-j]\)")
_UNFINISHED = re.compile(r"[-+*/=<>_^&|\\]$|\\(?:times|cdot|pm)$")
_TWO_PLAIN = re.compile(r"[0-9]\s+[0-9]+/[0-9]|[0-9]\s[0-9]{3}")
_SOME_VALUE = re.compile(r"[0-9]|\\[a-zA-Z]|^[a-zA-Z]$|^\([a-zA-Z]\)$|=")
#: What follows is why: "18 because 9 times 2 is 18".
_REASON = re.compile(r",?\s+(?:because|since)\s", re.IGNORECASE)
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
_UNIT_WORDS = re.compile(r"\s*((?:[a-zA-Z]+[ /]?){1,3})(\^\{?[23]\}?)?\s*")

_OPENING, _CLOSING = '"\u201c\u201e\u00ab\u300c\u300e', '"\u201c\u201d\u00bb\u300d\u300f'
_QUOTES = _OPENING + _CLOSING
_MARKS = (
    (re.compile(r"(?:</s>|<\|[a-z_]+\|>|<eos>|<end_of_turn>)\s*$"), ""),
    (re.compile(rf"[{_OPENING}](\s*[^\s{_QUOTES}][^\n{_QUOTES}]{{0,60}})[{_CLOSING}]"), r"\1"),
    (re.compile(r"^[ \t]*####(?=[^#\s])", re.MULTILINE), ""),
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


def stated_answer(text: str, voting: bool = True) -> str | None:
    """The answer that a text states, as LaTeX.

    None if it states none, or one that is not simple; :data:`REFUSED` if it denies one. Where it is
    ``voting``, a last line that may be the number of an item in a list is no answer.
    """
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    if not lines:
        return None
    plain = [without_markup(line).strip() for line in lines]
    if len(plain) > 1 and _differ(*plain[-2:]):
        return REFUSED
    bare = _bare(lines[-1], plain, voting)
    if bare is not None:
        return bare
    for line, following in reversed([*pairwise([*plain, ""])]):
        claims = list(_CLAIM.finditer(line))
        if claims:
            return _claimed(line, claims[-1], following, voting)
        if option := _REVERSED.search(line):
            return REFUSED if denied(line[: option.start()], "") else _first(option)
        if _HEADING.fullmatch(line.rstrip(" :")):
            return None if _LIST.match(following) else _formula(following)
    return None


def _bare(raw: str, plain: list[str], voting: bool) -> str | None:
    """The last line if it is nothing but an answer."""
    line, alone = plain[-1], len(plain) == 1
    if alone and (option := _LONE_OPTION.fullmatch(line)):
        return option[1].upper()
    heading = _LABEL.fullmatch(raw.replace("*", "")) if raw.startswith("#") else None
    if voting and (heading or (not alone and _LABEL.fullmatch(line))):
        return None
    return None if _is_list_number(line, "\n".join(plain)) else _formula(line)


def _first(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def _differ(*lines: str) -> bool:
    """Whether two lines are items of a list of answers: "Answer: 4", "Answer: 5"."""
    items = [_ITEM.fullmatch(line.rstrip(".")) for line in lines]
    if not all(items):
        return False
    labels = {item and _ITEM_LABEL.sub("", item[1].lower()) for item in items}
    return len(labels) == 1 and len({item and item[2].rstrip(".") for item in items}) == 2


def without_list_numbers(text: str) -> str:
    """The text without "1." and "Step 1:" at the start of lines: no answer is meant by them."""
    return _LIST_NUMBER.sub("", text)


def _is_list_number(line: str, text: str) -> bool:
    """Whether a line such as "2." or "2. Add" is an item of a list."""
    if re.fullmatch(r"[0-9]+[.)]|\(?1[.):]+", line):
        return len(_LIST_LINE.findall(text)) > 1 or line.strip("(.):") == "1"
    return _LIST_NUMBER.match(line) is not None


def _claimed(line: str, claim: re.Match[str], following: str, voting: bool) -> str | None:
    """The answer after "the answer is"; on the next line if nothing follows in this one."""
    content = _OPTION.sub("", line[claim.end() :])
    if not re.search(r"\w", content):
        return None if _LIST.match(following) else _formula(following)
    if _LIST.match(content):
        return None
    before, number = line[: claim.end()], numeral(content.lstrip())
    content = number[0] + number[1] if number[0] else content
    sentence = _first_sentence(content)
    if _DOUBT.match(content[len(sentence) :]):
        return REFUSED
    sentence = _REASON.split(without_contrast(sentence), maxsplit=1)[0]
    if _DENIAL.match(sentence) or denied(before, "") or changed_around(before, ""):
        return REFUSED
    formula = _formula(sentence, words=True)
    if formula is not None and formula != REFUSED and MINUS.search(before):
        return f"-{formula}"
    if formula is None and not voting:  # "the answer is at least 5" is no answer as a whole
        return last_value(before + sentence)
    return formula


def _first_sentence(content: str) -> str:
    segment = SEGMENT.match(content.lstrip(" :"))
    start = len(content) - len(content.lstrip(" :")) + segment.end() if segment else 0
    end = _SENTENCE_END.search(content, start)
    return content[: end.start()] if end else content


def _formula(text: str, words: bool = False) -> str | None:
    """The text as LaTeX if it is a formula, perhaps with a unit.

    With ``words``, other words may follow.
    """
    text = text.strip().strip(":").strip()
    if segment := SEGMENT.match(text):
        formula = next(group for group in segment.groups() if group is not None)
        rest = text[segment.end() :]
    elif match := _FORMULA.match(text):
        formula, rest = match[0], text[match.end() :]
    else:
        return None
    formula = formula.strip().rstrip(".," if segment else ".,!").strip()
    if not _LABELLED.match(formula):
        formula = balanced(formula).strip()
    if _UNFINISHED.search(formula):
        return None
    simple = not (NUMBERS_IN_A_ROW.search(formula) and not _TWO_PLAIN.search(formula))
    if not simple or not (segment or _SOME_VALUE.search(formula)):
        return None
    if scale := _SCALE.match(rest):
        formula, rest = f"{formula} {scale[1]}", rest[scale.end() :]
    elif words and _MORE.match(rest):
        return None
    if words and (changed(rest) or denied("", rest) or changed_around("", rest)):
        return REFUSED
    rest = rest.strip(" .,!?:;")
    if not rest:
        return formula
    unit = _UNIT_WORDS.fullmatch(rest)
    if not words and not (unit and (is_unit(rest) or (rest.islower() and rest.isalpha()))):
        return None
    named = unit_at(rest) if words else rest
    if _CHANGES.search(rest[len(named) :]):
        return None
    return f"{formula} {named}" if named else formula
