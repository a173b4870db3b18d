"""Marks around thoughts: those of well-known models, and those that a text or a template spells."""

import re
from dataclasses import dataclass

#: Words in the marks of thoughts, and those that count only in the last mark of a prompt: elsewhere
#: a template may use ``<plan>`` for something else.
_WORDS = r"think|thought|reason|reflect|analysis|ponder|deliberat|scratchpad|rationale|monologue"
_LAST_WORDS = (
    rf"{_WORDS}|brainstorm|contemplat|introspect|musing|ruminat|cogitat|scratch"
    r"|(?<![a-z])(?:cot|plan|planning|internal|inner|hidden|private|draft|notes|work|working)"
    r"(?![a-z])"
)
#: Words in marks that a model may write although its template does not spell them. ``<analysis>``
#: or ``<reason>`` may well be part of an answer.
_MODEL_WORDS = r"think(?:ing)?|thoughts?|reasoning|cot|scratchpad|monologue"
#: Most tags of a template that are looked at.
_MOST_TAGS = 100
_ENDS = r"end|stop|close|finish"
_PAIRED_WORDS = (("start", "end"), ("begin", "end"), ("open", "close"))

_INSIDE = r"[^<>\s/'\"]{0,20}"
_TAG = re.compile(
    rf"(?i)<(?!/){_INSIDE}(?:{_WORDS}){_INSIDE}>"
    rf"|\[(?!/)[^\[\]\s/'\"]{{0,20}}(?:{_WORDS})[^\[\]\s/'\"]{{0,20}}\]"
)
_LEFT, _RIGHT = (
    r"<\[{(\u3008\u300a\u3010\u25c1\u27e8\uff1c",
    r">\]})\u3009\u300b\u3011\u25b7\u27e9\uff1e",
)
_LAST_TAG = re.compile(
    rf"(?i)[{_LEFT}]{{1,2}}[|\uff5c]?(?P<name>[\w:.-]{{1,40}})[|\uff5c]?[{_RIGHT}]{{1,2}}\Z"
)
#: Words in the marks of turns and answers.
_NO_THOUGHT = (
    r"answer|respon[sd]|reply|final|output|solution|result|assist|model|user|bot|gpt|turn|role"
    r"|message|content|header|text|code|json|lang|sep|inst|start_of|end|(?<![a-z])ai(?![a-z])"
)
_LAST_HEADING = re.compile(rf"(?i)\*\*(?=[\w ]*(?:{_LAST_WORDS}))[\w ]{{1,40}}:?\*\*:?\Z")
_ANSWER_HEADING = r"(?i:\*\*(?:final )?(?:answer|response|solution|result|output):?\*\*:?)"


@dataclass(frozen=True)
class Marks:
    """What opens and closes a thought."""

    opening: str
    """Text that opens a thought, without white space around it."""
    closing: str
    """Text that closes it."""
    before_answer: str = ""
    """Text between the closing mark and the answer."""
    after_answer: tuple[str, ...] = ()
    """Texts that end the answer."""
    without_thought: str = ""
    """What a reply without a thought has to begin with."""
    closing_pattern: str = ""
    """Regular expression for other spellings of the closing mark."""

    def is_closed_by(self, mark: str) -> bool:
        """Whether the mark closes a thought that these marks open."""
        if mark == self.closing:
            return True
        return bool(self.closing_pattern) and bool(re.fullmatch(self.closing_pattern, mark))


