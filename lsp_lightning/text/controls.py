"""Tokenize text so that it never becomes a control token, whatever it spells."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lsp_lightning.text.cutting import well_formed

#: Characters in no vocabulary: a private-use character, which some tokenizers drop, and a
#: hieroglyph.
_UNKNOWN = "\ue0ff\U00013000"


class PlainTokenizer:
    """A tokenizer that knows its control tokens, and can encode text without them.

    Args:
        tokenizer: any Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        controls = {**tokenizer.get_added_vocab(), **dict(special)}
        # runs of white space (some written with U+2581) are added tokens, but no control tokens
        controls = {t: i for t, i in controls.items() if t.replace("\u2581", " ").strip()}
        # the unknown token is not a control token if plain text can contain it
        if tokenizer.unk_token_id in self.tokenize(_UNKNOWN):
            controls.pop(tokenizer.unk_token, None)
        self.control_ids = frozenset(controls.values())
        self._spelling = re.compile("|".join(map(re.escape, controls))) if controls else None

    def tokenize(self, text: str) -> list[int]:
        """Encode trusted text; spelled control tokens become control tokens."""
        return list(self._tokenizer(well_formed(text), add_special_tokens=False)["input_ids"])

    def controls(self, ids: Sequence[int]) -> Counter[int]:
        """How often each control token occurs."""
        return Counter(i for i in ids if i in self.control_ids)

    def encode_plain(self, text: str) -> list[int]:
        """Encode a text as plain text: the ids contain no control token, even if it spells one."""
        ids: list[int] = []
        pieces = self._broken_spellings(well_formed(text))
        for piece, piece_ids in zip(pieces, self._tokenize_plain(pieces), strict=True):
            if self.control_ids.isdisjoint(piece_ids):
                ids += piece_ids
            else:  # normalised to a control token: encode single characters, drop control tokens
                by_char = self._tokenize_plain(list(piece))
                ids += [i for char_ids in by_char for i in char_ids if i not in self.control_ids]
        return ids

    def _tokenize_plain(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])

    def _broken_spellings(self, text: str) -> list[str]:
        """Split the text after the first character of every spelled control token."""
        if self._spelling is None:
            return [text] if text else []
        pieces, start = [], 0
        # matches may overlap, so search again from one character after each match's start
        match = self._spelling.search(text)
        while match:
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
            match = self._spelling.search(text, start)
        pieces.append(text[start:])
        return [piece for piece in pieces if piece]
