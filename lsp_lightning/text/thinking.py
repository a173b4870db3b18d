"""Tell a model's thinking from its answer.

Reasoning models think before they answer, between two marks such as ``<think>`` and ``</think>``.
Some chat templates write the first mark into the prompt, so the completion begins inside a thought
and contains only the second mark. A thought that does not end is not an answer, and neither is the
text before it.

A quoted mark is text. In an answer, quotation marks, inline code and code blocks quote; in a
thought, code blocks do not, because a thought may begin a block that it never ends. A model gains
nothing by quoting the mark that would open a thought: what follows is judged as its answer, as if
it had thought without marks. It cannot end a thought by a quoted mark.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lsp_lightning.text.marks import (
    KNOWN,
    THINK,
    Marks,
    answer_tags,
    marks_at,
    marks_of_template,
)
from lsp_lightning.text.quoting import Quotations

#: Most thoughts of one completion that begin with marks that its template does not spell.
_MOST_UNSPELLED = 8


@dataclass(frozen=True)
class Reading:
    """How to read a completion: where it begins, and which marks its chat template knows."""

    inside: Marks | None = None
    """The marks of the thought in which the completion begins; None if it begins outside."""
    marks: tuple[Marks, ...] = (THINK,)
    """Marks that the chat template uses; text before a closing mark is a thought."""
    answer_tags: tuple[tuple[str, str], ...] = ()
    """Tags that the chat template puts around answers."""

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
        """The answer, and whether the last thought was closed; None without a thought."""
        scan = _Scan(self, text)
        scan.run()
        if scan.thought is not None:
            return (scan.kept, True) if scan.kept is not None else ("", False)
        answer = self.answer(text[scan.begin :], scan.last)
        if scan.last is None and answer == text.strip():
            return text, None
        return answer, None if scan.last is None else True

    def answer(self, text: str, last: Marks | None) -> str:
        """The answer in the text after the mark that closed the last thought."""
        for marks in (last, *self.marks) if last else self.marks:
            before = marks.before_answer
            if before and (text.lstrip().startswith(before) or (marks == last and before in text)):
                text = text.partition(before)[2]
            for end in marks.after_answer:
                text = text.partition(end)[0]
        text = text.strip()
        for opening, closing in self.answer_tags:
            if text.startswith(opening):
                inner = text.removeprefix(opening)
                text = (inner.rpartition(closing)[0] or inner).strip()
        return text


class _Scan:
    """Reads a completion from mark to mark."""

    def __init__(self, reading: Reading, text: str) -> None:
        self.thought = reading.inside
        """The marks of the thought at the current position; None in an answer."""
        self.begin = 0
        """Where the current answer begins."""
        self.last: Marks | None = None
        """The marks of the last thought that was closed."""
        self.kept: str | None = None
        """An answer that had ended when another thought began."""
        self._reading = reading
        self._text = text
        self._quotations = Quotations(text)
        self._spelled = (*reading.marks, reading.inside) if reading.inside else reading.marks
        self._use(self._spelled)
        self._unspelled = 0

    def run(self) -> None:
        """Read to the end of the text."""
        self._begins_unspelled()
        while self._to_unspelled_thought():
            pass

    def _to_unspelled_thought(self) -> bool:
        """Go from mark to mark; True where an answer begins with a mark that must be added."""
        for match in self._pattern.finditer(self._text, self.begin):
            if self._quotations.hold(match.start(), blocks=self.thought is None):
                continue
            mark = match.group()
            if self.thought is None:
                closed = self._closed_by(mark)
                if closed is None:
                    self._open(match)
            else:
                closed = self.thought if self.thought.is_closed_by(mark) else None
            if closed is not None:
                self.last, self.thought, self.kept = closed, None, None
                self.begin = match.end()
                self._quotations.begin(self.begin)
                if self._begins_unspelled():
                    return True
        return False

    def _begins_unspelled(self) -> bool:
        """Whether the answer begins with a mark that the template does not spell; then look for it.

        Only a few times, because each search for other marks costs time.
        """
        if self.thought is not None or self._unspelled == _MOST_UNSPELLED:
            return False
        found = marks_at(self._text, self.begin, self._pattern)
        if found is not None:
            self._unspelled += 1
            self.thought = found
            self._use((*self._spelled, found))
        return found is not None

    def _use(self, marks: tuple[Marks, ...]) -> None:
        """Look for these marks."""
        self._marks = marks
        self._pattern = _pattern(marks)
        self._closings = {m.closing: m for m in reversed(marks)}

    def _closed_by(self, mark: str) -> Marks | None:
        """The marks of a thought that this mark closes."""
        if mark in self._closings:
            return self._closings[mark]
        return next((m for m in self._marks if m.is_closed_by(mark)), None)

    def _open(self, match: re.Match[str]) -> None:
        self.thought = next(m for m in self._marks if m.opening == match.group())
        answer = self._text[self.begin : match.start()]
        ends = [end for marks in self._marks for end in marks.after_answer]
        if self.last and any(end in answer for end in ends):
            self.kept = self._reading.answer(answer, self.last)


@lru_cache
def _pattern(marks: tuple[Marks, ...]) -> re.Pattern[str]:
    """Finds opening and closing marks, of several at one place the longest."""
    literal = {mark for m in marks for mark in (m.opening, m.closing)}
    others = [m.closing_pattern for m in marks if m.closing_pattern]
    return re.compile("|".join([*map(re.escape, sorted(literal, key=len, reverse=True)), *others]))


def without_thinking(text: str) -> str:
    """A completion of an unknown chat template without its thinking; "" if that never ends."""
    return Reading().said(text)


def reading_of_most(texts: Sequence[str]) -> Reading:
    """How to read the replies of a model whose chat template is unknown.

    If most of them close a thought that they did not open, the template opens it. Then a reply
    without a closing mark is an unclosed thought.
    """
    plain = Reading()
    for marks in KNOWN:
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
        past_start: the same where the reply is given; "" if unknown.
    """

    def __init__(self, template: str, reply_start: str, past_start: str = "") -> None:
        named = [m for m in KNOWN if m.opening in template or m.closing in template]
        # a reply that begins inside of another mark of the table still has to be read by it
        rendered = [marks for marks in KNOWN if marks.opening in reply_start]
        derived = marks_of_template(template, reply_start, past_start)
        self.marks = tuple(dict.fromkeys([*derived, *named, *rendered, THINK]))
        self._answer_tags = answer_tags(template)
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
            return self._reading_from(self._open_in(_squash(self._reply_start)))
        _, found, start = _squash(prompt).rpartition(self._header)
        if found:
            return self._reading_from(self._open_in(start))
        # a prompt that was not written by this template
        last = next((m for m in self.marks if start.endswith(_squash(m.opening))), None)
        return self._reading_from(last)

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

    def _reading_from(self, inside: Marks | None) -> Reading:
        return Reading(inside, self.marks, self._answer_tags)

    def _open_in(self, start: str) -> Marks | None:
        """The marks of the last thought in the squashed text if it is open, else None."""
        found = None
        openings = {_squash(marks.opening): marks for marks in reversed(self.marks)}
        closings = {_squash(marks.closing) for marks in self.marks}
        both = sorted({*openings, *closings}, key=len, reverse=True)
        for mark in re.findall("|".join(map(re.escape, both)), start):
            if mark in openings:
                found = openings[mark]
            elif found is not None and mark == _squash(found.closing):
                found = None
        return found


def _squash(text: str) -> str:
    """The text without white space, which some tokenizers do not keep."""
    return "".join(text.split())
