"""Spans: is the answer a short quotation of the passage?"""

import re
import unicodedata
from collections.abc import Sequence

from lsp_lightning.errors import require_at_least
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier

_KEY = "model.rewards.VerifiableReward.verifier.SpanVerifier"
#: Chinese and Japanese characters, which stand beside each other without a space.
_SIGNS = r"\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


class SpanVerifier(RoundVerifier):
    """1 if the answer is a short span of the passage that the query is about, else 0.

    A span consists of whole words that follow one another. Case, white space, and punctuation at
    the ends of the answer do not count. This checks that an answer is grounded in the passage, not
    that it answers the query or is true: add a SelfReward for that.

    A query without a passage is malformed.

    Args:
        most_words: most words of an answer; a longer one gets 0.
    """

    needs_passage = True

    def __init__(self, most_words: int = 12) -> None:
        require_at_least(most_words, 1, f"{_KEY}.most_words", "an answer needs a word")
        self._most_words = most_words

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """A verdict for each group of a round."""
        return [self._verdict(group) for group in groups]

    def _verdict(self, group: Group) -> Verdict:
        if group.passage is None:
            return Verdict.malformed(len(group.answers))
        passage = _plain(group.passage)
        return Verdict.of([float(self._is_span(answer, passage)) for answer in group.answers])

    def _is_span(self, answer: str, passage: str) -> bool:
        span = _without_marks(_plain(answer))
        if not span or len(span) > len(passage) or len(span.split()) > self._most_words:
            return False
        start, end = _boundaries(span)
        place = passage.find(span)
        while place >= 0:  # a regular expression would take quadratic time
            stop = place + len(span)
            if not start.search(passage[max(0, place - 2) : place]) and not end.match(
                passage[stop : stop + 2]
            ):
                return True
            place = passage.find(span, place + 1)
        return False


def _plain(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _without_marks(text: str) -> str:
    """The text without punctuation and white space at its ends."""
    start, stop = 0, len(text)
    while start < stop and _is_mark(text[start]):
        start += 1
    while start < stop and _is_mark(text[stop - 1]):
        stop -= 1
    return text[start:stop]


def _is_mark(char: str) -> bool:
    return char.isspace() or unicodedata.category(char).startswith("P")


def _boundaries(span: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What must not stand before and after a span of whole words.

    A number does not end within a number, as 3 would in 3.14.
    """
    letter, nothing = rf"[^\W{_SIGNS}]", r"(?!)"
    start = nothing if re.match(f"[{_SIGNS}]", span) else letter
    end = nothing if re.match(f"[{_SIGNS}]", span[-1]) else letter
    start += r"\Z|\d[.,]\Z" if span[0].isdecimal() else r"\Z"
    end += r"|[.,]\d" if span[-1].isdecimal() else ""
    return re.compile(start), re.compile(end)
