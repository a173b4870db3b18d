"""What counts as a word when the length of a text is measured, in any script."""

import re

#: Chinese and Japanese characters: two of them count as a word.
_SIGNS = r"\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
#: Thai, Lao, Burmese and Khmer characters: five of them count as a word.
_LETTERS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
#: Characters of scripts that write no spaces between words, for a set of a pattern.
UNSPACED = _SIGNS + _LETTERS
_STOPS, _CLOSING = r"\u3002\uff01\uff1f", r"\u300d\u300f"
#: A word. A longer run of other characters counts as several words, so that any text has many.
WORD = re.compile(
    rf"[{_SIGNS}]{{1,2}}[{_STOPS}{_CLOSING}]{{0,8}}|[{_LETTERS}]{{1,5}}|[^\s{UNSPACED}]{{1,40}}"
)
#: The end of a word that ends a sentence: always, and if white space follows.
SENTENCE_END = re.compile(rf"[{_STOPS}][{_CLOSING}]*\Z")
SPACED_END = re.compile(rf"(?:[.!?\u2026]['\"\u2019\u201d\u00bb)\]]*|[{_LETTERS}])\Z")
