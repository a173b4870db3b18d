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
from datetime import datetime
from typing import Any

#: The chat template for models that have none: each turn's text, then a line break.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
)

#: The date that templates get instead of today's; it is the default of Llama 3's template. With
#: the real date, a run with the same seed would differ from day to day.
FIXED_DATE = datetime(2024, 7, 26)

# A macro, because a function cannot be passed to a template as an argument. Jinja removes the line
# break after the macro, so that the template's first line still starts a line.
_DIRECTIVES = ("-d", "-m", *"aAbBdHIjmMpSuUwWyY")
_FIXED_STRFTIME = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{d}', '{FIXED_DATE.strftime('%' + d)}')" for d in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)

#: Marks the position of a slot in a rendered template.
_SENTINEL = "\ue000{}\ue001"
#: Characters in no vocabulary: a private-use character, which some tokenizers drop, and a
#: hieroglyph.
_UNKNOWN = "\ue0ff\U00013000"


def with_fixed_date(chat_template: str) -> str:
    """The chat template with ``strftime_now`` fixed to :data:`FIXED_DATE`."""
    if "strftime_now" not in chat_template:
        return chat_template
    return _FIXED_STRFTIME + chat_template


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Replace each ``{slot}`` of a template, in one pass: slots inside of a slot's text stay."""
    if not slots:
        return template
    names = "|".join(map(re.escape, slots))
    return re.sub(rf"\{{({names})\}}", lambda m: slots[m.group(1)], template)


