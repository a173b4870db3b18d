"""Spans: is the answer a short quotation of the passage?"""

import unicodedata
from collections.abc import Sequence

import regex

from lsp_lightning.errors import require_at_least
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier
from lsp_lightning.text.words import UNSPACED, WORD

_KEY = "model.rewards.VerifiableReward.verifier.SpanVerifier"
#: What a word consists of: letters, digits and their combining marks.
_LETTERS = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--[{UNSPACED}]]+"
#: A word, a number such as 1,024 or 3.14, or another character, with its combining marks.
_TOKEN = regex.compile(rf"(?V1){_LETTERS}(?:(?<=\d)[.,](?=\d){_LETTERS})*|\S\p{{M}}*")
_PUNCTUATION = regex.compile(r"\p{P}\p{M}*")
#: Soft hyphens, joiners and other invisible characters.
_INVISIBLE = regex.compile(r"\p{Cf}+")
#: More combining marks than any word has: the time to sort them is quadratic.
_MANY_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")


class SpanVerifier(RoundVerifier):
    """1 if the answer is a short span of the passage that the query is about, else 0.

    A span consists of whole words that follow one another; in scripts without spaces between words,
    of any characters. Case, white space, invisible characters, and punctuation at the ends of the
    answer do not count. This checks that an answer is grounded in the passage, not
    that it answers the query or is true: add a SelfReward for that.

    A query without a passage is malformed.

    Args:
        most_words: most words of an answer; a longer one gets 0. They are counted as the words of
            a passage are, so two Chinese characters are a word, for instance.
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
        passage = _in_lines(_tokens(_folded(group.passage)))
        return Verdict.of([float(self._is_span(answer, passage)) for answer in group.answers])

    def _is_span(self, answer: str, passage: str) -> bool:
        text = _folded(answer)
        tokens = _without_punctuation(_tokens(text))
        words = len(WORD.findall(text))
        return bool(tokens) and words <= self._most_words and _in_lines(tokens) in passage


def _folded(text: str) -> str:
    """The text without invisible characters and differences of case and composition."""
    visible = _MANY_MARKS.sub(r"\1", _INVISIBLE.sub("", text))
    return unicodedata.normalize("NFC", visible).casefold()


def _tokens(text: str) -> list[str]:
    """The words and other characters of a text, without white space."""
    return list(_TOKEN.findall(text))


def _in_lines(tokens: Sequence[str]) -> str:
    """One token in each line, so that only whole ones are found."""
    return "\n".join(("", *tokens, ""))


def _without_punctuation(tokens: Sequence[str]) -> Sequence[str]:
    """The tokens without punctuation at the ends."""
    kept = [i for i, token in enumerate(tokens) if not _is_punctuation(token)]
    return tokens[kept[0] : kept[-1] + 1] if kept else []


def _is_punctuation(token: str) -> bool:
    return _PUNCTUATION.fullmatch(token) is not None
