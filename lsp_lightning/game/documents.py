"""Documents: passages of a user's text, which the Challenger writes queries about."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.game.file_kinds import is_parquet
from lsp_lightning.game.queries import QuerySource
from lsp_lightning.game.query_files import json_lines, parquet_rows, read_rows, text_lines
from lsp_lightning.game.query_keys import TEXT_EXAMPLE, BadRow, Row, document_of, is_text_key
from lsp_lightning.game.rows import read_each
from lsp_lightning.seeding import derive_seed, permutation
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import read_template
from lsp_lightning.text.words import SENTENCE_END, SPACED_END, WORD

_KEY = "data.queries.init_args"
#: The defaults: other values without documents are a mistake.
QUERIES_PER_PASSAGE, PASSAGE_WORDS = 4, 120
#: Most characters of all texts together: a run of thousands of rounds sees no more.
_MOST_CHARACTERS = 2**26
#: Most passages whose tokens are counted to find the longest one.
_MOST_COUNTED = 256
_FORMATS = "use .txt, .jsonl or .parquet"
_BLANK_LINE = re.compile(r"\n\s*\n")


class Documents:
    """The passages of a file, and those that each round is about.

    Args:
        path: a file, see :func:`read_passages`.
        per_passage: queries about each passage; at least 2, because they are compared.
        words: most words of a passage.
    """

    def __init__(self, path: str, per_passage: int, words: int) -> None:
        reason = "the queries about a passage are compared with each other"
        require_at_least(per_passage, 2, f"{_KEY}.queries_per_passage", reason)
        require_at_least(words, 1, f"{_KEY}.passage_words", "a passage needs a word")
        self.passages = read_passages(path, f"{_KEY}.documents", words)
        self.per_passage = per_passage
        self._hash = f"{derive_seed(0, *self.passages):x}"

    def __len__(self) -> int:
        return len(self.passages)

    def describe(self) -> str:
        """The number of passages, and a hash of their texts."""
        return f"{self.per_passage} queries about each of {len(self)} passages, {self._hash}"

    def check(self, num_queries: int) -> None:
        """Raise ConfigError unless N queries are the same number for each passage."""
        if num_queries % self.per_passage:
            problem = (
                f"is {self.per_passage}, which does not divide data.num_queries, {num_queries}"
            )
            remedy = "set a divisor, or change data.num_queries"
            raise ConfigError(f"{_KEY}.queries_per_passage", problem, remedy)

    def numbers(self, places: Sequence[int]) -> list[int]:
        """The number of the passage, within the round, that the query at each place is about."""
        return [place // self.per_passage for place in places]

    def drawn(
        self, num_queries: int, index: int, seed: int, per_round: int | None = None
    ) -> list[str]:
        """The passages of a round, the next ones of an endless stream of shuffled passes.

        A round takes its place in the stream by N alone: if it has fewer new queries, because of
        the pool, the passages left over are skipped, and no other one comes twice in a pass.

        Args:
            num_queries: new queries; the last passage has fewer if the numbers do not divide.
            index: the round, from 0.
            seed: the run's seed.
            per_round: N; None if it is ``num_queries``.
        """
        size, count = len(self), self._count(num_queries)
        start = index * max(count, self._count(per_round or 0))
        places = range(start, start + count)
        passes = {place // size for place in places}
        orders = {k: permutation(size, derive_seed(seed, k, "passages")) for k in passes}
        return [self.passages[orders[place // size][place % size]] for place in places]

    def _count(self, num_queries: int) -> int:
        """How many passages so many queries are about."""
        return -(-num_queries // self.per_passage)

    def longest(self, codec: ChatCodec | None) -> tuple[str, int]:
        """The passage with most tokens, and their number with its tags disarmed.

        Without a tokenizer, the estimate is one token per three characters.
        """
        if codec is None:
            longest = max(self.passages, key=len)
            return longest, len(longest) // 3
        by_bytes = sorted(self.passages, key=lambda text: len(text.encode()))
        counts = {
            text: len(codec.encode_plain(text.replace("<", "\u2039")))
            for text in by_bytes[-_MOST_COUNTED:]
        }
        return max(counts.items(), key=lambda item: item[1])


def read_documents(path: str | None, per_passage: int, words: int) -> Documents | None:
    """The documents of a file; None without a file.

    Raises:
        ConfigError: the file or a number cannot be used, or a number is set without a file.
    """
    if path is not None:
        return Documents(path, per_passage, words)
    values = {
        "queries_per_passage": (per_passage, QUERIES_PER_PASSAGE),
        "passage_words": (words, PASSAGE_WORDS),
    }
    for name, (value, default) in values.items():
        if value != default:
            problem = f"is {value}, but {_KEY}.documents is null: no query is about a passage"
            raise ConfigError(f"{_KEY}.{name}", problem, f"set documents, or leave it at {default}")
    return None


def read_passages(path: str, key: str, words: int) -> tuple[str, ...]:
    """The passages of a file, each once.

    A text file is one text. JSON Lines, Parquet and a split of a Hub dataset have a text in each
    row, under the key ``text``, ``passage``, ``document``, ``content`` or ``context``.

    Args:
        path: the file, or ``hf:NAME:SPLIT``.
        key: the config key.
        words: most words of a passage.

    Raises:
        ConfigError: the file is missing, too large, or without text, or a row cannot be used.
    """
    total = 0

    def read(row: Mapping[str, Any]) -> list[str]:
        nonlocal total
        text = document_of(row)
        total += len(text)
        if total > _MOST_CHARACTERS:
            raise _too_large(path, key)
        return list(passages_of(text, words))

    rows = read_rows(path, key, _rows, is_text_key)
    found = read_each(rows, path, key, read, TEXT_EXAMPLE)
    passages = tuple(dict.fromkeys(passage for row in found for passage in row))
    if not passages:
        raise ConfigError(key, f"{path!r} contains no text", "give a file with text")
    return passages


def read_passage_prompt(path: str | None, source: QuerySource) -> str | None:
    """The Solver's prompt for queries about a passage; None without a file.

    Raises:
        ConfigError: the file is missing or lacks a slot, or no query of the source has a passage.
    """
    key = "data.passage_prompt"
    if path is None:
        return None
    if source.longest_passage(None) == 0:
        remedy = f"set {_KEY}.documents, or leave it out"
        raise ConfigError(key, "is set, but no query has a passage", remedy)
    return read_template(path, "", key, ("passage", "query"))


def _rows(stream: IO[bytes], file: Path, path: str, key: str) -> Iterator[tuple[str, Row]]:
    """The texts of a file, in the format that its content shows, or else its name."""
    start = stream.read(4096)
    stream.seek(0)
    if is_parquet(start, path, key, _FORMATS):
        return parquet_rows(file, path, key, is_text_key)
    suffix = file.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return json_lines(stream)
    if suffix in (".txt", ".md"):
        return _whole(stream, path, key)
    problem = f"the format of {path!r} is unknown (its name ends in {suffix or 'nothing'!r})"
    raise ConfigError(key, problem, _FORMATS)


def _whole(stream: IO[bytes], path: str, key: str) -> Iterator[tuple[str, Row]]:
    """A text file as one row, after the lines of it that cannot be used."""
    kept: list[str] = []
    total = 0
    for place, line in text_lines(stream, "break the line"):
        if isinstance(line, BadRow):
            yield place, line
            continue
        if "\0" in line:
            yield place, BadRow("contains a NUL character", "remove it")
        total += len(line)
        if total > _MOST_CHARACTERS:
            raise _too_large(path, key)
        kept.append(line)
    yield "the text", {"text": "".join(kept).replace("\0", "")}


def _too_large(path: str, key: str) -> ConfigError:
    problem = f"{path!r} has more than {_MOST_CHARACTERS >> 20} million characters"
    return ConfigError(key, problem, "give a part of it")


def passages_of(text: str, words: int) -> Iterator[str]:
    """Passages of at most so many words: paragraphs, joined while there is room.

    A longer paragraph is split at the ends of sentences; a longer sentence between words.
    """
    passage, room = "", 0
    for paragraph in _BLANK_LINE.split(text.replace("\r\n", "\n")):
        for piece, count in _pieces(paragraph, words):
            if count <= room:
                passage, room = f"{passage}\n\n{piece}", room - count
                continue
            if passage:
                yield passage
            passage, room = piece, words - count
    if passage:
        yield passage


def _pieces(paragraph: str, words: int) -> Iterator[tuple[str, int]]:
    """Parts of a paragraph with their numbers of words; the words of a part follow one another."""
    spans = [word.span() for word in WORD.finditer(paragraph)]
    ends = [i + 1 for i in range(len(spans)) if _ends_sentence(paragraph, spans, i)]
    start = 0
    while start < len(spans):
        stop = min(start + words, len(spans))
        if stop < len(spans):
            place = bisect_right(ends, stop)
            stop = ends[place - 1] if place and ends[place - 1] > start else stop
        yield paragraph[spans[start][0] : spans[stop - 1][1]], stop - start
        start = stop


def _ends_sentence(paragraph: str, spans: Sequence[tuple[int, int]], i: int) -> bool:
    """Whether a sentence ends with a word."""
    word, stop = paragraph[slice(*spans[i])], spans[i][1]
    spaced = i + 1 == len(spans) or spans[i + 1][0] > stop
    return bool(SENTENCE_END.search(word) or (spaced and SPACED_END.search(word)))
