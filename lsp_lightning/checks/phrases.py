"""Words around a value that make it another answer, or none: "not 5", "at least 5", "5 million".

The patterns in English are the longest; other languages have the words that were met in answers.
"""

import re

#: Words that take a statement back.
TAKES_BACK = r"\b(?:hmm|wait|no|actually|sorry|oops|correction)\b"
#: At most this many characters before and after a value are looked at.
NEAR = 120

_JOINING = (
    "and|or|und|oder|et|ou|y|e|o|u|i|и|или|og|eller|och|of|en|veya|ve|lub|oraz|sau|și|dan|atau|và|"
    "hoặc|και|ή|أو|و|या|और|או"
)
#: What joins the values of a list; signs of Chinese, Japanese and Korean need no space.
JOINER = re.compile(
    rf"\s*(?:[,;&]\s*)?(?:\\?&|(?:{_JOINING}))?(?:\s*(?:maybe|perhaps|possibly|then))?\s*"
    r"|\s*[,、]?\s*(?:或者?|和|与|または|もしくは|と|또는|와|과)\s*",
    re.IGNORECASE,
)
#: A list that has one of these only between its values is one answer of several.
COMMA = re.compile(r"\s*[,;]\s*")
#: Words between two values that make one quantity of both, or a term.
OPERATION = re.compile(
    r"\s*(?:times|plus|minus|over|choose|modulo|mod|to|through|by|versus|vs\.?|per|cubed|squared|"
    r"(?:with )?(?:a )?remainder(?: of)?|r|out of|divided by|multiplied by|percent of|%? of|"
    r"less than|more than|(?:raised )?to the(?: power(?: of)?)?|or else|or,? less likely,?|"
    r"плюс|минус|bis|mal|à|fois|hasta|至|到|减|加|乘以?|除以|から|-|:)\s*"
    # 2 hours and 5 minutes, 3 dollars and 5 cents
    r"|\s*[^\W\d_]+\s+(?:and|und|et|y|и|en|och|e)\s+",
    re.IGNORECASE,
)

