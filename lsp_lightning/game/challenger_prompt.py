"""The Challenger's prompt: the task, and examples and a passage that differ between prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.text.chat import ChatCodec, fill
from lsp_lightning.text.fencing import fence, tags_of
from lsp_lightning.text.prompts import (
    ABOUT_PASSAGE,
    ANOTHER,
    ANOTHER_ABOUT_PASSAGE,
    PASSAGE_BELOW,
)
from lsp_lightning.text.rendering import ChatTemplateError

_KEY = "data.queries.init_args"
_SLOT = "{passage}"


@dataclass(frozen=True)
class Shown:
    """What a prompt shows besides the task."""

    examples: tuple[str, ...] = ()
    """Queries, as earlier replies of the conversation."""
    passage: str | None = None
    """The passage to write about, in the last turn; None for none."""


@dataclass(frozen=True)
class ChallengerPrompt:
    """Encodes the prompts of a Challenger."""

    text: str
    """The first turn: trusted text, which may have a slot ``{passage}``."""
    opening: str
    """How each reply begins; "" gives none."""
    fixed: tuple[str, ...] = ()
    """The examples that come from a file; others are queries of the pool."""

    @property
    def has_slot(self) -> bool:
        """Whether the text says where the passage stands."""
        return _SLOT in self.text

    def encode(self, codec: ChatCodec, shown: Shown) -> list[int]:
        """A prompt's tokens: a conversation whose earlier replies are examples, and the opening.

        The passage stands in the last turn, so that the start of all prompts is the same. It cannot
        imitate the tags around it. Queries of the pool that the chat template does not show whole
        are left out.

        Raises:
            ConfigError: the chat template does not show earlier replies.
        """
        if not shown.examples:
            return self._encode_alone(codec, shown.passage)
        first, another = self.text, ANOTHER
        if shown.passage is not None:
            first = fill(first, {"passage": PASSAGE_BELOW})
            another = _filled(ANOTHER_ABOUT_PASSAGE, shown.passage)
        turns = [("user", first)]
        for example in shown.examples:
            turns += [("assistant", example), ("user", ANOTHER)]
        turns[-1] = ("user", another)
        try:
            ids = codec.encode_chat(turns, self.opening)
            seen = _decoded(codec, ids)
        except ChatTemplateError:
            seen = ""
        hidden = [e for e in shown.examples if _decoded(codec, codec.encode_plain(e)) not in seen]
        if not hidden:
            return ids
        if any(example in self.fixed for example in hidden):
            raise ConfigError(
                f"{_KEY}.examples",
                "are shown as earlier replies, but the model's chat template shows none",
                "set examples to null, and put them into a prompt file",
            )
        warn(
            f"{_KEY}.examples_from_pool: the model's chat template hides some queries of the pool, "
            "or a part of them; these are not shown"
        )
        visible = tuple(example for example in shown.examples if example not in hidden)
        return self.encode(codec, replace(shown, examples=visible))

    def _encode_alone(self, codec: ChatCodec, passage: str | None) -> list[int]:
        """A prompt of one turn."""
        if passage is None:
            return codec.encode(self.text, {}, self.opening)
        template = self.text if self.has_slot else f"{self.text}\n\n{ABOUT_PASSAGE}"
        slots = {"passage": fence(passage, tags_of(template))}
        return codec.encode(template, slots, self.opening)


def _filled(template: str, passage: str) -> str:
    return fill(template, {"passage": fence(passage, tags_of(template))})


def _decoded(codec: ChatCodec, ids: Sequence[int]) -> str:
    """The text as the tokenizer knows it, without white space, which depends on what is beside."""
    return "".join(codec.tokenizer.decode(ids).split())
