"""Talking to a policy on a terminal, or from a script: one line is one question."""

import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import torch
from transformers import GenerationConfig, TextStreamer

from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError, OutOfMemory
from lsp_lightning.game.player import Player
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import Policy
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Sampling

TalkRole = Literal["solver", "challenger"]

RESET = "/reset"
_GREETING = f"one line is one question; {RESET} begins anew, Ctrl-D ends"
#: Invisible characters that turn the direction of the text after them.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_talk(data: SelfPlayDataModule, role: TalkRole) -> None:
    """Whether there is somebody to talk to in this role, before a model is loaded.

    Raises:
        ConfigError: the Challenger is asked for and the queries come from a file.
    """
    if role == "challenger" and not data.queries.selfplay:
        raise ConfigError(
            "role",
            "is challenger, but data.queries is a file",
            "leave it out, or give a config whose Challenger writes the queries",
        )


def talk(policy: Policy, data: SelfPlayDataModule, role: TalkRole) -> None:
    """Answer what is typed until the input ends, or print ``data.num_queries`` queries.

    Sampling settings are the run's own. What a model writes reaches the terminal without control
    characters, and what is typed reaches the model as plain text.

    Args:
        policy: who talks.
        data: the run's, for its settings.
        role: the Solver answers; the Challenger writes queries.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        if role == "challenger":
            print_queries(policy, data)
        else:
            Conversation(policy, data.solver).hold()
    except KeyboardInterrupt:
        print()
    except BrokenPipeError:  # who reads has read enough; Python would flush once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_queries(policy: Policy, data: SelfPlayDataModule) -> None:
    """Queries of one round, one a line; with empty lines between where one is longer."""
    drawn = data.queries.draw(
        Player.local(policy), data.num_queries, index=0, seed=derive_seed(data.seed, "chat")
    )
    texts = [for_terminal(text) for text in drawn.texts]
    print(("\n\n" if any("\n" in text for text in texts) else "\n").join(texts), flush=True)


class Conversation:
    """Turns of a user and a policy.

    Args:
        policy: who answers.
        sampling: how answers are drawn.
    """

    def __init__(self, policy: Policy, sampling: Sampling) -> None:
        self._policy, self._codec = policy, policy.codec
        self._model = policy.causal_lm
        config = self._model.config.get_text_config()
        context: int = getattr(config, "max_position_embeddings", None) or sys.maxsize
        new_tokens = min(sampling.max_new_tokens, max(1, context // 2))
        self._room = context - new_tokens
        self._turns: list[tuple[str, str]] = []
        # the model's own, so that nothing but the run's sampling settings is in force
        self._model.generation_config = GenerationConfig(
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_new_tokens=new_tokens,
            eos_token_id=list(self._codec.stop_ids),
            pad_token_id=policy.pad_id,
        )

    def hold(self) -> None:
        """Answer line after line until the input ends."""
        if sys.stdin.isatty():
            print(_GREETING)
        for line in typed_lines():
            if line == RESET:
                self._turns.clear()
                print("(begun anew)")
            elif line:
                self.ask(line)

    def ask(self, question: str) -> None:
        """Print the answer while it is drawn, and remember both.

        Raises:
            OutOfMemory: the conversation does not fit into memory.
        """
        prompt = self._fitting([*self._turns, ("user", question)])
        if prompt is None:
            print(f"(too long: a question and its frame can have {self._room} tokens)")
            return
        ids = torch.tensor([prompt], device=self._policy.device)
        try:
            with inference_state(self._model, ids.device.type):
                answer = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    streamer=TerminalStreamer(self._codec),
                )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory("data.solver.max_new_tokens", len(prompt)) from error
        text = self._codec.decode(answer[0, len(prompt) :].tolist())
        self._turns += [("user", question), ("assistant", text)]

    def _fitting(self, turns: list[tuple[str, str]]) -> list[int] | None:
        """The conversation in tokens, without its oldest turns where it is too long.

        None where not even the last question fits.
        """
        dropped = 0
        while len(ids := self._codec.encode_chat(turns)) > self._room:
            if len(turns) == 1:
                return None
            turns, dropped = turns[2:], dropped + 1
        if dropped:
            self._turns = turns[:-1]
            noun = "question was" if dropped == 1 else f"{dropped} questions were"
            print(f"(the oldest {noun} forgotten: the context is full)")
        return ids


class TerminalStreamer(TextStreamer):  # type: ignore[misc]
    """Prints an answer word by word as :meth:`ChatCodec.decode` spells it, safe for a terminal."""

    def __init__(self, codec: ChatCodec) -> None:
        super().__init__(
            codec.tokenizer,
            skip_prompt=True,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        self._stop_ids = frozenset(codec.stop_ids)

    def put(self, value: Any) -> None:
        """Take in the prompt, which is not shown, or the next token."""
        ends = value.numel() == 1 and int(value) in self._stop_ids
        if self.next_tokens_are_prompt or not ends:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print what will not change any more."""
        super().on_finalized_text(for_terminal(text), stream_end)


def for_terminal(text: str) -> str:
    """A text whose characters move no cursor, ring no bell, set no colour and turn no direction.

    Line breaks and tabs stay; of an escape sequence only its letters do.
    """
    return "".join(
        c
        for c in text
        if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _DIRECTIONS)
    )


def typed_lines() -> Iterator[str]:
    """Lines of the standard input, after a prompt where it is a terminal; bytes of no text are
    replaced."""
    if isinstance(sys.stdin, io.TextIOWrapper):  # most locales' own way is to raise
        sys.stdin.reconfigure(errors="replace")
    while True:
        if sys.stdin.isatty():
            _edit_lines()
            try:
                line = input("> ")
            except EOFError:
                print()
                return
        else:
            line = sys.stdin.readline()
            if not line:
                return
        yield line.encode("utf-8", "replace").decode("utf-8").strip()


def _edit_lines() -> None:
    """Arrow keys move in a line and call back those before, where Python was built so."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