_COPULA = r"(?:is|are|was|were|equals|gives?|has|have|gets?|that|becomes?)\b"
#: "not", and at most four words between it and the value, of which none begins a statement:
#: "the one that does not fit is 5" does not deny 5.
DENIED = re.compile(
    r"(?:\b(?:not(?! only\b)|never|cannot|neither|nor|hardly|anything but|far from|other than|"
    r"except(?: for)?|rather than|instead of|"
    r"no(?! doubt)|wrong to say|nicht|kein|keine|pas|não|non|"
    r"niet|nie|inte|ikke|не|nu|không|bukan|δεν|ليس|ليست)\b|n't\b|不(?!超过|到|足|少于|大于|小于)|非|≠|\\ne(?:q)?\b)"
    rf"(?:\s*(?!{_COPULA})[^\W\d_]+){{0,4}}\s*$",
    re.IGNORECASE,
)
_MORE_OR_LESS = (
    "more|less|fewer|greater|larger|bigger|smaller|higher|lower|better|mehr|weniger|größer|kleiner"
)
#: Bounds, operations and choices right before a value.
CHANGED_BEFORE = re.compile(
    rf"(?:\b(?:at least|at most|(?:{_MORE_OR_LESS}) (?:than|als)|over|under|above|below|beneath|"
    r"(?<!add )(?<!adds )(?<!sum )(?<!sums )up to|exceeds?|exceeding|between|among|"
    r"amongst|within|from|either|"
    r"modulo|mod|range|divisible by|divided by|multiplied by|times|plus|twice|double|triple|thrice|"
    r"such as|choose|base|"
    r"(?:half|halves|third|thirds|quarter|quarters|fourth|fifth|tenth|"
    r"(?:square|cubed?|cubic|[a-z]+th) root|square|cube|multiples?|power|logarithm|log|"
    r"sine|cosine|tangent|(?<!by a )factors?|"
    r"divisors?|reciprocal|inverse|opposite|percent|one|any|some|none|out|all|factorial) of|"
    r"power|exponent|"
    r"mindestens|höchstens|maximal|minimal|zwischen|über|unter|doppelt|"
    r"au moins|au plus|(?:plus|moins) (?:de|que)|supérieure?s? à|inférieure?s? à|entre|"
    r"al menos|como mínimo|a lo sumo|(?:más|menos) (?:de|que)|mayor (?:que|a)|menor (?:que|a)|"
    r"superior a|inferior a|almeno|al massimo|(?:più|meno) di|maggiore di|minore di|tra|fra|"
    r"pelo menos|no máximo|(?:mais|menos) (?:de|do que)|maior (?:que|do que)|menor (?:que|do que)|"
    r"больше|меньше|не менее|не более|более|менее|минимум|максимум|свыше|между|"
    r"minstens|hoogstens|(?:meer|minder) dan|minst|högst|co najmniej|co najwyżej|ít nhất|"
    r"nhiều nhất|lớn hơn|nhỏ hơn|en az|en fazla|lebih dari|kurang dari|أكثر من|أقل من|على الأقل)"
    r"(?:\s+(?:the|a|an|number|either))?"
    r"|大于(?:等于)?|小于(?:等于)?|至少(?:是|为|有)?|至多(?:是|为|有)?|最多(?:是|为|有)?|最少(?:是|为|有)?"
    r"|超过|不到|不足|少于|多于|低于|高于|不大于|不小于|约等于负|介于|根号|平方根|少なくとも|最大で|최소|최대"
    r"|[<>≤≥√])\s*$",
    re.IGNORECASE,
)
#: Words for a minus sign.
MINUS = re.compile(
    r"(?:(?:^|(?<=\s))-(?=$)|=\s*-|\b(?:negative|minus|moins|menos|meno|минус|мінус|eksi)|负|負|マイナス"
    r"|마이너스|음수)\s*$",
    re.IGNORECASE,
)
_WRONG = (
    "wrong|incorrect|false|extraneous|rejected|invalid|impossible|excluded|discarded|spurious|"
    "inadmissible|unacceptable|falsch|faux|fausse|incorrecta?"
)
#: Words after a value that take it back, in the same clause.
DENIED_AFTER = re.compile(
    rf"\s*\(?(?:{_WRONG})\b"
    r"|\s*(?:is|are|was|were|seems|looks)\s+(?:(?:clearly|obviously|definitely|also|an?|the)\s+)*"
    rf"(?:not\b|{_WRONG})"
    r"|\s*(?:(?:is|are|was|were|do|does|did|ca|could|must|should|wo|would)n't\b|cannot\b|never\b"
    r"|fails?\b|(?:does|do|did|can|could|must|should|will) not\b)"
    r"|\s*(?:ではない|じゃない|ではありません|[가이은는] ?아[니닙닌]|不是|不对|错)"
    r"|[^,;]{0,10}?(?:नहीं|değil|아[니닙닌])",
    re.IGNORECASE,
)
#: Words right after a value that make it a bound, or half of something more.
CHANGED_AFTER = re.compile(
    rf"\s*(?:or|and|oder|ou)\s+(?:{_MORE_OR_LESS}|above|below|over|under|up|so on|a half|"
    r"half|else)\b"
    r"|(?:\s+[^\W\d_]+)?\s+(?:at least|at most|percent of|% of)\b"
    # 5 more than x, and not 5 marbles more than Jerry
    rf"|(?:\s+[^\W\d_]+)?\s+(?:{_MORE_OR_LESS}) than(?=\s+(?:[0-9$\\]|[a-z]\b|half\b|twice\b))"
    r"|\s*(?:\+(?!\w)|plus\b|minus\b|choose\b|mod\b|modulo\b|remainder\b|to the\b"
    r"|(?:以上|以下|以内|이상|이하|未満|미만))"
    r"|\s*(?:percent|%)\s+of\b",
    re.IGNORECASE,
)
#: A condition, or a guess, that follows a value: "5 if n is even".
CONDITION = re.compile(
    r"\s*(?:[^\W\d_]+\s+)?,?\s*(?:if|unless|provided|wenn|si|如果|若)\b|.{0,60}?\botherwise\b",
    re.IGNORECASE,
)
#: Before a list: "the sum of 40 and 2".
COMBINED = re.compile(
    r"\b(?:sum|product|difference|quotient|average|mean|gcd|lcm|ratio) of\s*$", re.IGNORECASE
)
GUESS = re.compile(
    r"\b(?:maybe|perhaps|possibly|or else|(?:could|might|may)(?: also)? be)\b", re.IGNORECASE
)
#: The number after such a word is its own: "step 5", "question 5".
LABEL = re.compile(
    r"\b(?:step|question|problem|part|case|page|equation|eq\.?|figure|fig\.?|example|exercise|"
    r"chapter|section|line|reason|item|rule|lemma|theorem|answer|solution|"
    r"try again in)\s*[(#]?\s*$",
    re.IGNORECASE,
)
#: "not 6 but 5", and ", not 6" at the end.
_CONTRAST = re.compile(
    r"\bnot\s+[^\s,]{1,20}(?:\s[^\s,.]{1,20}){0,2},?\s+but\s+(?:rather\s+)?"
    r"|\s*\((?:and )?not [^()]{1,40}\)"
    r"|,?\s+(?:not|rather than|instead of)\s+[^\s,]{1,20}$|,\s+not\s+[^,.]{1,40}$",
    re.IGNORECASE,
)


def without_contrast(sentence: str) -> str:
    """The sentence without what it names in order to deny: "6, not 5" is 6."""
    return _CONTRAST.sub(" ", sentence.rstrip(" .!"))


def denied(before: str, after: str) -> bool:
    """Whether the words around a value deny it."""
    return bool(DENIED.search(before[-NEAR:]) or DENIED_AFTER.match(after[:NEAR]))


def changed_around(before: str, after: str) -> bool:
    """Whether the words around a value make it a bound, an operand or a choice."""
    return bool(
        CHANGED_BEFORE.search(before[-NEAR:])
        or CHANGED_AFTER.match(after[:NEAR])
        or CONDITION.match(after[:NEAR])
    )
