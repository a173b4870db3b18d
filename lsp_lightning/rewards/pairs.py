"""A query and an answer as a reward model's input: token ids in the form it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.cutting import cut_before_tokenizing, cut_pair


@dataclass(frozen=True)
class Pair:
    """A query with its answer, encoded."""

    ids: list[int]
    """Token ids."""
    types: list[int]
    """Segment of each token, 0 or 1; all 0 in a chat."""
    cut: bool
    """Whether the pair was too long and lost tokens."""


class PairEncoder(Protocol):
    """Encodes pairs of at most ``max_tokens`` tokens."""

    def encode(self, query: str, answer: str, max_tokens: int) -> Pair:
        """Encode a pair. If too long, it loses the middle of the query, then of the answer."""


class ChatPairs:
    """Query and answer as two turns of the model's chat template.

    Args:
        tokenizer: a tokenizer with a chat template.
        template_kwargs: fixed arguments of the chat template.
        key: the config key of the model, for error messages.
    """

    def __init__(
        self, tokenizer: Any, template_kwargs: Mapping[str, Any], key: str = "model.rewards"
    ) -> None:
        self._codec = ChatCodec(tokenizer, template_kwargs, (), key)

    def encode(self, query: str, answer: str, max_tokens: int) -> Pair:
        """See :class:`PairEncoder`."""
        ids, cut = self._codec.encode_dialogue(query, answer, max_tokens)
        return Pair(ids, [0] * len(ids), cut)


class SegmentPairs:
    """Query and answer as the two segments of an encoder's input: ``[CLS] query [SEP] answer``.

    Args:
        tokenizer: a fast tokenizer; the positions of its special tokens are read from an example.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._codec = ChatCodec(
            tokenizer, {}, stop_ids=()
        )  # so that no text becomes a control token
        example = tokenizer("x", "x")
        ids, segments = example["input_ids"], example.sequence_ids(0)
        types = example.get("token_type_ids") or [0] * len(ids)
        first, second = segments.index(0), segments.index(1)
        between = len(segments) - segments[::-1].index(0)
        end = len(segments) - segments[::-1].index(1)
        self._frame = (ids[:first], ids[between:second], ids[end:])
        self._frame_types = (types[:first], types[between:second], types[end:])
        self._types = (types[first], types[second])

    def encode(self, query: str, answer: str, max_tokens: int) -> Pair:
        """See :class:`PairEncoder`."""
        texts = [cut_before_tokenizing(text.strip(), max_tokens) for text in (query, answer)]
        query_ids, answer_ids = map(self._codec.encode_plain, texts)
        before, between, after = self._frame
        room = max_tokens - len(before) - len(between) - len(after)
        cut = len(query_ids) + len(answer_ids) > room or texts != [query.strip(), answer.strip()]
        if len(query_ids) + len(answer_ids) > room:
            query_ids, answer_ids = cut_pair(query_ids, answer_ids, room)
        types_before, types_between, types_after = self._frame_types
        return Pair(
            [*before, *query_ids, *between, *answer_ids, *after],
            [
                *types_before,
                *[self._types[0]] * len(query_ids),
                *types_between,
                *[self._types[1]] * len(answer_ids),
                *types_after,
            ],
            cut,
        )
