"""Spans: is the answer a short quotation of the passage?"""

import re
import unicodedata
from collections.abc import Sequence

from lsp_lightning.errors import require_at_least
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier

_KEY = "model.rewards.VerifiableReward.verifier.SpanVerifier"
#: Chinese and Japanese characters, which stand beside each other without a space. Two are a word.
_SIGNS = r"\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SIGN = re.compile(f"[{_SIGNS}]")
#: A word, a number such as 1,024 or 3.14, such a character, or a mark.
_TOKEN = re.compile(rf"[^\W{_SIGNS}]+(?:(?<=\d)[.,](?=\d)[^\W{_SIGNS}]+)*|\S")


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
        passage = _in_lines(_tokens(group.passage))
        return Verdict.of([float(self._is_span(answer, passage)) for answer in group.answers])

    def _is_span(self, answer: str, passage: str) -> bool:
        tokens = _without_marks(_tokens(answer))
        words = len(answer.split()) + len(_SIGN.findall(answer)) // 2
        return bool(tokens) and words <= self._most_words and _in_lines(tokens) in passage


def _tokens(text: str) -> list[str]:
    """The words and marks of a text, without differences of case and white space."""
    return _TOKEN.findall(unicodedata.normalize("NFC", text).casefold())


def _in_lines(tokens: Sequence[str]) -> str:
    """One token in each line, so that only whole ones are found."""
    return "\n".join(("", *tokens, ""))


def _without_marks(tokens: Sequence[str]) -> Sequence[str]:
    """The tokens without punctuation at the ends."""
    kept = [i for i, token in enumerate(tokens) if not _is_mark(token)]
    return tokens[kept[0] : kept[-1] + 1] if kept else []


def _is_mark(token: str) -> bool:
    return len(token) == 1 and unicodedata.category(token).startswith("P")