THINK = Marks("<think>", "</think>")
#: Marks that are recognised at the start of a completion, whatever the chat template says.
KNOWN = (
    THINK,  # DeepSeek R1, Qwen3, QwQ, SmolLM3, Nemotron, GLM 4.5, Phi 4, Granite 3.3
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi-VL
    Marks("<longcat_think>", "</longcat_think>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|channel>", "<channel|>"),  # Gemma 4
    Marks("<unused94>", "<unused95>"),  # MedGemma
    Marks(  # Command A Reasoning; a call of a tool is no answer
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        ("<|END_RESPONSE|>", "<|START_ACTION|>"),
    ),
    Marks(  # OpenThinker, Sky-T1
        "<|begin_of_thought|>",
        "<|end_of_thought|>",
        "<|begin_of_solution|>",
        ("<|end_of_solution|>",),
    ),
    Marks(  # gpt-oss: an answer is the text of the channel "final"
        "<|channel|>",
        "<|channel|>final",
        "<|message|>",
        ("<|end|>", "<|start|>", "<|return|>", "<|call|>"),
        without_thought="<|channel|>final<|message|>",
    ),
    Marks("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    Marks("Here's my thought process:", "Here's my response:"),
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
)
_KNOWN_OPENINGS = {marks.opening.lower(): marks for marks in KNOWN}
_TEXT = re.compile(r"\S")
_AT_START = re.compile(
    rf"(?i)(?:(?P<known>{'|'.join(map(re.escape, _KNOWN_OPENINGS))})|(?P<left><[|\uff5c]?)\s{{0,3}}"
    rf"(?P<name>(?!\w*(?:{_ENDS}))(?:[a-z]{{1,15}}[_:-]){{0,2}}(?:{_MODEL_WORDS})"
    r"(?:[_:-][a-z]{1,15}){0,2})\s{0,3}(?P<right>[|\uff5c]?>))"
)


def marks_at(text: str, start: int, spelled: re.Pattern[str]) -> Marks | None:
    """The marks of a thought that begins here; None if it begins with a mark of ``spelled``."""
    after_space = _TEXT.search(text, start)
    if after_space is None or spelled.match(text, after_space.start()):
        return None
    found = _AT_START.match(text, after_space.start())
    if found is None:
        return None
    if found["known"]:
        marks = _KNOWN_OPENINGS[found["known"].lower()]
        if found["known"] != marks.opening:  # in another case
            closing = f"(?i:{re.escape(marks.closing)})"
            marks = Marks(found["known"], marks.closing, closing_pattern=closing)
        return marks
    left, name, right = found["left"], found["name"], found["right"]
    bar, space = r"[|\uff5c]?", r"\s{0,3}"
    names = "|".join(re.escape(word) for word in (f"/{name}", *_swapped(name)))
    slashed = rf"<{bar}{space}/{space}{bar}{space}{re.escape(name)}{space}{bar}>"
    pattern = rf"(?i:{slashed}|<{bar}{space}(?:{names}){space}{bar}>)"
    opening = found.group()
    return Marks(opening, f"{left}/{name}{right}", closing_pattern=pattern)


def marks_of_template(template: str, reply_start: str, past_start: str) -> list[Marks]:
    """Marks that a chat template spells and that are in no table.

    The last mark before a reply counts if its name has a word for thinking. So does one without
    such a word, if it is in no past turn and the template spells its closing mark. Elsewhere a mark
    needs both, the word and the closing mark.

    Args:
        template: the chat template.
        reply_start: the template's text between a user's turn and the reply.
        past_start: the same where the reply is given.
    """
    end = reply_start.rstrip()[-200:]
    last, heading = _LAST_TAG.search(end), _LAST_HEADING.search(end)
    taken = {mark for marks in KNOWN for mark in (marks.opening, marks.closing)}
    in_template = list(dict.fromkeys(_TAG.findall(template)))[:_MOST_TAGS]
    found = []
    if heading:
        found = [Marks(heading.group(), "**Answer:**", closing_pattern=_ANSWER_HEADING)]
    tags = [*_TAG.findall(reply_start)[-_MOST_TAGS:], *in_template]
    for tag in dict.fromkeys([last.group(), *tags] if last else tags):
        if tag in taken:
            continue
        guesses = [*_swapped(tag), *_slashed(tag), *_ends_of(tag, in_template)]
        spelled = next((guess for guess in guesses if guess in template), None)
        named = re.search(f"(?i){_LAST_WORDS}", tag)
        if not named and (tag in past_start or re.search(f"(?i){_NO_THOUGHT}", tag)):
            continue
        if spelled or (named and end.endswith(tag)):
            found.append(Marks(tag, spelled or guesses[0]))
    return found


def answer_tags(template: str) -> tuple[tuple[str, str], ...]:
    """Tags around answers that a chat template spells, such as ``<response>``."""
    names = dict.fromkeys(re.findall(r"<((?:final_)?(?:response|answer|solution))>", template))
    return tuple((f"<{name}>", f"</{name}>") for name in names)


def _swapped(tag: str) -> list[str]:
    """The tag with "end" in place of "begin", and alike."""
    swapped = []
    for a, b in _PAIRED_WORDS:
        for case in (str.lower, str.upper, str.capitalize):
            if case(a) in tag:
                swapped.append(tag.replace(case(a), case(b)))
    return swapped


def _slashed(tag: str) -> tuple[str, str]:
    """The tag with a slash before its name, and before a bar too."""
    left = len(tag) - len(re.sub(r"^\W+", "", tag))
    return f"{tag[:left]}/{tag[left:]}", f"{tag[0]}/{tag[1:]}"


def _ends_of(tag: str, tags: list[str]) -> list[str]:
    """The tags with the same word for thinking and a word for an end."""
    word = re.search(rf"(?i){_WORDS}", tag)
    same = [other for other in tags if word and word.group().lower() in other.lower()]
    return [other for other in same if other != tag and re.search(rf"(?i){_ENDS}", other)]
