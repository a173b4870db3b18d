"""Encode chat turns as token ids, and decode completions.

A chat template marks turns by control tokens such as ``<|im_end|>``. A model may write the same
characters, and a plain tokenizer call would turn them into the control token: a query could then
end its turn and start another. :class:`ChatCodec` prevents this. Text in templates is trusted; text
in slots, which a player wrote, is encoded as plain text, whatever it spells.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lsp_lightning.text.controls import PlainTokenizer
from lsp_lightning.text.cutting import cut_before_tokenizing, cut_pair, cut_slots
from lsp_lightning.text.rendering import (
    FIXED_DATE,
    PLAIN_TEMPLATE,
    ChatTemplate,
    ChatTemplateError,
    with_fixed_date,
)
from lsp_lightning.text.thinking import Reading, Thinking
from lsp_lightning.text.vocabulary import require_ids_below

__all__ = [
    "FIXED_DATE",
    "PLAIN_TEMPLATE",
    "ChatCodec",
    "cut_pair",
    "fill",
    "turn_end_ids",
    "with_fixed_date",
]

#: Marks the position of a slot in a rendered template.
_SENTINEL = "\ue000{}\ue001"
#: The header of an assistant's turn and the start of the reply have at most this many tokens.
_REPLY_START_TOKENS = 256


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Replace each ``{slot}`` of a template, in one pass: slots inside of a slot's text stay."""
    if not slots:
        return template
    names = "|".join(map(re.escape, slots))
    return re.sub(rf"\{{({names})\}}", lambda m: slots[m.group(1)], template)


def turn_end_ids(
    tokenizer: Any, template_kwargs: Mapping[str, Any], key: str = "model.base"
) -> list[int]:
    """The control token that follows an assistant's text in the chat template.

    The model was trained to end its turns with it, even if its generation config does not list it
    as a stop token. -> a list of one id; empty if no control token follows there.

    Raises:
        ChatTemplateError: the chat template fails.
    """
    return ChatCodec(tokenizer, template_kwargs, (), key).turn_end_ids()


@dataclass(frozen=True)
class _Turns:
    """A conversation of trusted templates."""

    templates: tuple[tuple[str, str], ...]
    """Role of each turn and its text, with slots in braces."""
    prefix: str
    """Start of the assistant's reply, if it is given."""
    reply: bool
    """Whether the header of an assistant's turn follows."""


