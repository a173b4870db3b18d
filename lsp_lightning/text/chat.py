"""Chat turns as token ids. What a player wrote is encoded as plain text, whatever it spells."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

#: For models without a chat template: the text, then a new line.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
)

#: The day it is in every template that asks: Llama 3's own default. The real day in a prompt would
#: make the same seed another run tomorrow.
TODAY = datetime(2024, 7, 26)

# Template arguments reach a template as plain data, so a function has to be a macro. The line break
# behind it keeps the template's first line the start of a line, and is itself trimmed.
_DIRECTIVES = ("-d", "-m", *"aAbBdHIjmMpSuUwWyY")
_PINNED_TODAY = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{d}', '{TODAY.strftime('%' + d)}')" for d in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)

_SENTINEL = "\ue000{}\ue001"
_UNKNOWN = "\ue0ff\U00013000"  # in no vocabulary: for private use, which some drop, and a letter


def pinned(chat_template: str) -> str:
    """The chat template with ``strftime_now`` at a fixed date."""
    if "strftime_now" not in chat_template:
        return chat_template
    return _PINNED_TODAY + chat_template


def fill(template: str, slots: Mapping[str, str]) -> str:
    """The template with each ``{slot}`` replaced in one pass: no slot's text is filled again."""
    if not slots:
        return template
    names = "|".join(map(re.escape, slots))
    return re.sub(rf"\{{({names})\}}", lambda m: slots[m.group(1)], template)


def cut_pair(query_ids: list[int], answer_ids: list[int], room: int) -> tuple[list[int], list[int]]:
    """Query and answer in ``room`` tokens: the query's middle goes first, then the answer's.

    A quarter of the room is the query's, if it needs it: an answer alone cannot be judged.
    """
    answer_ids = _cut_middle(answer_ids, room - min(len(query_ids), max(0, room) // 4))
    return _cut_middle(query_ids, room - len(answer_ids)), answer_ids


def _cut_middle(ids: list[int], room: int) -> list[int]:
    if len(ids) <= room:
        return ids
    tail = max(0, room) // 2
    return ids[: max(0, room) - tail] + ids[len(ids) - tail :]


def turn_end_ids(tokenizer: Any, template_kwargs: Mapping[str, Any]) -> list[int]:
    """The control token that the chat template sets right behind what an assistant said.

    A model learned to end its turns with it, whether or not its settings name it as a stop token.
    -> one id, or none where the template sets no control token there.
    """
    return ChatCodec(tokenizer, template_kwargs, ()).turn_end_ids()


@dataclass(frozen=True)
class _Turns:
    """A trusted conversation with places for slots."""

    templates: tuple[tuple[str, str], ...]
    """Role and text of each turn."""
    prefix: str
    """What the reply is made to begin with."""
    reply: bool
    """Whether the assistant's header follows."""


class ChatCodec:
    """A tokenizer's chat turns, in which what we wrote and what a player wrote stay apart.

    Args:
        tokenizer: any Hugging Face tokenizer.
        template_kwargs: fixed arguments of the chat template (``date_string``,
            ``enable_thinking: false``). Templates that ask for today's date are told a fixed one.
        stop_ids: tokens that end a completion.
    """

    def __init__(
        self, tokenizer: Any, template_kwargs: Mapping[str, Any], stop_ids: Sequence[int]
    ) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        self._kwargs = dict(template_kwargs)
        self._chat_template = pinned(
            tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        )
        special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        controls = {**tokenizer.get_added_vocab(), **dict(special)}
        # runs of white space (written as such or as U+2581) are tokens of some vocabularies
        controls = {t: i for t, i in controls.items() if t.replace("\u2581", " ").strip()}
        # where plain text can be unknown, the token for that is no control token
        if tokenizer.unk_token_id in self._tokenize(_UNKNOWN):
            controls.pop(tokenizer.unk_token, None)
        self._control_ids = frozenset(controls.values())
        self._spelling = re.compile("|".join(map(re.escape, controls))) if controls else None
        self._expected: dict[_Turns, Counter[int]] = {}

    def encode(self, template: str, slots: Mapping[str, str], prefix: str = "") -> list[int]:
        """Ids of ``template``, filled, as the user's turn, then the reply's header and ``prefix``.

        Args:
            template: trusted text with ``{name}`` places for the slots.
            slots: player's text by name; white space at its ends does not count.
            prefix: trusted; what the assistant's reply is made to begin with.
        """
        return self._encode(_Turns((("user", template),), prefix, True), slots)

    def encode_dialogue(
        self, query: str, answer: str, max_tokens: int | None = None
    ) -> tuple[list[int], bool]:
        """Ids of a finished exchange, and whether it had to be cut to ``max_tokens``.

        The query is the user's turn, the answer the assistant's. What is cut out is the middle of
        the query, and of the answer too where that alone is too long.
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
        """Ids of a conversation, then the reply's header.

        Args:
            messages: (role, text) turns; "user" and "assistant" take turns, and the user has the
                first and the last word. White space at a text's ends does not count.

        Raises:
            ValueError: other roles, or in another order.
        """
        roles = [role for role, _ in messages]
        if roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or not len(roles) % 2:
            raise ValueError(f"turns of user, assistant, ..., user are wanted, not of {roles}")
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
        """Harmless text gets exactly the ids of ``apply_chat_template``.

        Where a slot would bring in a control token, the slots are encoded apart from the template,
        as plain text. So they are where the template would hide a part of one, unless it may.
        """
        slots = {name: text.strip() for name, text in slots.items()}
        rendered = self._render(turns, slots)
        ids = self._tokenize(rendered)
        # some templates cut up what they show, which would hide text from whoever judges it
        whole = may_hide or all(text in rendered for text in slots.values())
        if whole and self._controls(ids) == self._expected_controls(turns, slots):
            return ids
        if may_hide:
            slots = self._shown(turns, slots)
        return self._encode_apart(turns, slots)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which no control token occurs, even if it spells one."""
        ids: list[int] = []
        for piece in self._broken_spellings(text):
            piece_ids = self._tokenize(piece, split_special_tokens=True)
            if self._control_ids.isdisjoint(piece_ids):
                ids += piece_ids
            else:  # a normalised look-alike: character by character, dropping what still is a token
                by_char = [self._tokenize(char, split_special_tokens=True) for char in piece]
                ids += [i for char_ids in by_char for i in char_ids if i not in self._control_ids]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without its stop token; other control tokens are spelled out."""
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
        """The control tokens that the template brings by itself, found with harmless slots."""
        if turns not in self._expected:
            rendered = self._render(turns, dict.fromkeys(slots, "x"))
            self._expected[turns] = self._controls(self._tokenize(rendered))
        return self._expected[turns]

    def _shown(self, turns: "_Turns", slots: Mapping[str, str]) -> dict[str, str]:
        """What the template shows of each slot: some leave out what was thought in past turns."""
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
        """The text cut after the first character of everything that spells a control token."""
        if self._spelling is None:
            return [text] if text else []
        pieces, start = [], 0
        # overlapping matches count, so the search goes on one character after each match's start
        match = self._spelling.search(text)
        while match:
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
            match = self._spelling.search(text, start)
        pieces.append(text[start:])
        return [piece for piece in pieces if piece]