def cut_pair(query_ids: list[int], answer_ids: list[int], room: int) -> tuple[list[int], list[int]]:
    """Shorten a query and its answer to ``room`` tokens together, each by cutting its middle.

    The answer keeps all tokens if possible, but a quarter of the room stays for the query (or less,
    if the query is shorter): an answer cannot be judged alone.
    """
    answer_ids = _cut_middle(answer_ids, room - min(len(query_ids), max(0, room) // 4))
    return _cut_middle(query_ids, room - len(answer_ids)), answer_ids


def _cut_middle(ids: list[int], room: int) -> list[int]:
    if len(ids) <= room:
        return ids
    tail = max(0, room) // 2
    return ids[: max(0, room) - tail] + ids[len(ids) - tail :]


def turn_end_ids(tokenizer: Any, template_kwargs: Mapping[str, Any]) -> list[int]:
    """The control token that follows an assistant's text in the chat template.

    The model was trained to end its turns with it, even if its generation config does not list it
    as a stop token. -> a list of one id; empty if no control token follows there.
    """
    return ChatCodec(tokenizer, template_kwargs, ()).turn_end_ids()


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
    """

    def __init__(
        self, tokenizer: Any, template_kwargs: Mapping[str, Any], stop_ids: Sequence[int]
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        self._kwargs = dict(template_kwargs)
        self._chat_template = with_fixed_date(
            tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        )
        special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        controls = {**tokenizer.get_added_vocab(), **dict(special)}
        # runs of white space (some written with U+2581) are added tokens, but no control tokens
        controls = {t: i for t, i in controls.items() if t.replace("\u2581", " ").strip()}
        # the unknown token is not a control token if plain text can contain it
        if tokenizer.unk_token_id in self._tokenize(_UNKNOWN):
            controls.pop(tokenizer.unk_token, None)
        self._control_ids = frozenset(controls.values())
        self._spelling = re.compile("|".join(map(re.escape, controls))) if controls else None
        self._expected: dict[_Turns, Counter[int]] = {}

    def encode(self, template: str, slots: Mapping[str, str], prefix: str = "") -> list[int]:
        """Encode a prompt: a user's turn, then the header of the assistant's turn.

        Args:
            template: the user's turn, trusted text with slots such as ``{query}``.
            slots: text for each slot by name, written by a player; stripped of white space.
            prefix: trusted start of the assistant's reply, appended to the prompt.
        """
        return self._encode(_Turns((("user", template),), prefix, True), slots)

    def encode_dialogue(
        self, query: str, answer: str, max_tokens: int | None = None
    ) -> tuple[list[int], bool]:
        """Encode a query (the user's turn) and its answer (the assistant's turn).

        -> ids, and whether the dialogue was cut to ``max_tokens``. A cut removes the middle of the
        query, and of the answer too if that is not enough (:func:`cut_pair`).
        """
        turns = _Turns((("user", "{query}"), ("assistant", "{answer}")), "", False)
        ids = self._encode(turns, {"query": query, "answer": answer})
        if max_tokens is None or len(ids) <= max_tokens:
            return ids, False
        empty = len(self._encode_apart(turns, {"query": "", "answer": ""}))
        query_ids, answer_ids = cut_pair(
            self.encode_plain(query.strip()),
            self.encode_plain(answer.strip()),
            max_tokens - empty,
        )
        return self._fill_apart(turns, {"query": query_ids, "answer": answer_ids}), True

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Encode a conversation, then the header of the assistant's next turn.

        Args:
            messages: (role, text) turns; "user" and "assistant" alternate, the first and the last
                turn are the user's. Texts are stripped of white space.

        Raises:
            ValueError: a role is unknown, or the roles are in the wrong order.
        """
        roles = [role for role, _ in messages]
        if roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or not len(roles) % 2:
            raise ValueError(f"roles are {roles}; give user, assistant, ..., user")
        slots = {f"{role[0]}{i}": text for i, (role, text) in enumerate(messages)}
        turns = tuple((role, f"{{{name}}}") for role, name in zip(roles, slots, strict=True))
        return self._encode(_Turns(turns, "", True), slots, may_hide=True)

    def turn_end_ids(self) -> list[int]:
        """See :func:`turn_end_ids`."""
        turns = _Turns((("user", "x"), ("assistant", "{answer}")), "", False)
        mark = _SENTINEL.format(0)
        behind = self._render(turns, {"answer": mark}).rpartition(mark)[2]
        return [i for i in self._tokenize(behind.lstrip())[:1] if i in self._control_ids]

    def _encode(
        self, turns: "_Turns", slots: Mapping[str, str], may_hide: bool = False
    ) -> list[int]:
        """Encode the filled conversation as ``apply_chat_template`` does, if that is safe.

        Otherwise encode each slot separately, as plain text. It is unsafe if a slot adds a control
        token, or if the template hides part of a slot and ``may_hide`` is false.
        """
        slots = {name: text.strip() for name, text in slots.items()}
        rendered = self._render(turns, slots)
        ids = self._tokenize(rendered)
        # some templates drop parts of a text (past thinking), which would hide them from a judge
        whole = may_hide or all(text in rendered for text in slots.values())
        if whole and self._controls(ids) == self._expected_controls(turns, slots):
            return ids
        if may_hide:
            slots = self._shown(turns, slots)
        return self._encode_apart(turns, slots)

    def encode_plain(self, text: str) -> list[int]:
        """Encode a text as plain text: the ids contain no control token, even if it spells one."""
        ids: list[int] = []
        for piece in self._broken_spellings(text):
            piece_ids = self._tokenize(piece, split_special_tokens=True)
            if self._control_ids.isdisjoint(piece_ids):
                ids += piece_ids
            else:  # normalised to a control token: encode single characters, drop control tokens
                by_char = [self._tokenize(char, split_special_tokens=True) for char in piece]
                ids += [i for char_ids in by_char for i in char_ids if i not in self._control_ids]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a completion without its stop token; other control tokens stay, spelled out."""
        ids = list(ids)
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        text = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _render(self, turns: "_Turns", slots: Mapping[str, str]) -> str:
        messages = [{"role": r, "content": fill(t, slots)} for r, t in turns.templates]
        rendered = self.tokenizer.apply_chat_template(
            messages,
            chat_template=self._chat_template,
            tokenize=False,
            add_generation_prompt=turns.reply,
            **self._kwargs,
        )
        return str(rendered) + turns.prefix

    def _tokenize(self, text: str, **kwargs: Any) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **kwargs)["input_ids"])

    def _controls(self, ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in self._control_ids)

    def _expected_controls(self, turns: "_Turns", slots: Mapping[str, str]) -> Counter[int]:
        """Count the template's control tokens, by rendering it with harmless slots."""
        if turns not in self._expected:
            rendered = self._render(turns, dict.fromkeys(slots, "x"))
            self._expected[turns] = self._controls(self._tokenize(rendered))
        return self._expected[turns]

    def _shown(self, turns: "_Turns", slots: Mapping[str, str]) -> dict[str, str]:
        """The part of each slot that the template shows; some drop the thinking of past turns."""
        marks = {name: _SENTINEL.format(k) for k, name in enumerate(slots)}
        frame, shown = self._render(turns, marks), dict(slots)
        for name, text in slots.items():
            before, _, behind = frame.partition(marks[name])
            rendered = self._render(turns, {**marks, name: text})
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
                ids += self._tokenize(piece)
        return ids

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