class ChatCodec:
    """Encodes chat turns with a tokenizer's chat template, and decodes completions.

    Slots may hold text that spells control tokens; it is encoded as plain text. Slots without such
    text give exactly the ids of the tokenizer's ``apply_chat_template``.

    Args:
        tokenizer: any Hugging Face tokenizer; :data:`PLAIN_TEMPLATE` is used if it has no template.
        template_kwargs: fixed arguments of the chat template (``date_string``,
            ``enable_thinking: false``). Templates that ask for today's date get :data:`FIXED_DATE`.
        stop_ids: ids of the tokens that end a completion.
        key: the config key of the model, for error messages.
        rows: rows of the model's embedding; None if unknown. Prompts with higher ids are refused.

    Raises:
        ChatTemplateError: the tokenizer has several chat templates and no default. Methods that
            encode raise it too, if the chat template fails.
    """

    def __init__(
        self,
        tokenizer: Any,
        template_kwargs: Mapping[str, Any],
        stop_ids: Sequence[int],
        key: str = "model.base",
        rows: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        self._rows = rows
        self._template = ChatTemplate(tokenizer, template_kwargs, key)
        self._plain = PlainTokenizer(tokenizer)
        self._expected: dict[_Turns, Counter[int]] = {}

    def check(self) -> None:
        """Raise ChatTemplateError unless the template shows a query and can encode an answer."""
        self._template.check()
        self.encode("{query}", {"query": "x"})
        self.encode_dialogue("x", "x")

    def encode(
        self,
        template: str,
        slots: Mapping[str, str],
        prefix: str = "",
        max_tokens: int | None = None,
    ) -> list[int]:
        """Encode a prompt: a user's turn, then the header of the assistant's turn.

        Args:
            template: the user's turn, trusted text with slots such as ``{query}``.
            slots: text for each slot by name, written by a player; stripped of white space.
            prefix: trusted start of the assistant's answer, appended to the prompt. If the chat
                template opens a thought, the thought is closed before.
            max_tokens: a longer prompt loses the middle of its longest slots; None is no limit.
        """
        turns = _Turns((("user", template),), prefix, True)
        if max_tokens is None:
            return self._encode(turns, slots)
        slots = {name: cut_before_tokenizing(text, max_tokens) for name, text in slots.items()}
        ids = self._encode(turns, slots)
        if len(ids) <= max_tokens:
            return ids
        room = max_tokens - len(self._encode_apart(turns, dict.fromkeys(slots, "")))
        encoded = {name: self.encode_plain(text.strip()) for name, text in slots.items()}
        return self._fill_apart(turns, cut_slots(encoded, room))

    def encode_dialogue(
        self, query: str, answer: str, max_tokens: int | None = None
    ) -> tuple[list[int], bool]:
        """Encode a query (the user's turn) and its answer (the assistant's turn).

        -> ids, and whether the dialogue was cut to ``max_tokens``. A cut removes the middle of the
        query, and of the answer too if that is not enough (:func:`cut_pair`).
        """
        turns = _Turns((("user", "{query}"), ("assistant", "{answer}")), "", False)
        whole = len(query) + len(answer)
        if max_tokens is not None:
            query, answer = (cut_before_tokenizing(text, max_tokens) for text in (query, answer))
        ids = self._encode(turns, {"query": query, "answer": answer})
        if max_tokens is None or len(ids) <= max_tokens:
            return ids, len(query) + len(answer) < whole
        empty = len(self._encode_apart(turns, {"query": "", "answer": ""}))
        query_ids, answer_ids = cut_pair(
            self.encode_plain(query.strip()),
            self.encode_plain(answer.strip()),
            max_tokens - empty,
        )
        return self._fill_apart(turns, {"query": query_ids, "answer": answer_ids}), True

    def encode_chat(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> list[int]:
        """Encode a conversation, then the header of the assistant's next turn.

        Args:
            messages: (role, text) turns; "user" and "assistant" alternate, the first and the last
                turn are the user's. Texts are stripped of white space.
            prefix: trusted start of the assistant's next turn, see :meth:`encode`.

        Raises:
            ValueError: a role is unknown, or the roles are in the wrong order.
        """
        roles = [role for role, _ in messages]
        if roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or not len(roles) % 2:
            raise ValueError(f"roles are {roles}; give user, assistant, ..., user")
        slots = {f"{role[0]}{i}": text for i, (role, text) in enumerate(messages)}
        turns = tuple((role, f"{{{name}}}") for role, name in zip(roles, slots, strict=True))
        return self._encode(_Turns(turns, prefix, True), slots, may_hide=True)

    def turn_end_ids(self) -> list[int]:
        """See :func:`turn_end_ids`."""
        turns = _Turns((("user", "x"), ("assistant", "{answer}")), "", False)
        mark = _SENTINEL.format(0)
        behind = self._render(turns, {"answer": mark}).rpartition(mark)[2]
        first = self._plain.tokenize(behind.lstrip())[:1]
        return [i for i in first if i in self._plain.control_ids]

    def _encode(
        self, turns: "_Turns", slots: Mapping[str, str], may_hide: bool = False
    ) -> list[int]:
        """Encode the filled conversation as ``apply_chat_template`` does, if that is safe.

        Otherwise encode each slot separately, as plain text. It is unsafe if a slot adds a control
        token, or if the template hides part of a slot and ``may_hide`` is false.
        """
        slots = {name: text.strip() for name, text in slots.items()}
        try:
            rendered = self._render(turns, slots)
        except ChatTemplateError:
            # the template dislikes these texts; without them it must work, or the error is raised
            return self._encode_apart(turns, slots)
        ids = self._plain.tokenize(rendered)
        # some templates drop parts of a text (past thinking), which would hide them from a judge
        whole = may_hide or all(text in rendered for text in slots.values())
        if self._plain.controls(ids) == self._expected_controls(turns, slots) and whole:
            return ids
        if may_hide:
            slots = self._shown(turns, slots)
        return self._encode_apart(turns, slots)

    def encode_plain(self, text: str) -> list[int]:
        """Encode a text as plain text: the ids contain no control token, even if it spells one."""
        return self._plain.encode_plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a completion without its stop token; other control tokens stay, spelled out.

        The text contains the model's thinking; :meth:`reading` tells how to remove it.
        """
        return self._spelled(ids[:-1] if len(ids) and ids[-1] in self.stop_ids else ids)

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Decode what a completion adds to tokens before it.

        Some decoders drop a space at the start of a text: alone, the completion would lose it.
        """
        start, whole = self._spelled(before), self.decode([*before, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    def reading(self, prompt: Sequence[int]) -> Reading:
        """How to read a completion of this prompt: what in it is thinking."""
        return self._thinking.reading(self._spelled(prompt[-_REPLY_START_TOKENS:]))

    @cached_property
    def _thinking(self) -> Thinking:
        mark, answer = _SENTINEL.format(0), _SENTINEL.format(1)
        rendered = self._render(_Turns((("user", mark),), "", True), {})
        past = self._render(_Turns((("user", mark), ("assistant", answer)), "", False), {})
        return Thinking(
            self._template.text,
            rendered.rpartition(mark)[2],
            past.partition(mark)[2].partition(answer)[0],
        )

    def _spelled(self, ids: Sequence[int]) -> str:
        keep = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(ids), **keep))

    def _render(self, turns: "_Turns", slots: Mapping[str, str]) -> str:
        messages = [{"role": r, "content": fill(t, slots)} for r, t in turns.templates]
        return self.render(messages, turns.reply, turns.prefix)

    def render(self, messages: Sequence[Mapping[str, str]], reply: bool, prefix: str = "") -> str:
        """Render trusted messages; with the header of a reply and its trusted start if given."""
        rendered = self._template.render(messages, reply)
        return rendered + self._thinking.before(rendered, prefix) + prefix if prefix else rendered

    def _expected_controls(self, turns: "_Turns", slots: Mapping[str, str]) -> Counter[int]:
        """Count the template's control tokens, by rendering it with harmless slots."""
        if turns not in self._expected:
            rendered = self._render(turns, dict.fromkeys(slots, "x"))
            found = self._plain.controls(self._plain.tokenize(rendered))
            require_ids_below(self._rows, found, self.tokenizer)
            self._expected[turns] = found
        return self._expected[turns]

    def _shown(self, turns: "_Turns", slots: Mapping[str, str]) -> dict[str, str]:
        """The part of each slot that the template shows; some drop the thinking of past turns."""
        marks = {name: _SENTINEL.format(k) for k, name in enumerate(slots)}
        frame, shown = self._render(turns, marks), dict(slots)
        for name, text in slots.items():
            before, _, behind = frame.partition(marks[name])
            try:
                rendered = self._render(turns, {**marks, name: text})
            except ChatTemplateError:
                continue
            if rendered.startswith(before) and rendered.endswith(behind):
                shown[name] = rendered[len(before) : len(rendered) - len(behind)]
        return shown

    def _encode_apart(self, turns: "_Turns", slots: Mapping[str, str]) -> list[int]:
        return self._fill_apart(turns, {name: self.encode_plain(t) for name, t in slots.items()})

    def _fill_apart(self, turns: "_Turns", slots: Mapping[str, list[int]]) -> list[int]:
        sentinels = {_SENTINEL.format(k): name for k, name in enumerate(slots)}
        rendered = self._render(turns, {name: mark for mark, name in sentinels.items()})
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(map(re.escape, sentinels))})", rendered):
            if piece in sentinels:
                ids += slots[sentinels[piece]]
            elif piece:
                ids += self._plain.tokenize(piece)
        return ids
