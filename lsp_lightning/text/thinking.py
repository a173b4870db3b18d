"""Tell a model's thinking from its answer.

Reasoning models think before they answer, between two marks such as ``<think>`` and ``</think>``.
Some chat templates write the first mark into the prompt, so the completion begins inside a thought
and contains only the second mark. A thought that does not end is not an answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


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

    def answer(self, text: str) -> str:
        """The answer in the text after the closing mark."""
        if self.before_answer and self.before_answer in text:
            text = text.partition(self.before_answer)[2]
        for end in (self.opening, *self.after_answer):
            text = text.partition(end)[0]
        return text.strip()


_THINK = Marks("<think>", "</think>")
#: Marks that are recognised at the start of a completion, whatever the chat template says.
_KNOWN = (
    _THINK,  # DeepSeek R1, Qwen3, QwQ, SmolLM3, Nemotron, GLM 4.5, Phi 4, Granite 3.3
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi-VL
    Marks("<longcat_think>", "</longcat_think>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|channel>", "<channel|>"),  # Gemma 4
    Marks("<unused94>thought", "<unused95>"),  # MedGemma
    Marks(  # Command A Reasoning
        "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", ("<|END_RESPONSE|>",)
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
        ("<|end|>", "<|start|>", "<|return|>"),
        without_thought="<|channel|>final<|message|>",
    ),
    Marks("Here is my thought process:", "Here is my response:"),  # Granite 3.2
    Marks("Here's my thought process:", "Here's my response:"),
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
)

#: Tags with these words mark thinking if a chat template uses them: <thought>, [REASONING], ...
_WORDS = r"think|thought|reason|reflect|analysis|ponder|deliberat|scratchpad|rationale|monologue"
_TAG = re.compile(
    rf"(?i)<(?!/)[^<>\s/'\"]{{0,20}}(?:{_WORDS})[^<>\s/'\"]{{0,20}}>"
    rf"|\[(?!/)[^\[\]\s/'\"]{{0,20}}(?:{_WORDS})[^\[\]\s/'\"]{{0,20}}\]"
)
_PAIRED_WORDS = (("START", "END"), ("start", "end"), ("BEGIN", "END"), ("begin", "end"))


@dataclass(frozen=True)
class Reading:
    """How to read a completion: where it begins, and which marks its chat template knows."""

    inside: Marks | None = None
    """The marks of the thought in which the completion begins; None if it begins outside."""
    marks: tuple[Marks, ...] = (_THINK,)
    """Marks that the chat template uses; text before a closing mark is a thought."""

    def said(self, text: str) -> str:
        """The completion without its thinking; "" if the thinking never ends."""
        return self._read(text)[0]

    def thinks(self, text: str) -> bool:
        """Whether the completion contains a thought."""
        return self._read(text)[1] is not None

    def is_unclosed(self, text: str) -> bool:
        """Whether the completion contains a thought that never ends."""
        return self._read(text)[1] is False

    def _read(self, text: str) -> tuple[str, bool | None]:
        """The answer, and whether the thought before it was closed; None without a thought.

        The last closing mark counts, so a mark that is quoted in a thought does not end it.
        """
        closed: bool | None = None
        marks = self.inside or self._marks_in(text)
        while marks is not None:  # at most once for each kind of marks
            _, found, rest = text.rpartition(marks.closing)
            if not found:
                return "", False
            text, closed = marks.answer(rest), True
            marks = self._marks_in(text)
        if closed is None:
            return self._without_marks(text)
        return text, closed

    def _without_marks(self, text: str) -> tuple[str, bool | None]:
        """A text that closes no thought; "" if it opens one at the start or end of a line."""
        for marks in self.marks:
            if marks.before_answer and text.lstrip().startswith(marks.before_answer):
                return marks.answer(text), None
            mark = re.escape(marks.opening)
            # inside of a line it is quoted, or a word like others
            if re.search(rf"(?m)^[ \t]*{mark}|{mark}[ \t]*$", text):
                return "", False
        return text, None

    def _marks_in(self, text: str) -> Marks | None:
        start = text.lstrip()
        for marks in (*self.marks, *_KNOWN):
            if start.startswith(marks.opening):
                return marks
        return next((marks for marks in self.marks if marks.closing in text), None)


def without_thinking(text: str) -> str:
    """A completion of an unknown chat template without its thinking; "" if that never ends."""
    return Reading().said(text)


def reading_of_most(texts: Sequence[str]) -> Reading:
    """How to read the replies of a model whose chat template is unknown.

    If most of them close a thought that they did not open, the template opens it. Then a reply
    without a closing mark is an unclosed thought.
    """
    plain = Reading()
    for marks in _KNOWN:
        outside = [text for text in texts if not text.lstrip().startswith(marks.opening)]
        closing = sum(marks.closing in text for text in outside)
        if 2 * closing > len(texts):
            return Reading(marks, (marks, *plain.marks))
    return plain


class Thinking:
    """What a chat template says about thinking.

    Args:
        template: the chat template.
        reply_start: the template's text between a user's turn and the reply, rendered.
    """

    def __init__(self, template: str, reply_start: str) -> None:
        named = [
            marks for marks in _KNOWN if marks.opening in template or marks.closing in template
        ]
        tags = dict.fromkeys(_TAG.findall(reply_start) + _TAG.findall(template))
        taken = {mark for marks in _KNOWN for mark in (marks.opening, marks.closing)}
        derived = [
            Marks(tag, closing)
            for tag in tags
            if tag not in taken and (closing := _closing_of(tag, template, reply_start))
        ]
        # a reply that begins inside of another mark of the table still has to be read by it
        rendered = [marks for marks in _KNOWN if marks.opening in reply_start]
        self.marks = tuple(dict.fromkeys([*derived, *named, *rendered, _THINK]))
        self._reply_start = reply_start
        first = min(
            (i for m in self.marks if (i := reply_start.find(m.opening)) >= 0), default=None
        )
        self._header = _squash(reply_start[:first])

    def reading(self, prompt: str) -> Reading:
        """How to read a reply to ``prompt``: text, of which the end is enough.

        A template may decide by the prompt whether a reply begins inside a thought (``/no_think``).
        Only what follows the header of the assistant's turn counts: a query may spell marks too.
        """
        if not self._header:
            return Reading(self._open_in(_squash(self._reply_start)), self.marks)
        _, found, start = _squash(prompt).rpartition(self._header)
        if found:
            return Reading(self._open_in(start), self.marks)
        # a prompt that was not written by this template
        last = next((m for m in self.marks if start.endswith(_squash(m.opening))), None)
        return Reading(last, self.marks)

    def before(self, prompt: str, prefix: str) -> str:
        """What must stand between a prompt and the start of an answer, to end a thought before."""
        if any(mark in prefix for m in self.marks for mark in (m.opening, m.closing)):
            return ""  # the prefix opens or closes the thought itself
        inside = self.reading(prompt).inside
        if inside is not None:
            space = "\n" if prompt.endswith("\n") else ""
            return f"{space}{inside.closing}{inside.before_answer}{2 * space}"
        direct = next((m for m in self.marks if m.without_thought), None)
        if direct is not None and not prompt.rstrip().endswith(direct.without_thought):
            return direct.without_thought
        return ""

    def _open_in(self, start: str) -> Marks | None:
        """The marks of the last thought in the squashed text if it is open, else None."""
        last, found = -1, None
        for marks in self.marks:
            opening, closing = (
                start.rfind(_squash(marks.opening)),
                start.rfind(_squash(marks.closing)),
            )
            # equal if the closing mark begins with the opening one
            if opening > max(last, closing):
                last, found = opening, marks
        return found


def _closing_of(tag: str, template: str, reply_start: str) -> str | None:
    """The mark that closes a tag; None if the template uses the tag for something else."""
    slashed = f"{tag[0]}/{tag[1:]}"
    if tag.startswith("<|"):
        slashed = f"<|/{tag[2:]}"
    swapped = [tag.replace(a, b) for a, b in _PAIRED_WORDS if a in tag]
    for closing in (*swapped, slashed):
        if closing in template:
            return closing
    return slashed if reply_start.rstrip().endswith(tag) else None


def _squash(text: str) -> str:
    """The text without white space, which some tokenizers do not keep."""
    return "".join(text.split())
