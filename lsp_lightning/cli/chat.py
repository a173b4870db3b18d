"""Chatting with a policy on a terminal or from a script; each line is a question."""

import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, TextStreamer

from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError, OutOfMemory
from lsp_lightning.game.player import Player
from lsp_lightning.generation.stopping import StopTexts, before_stop
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import Policy
from lsp_lightning.runtime.memory import is_out_of_memory
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.thinking import Reading
from lsp_lightning.types import Sampling

Role = Literal["solver", "challenger"]

RESET = "/reset"
_GREETING = f"type a question and press Enter; {RESET} starts over, Ctrl-D ends"
#: Invisible characters that change the direction of the text after them.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_role(data: SelfPlayDataModule, role: Role) -> None:
    """Raise ConfigError for the Challenger of a run whose queries come from a file."""
    if role == "challenger" and not data.queries.selfplay:
        raise ConfigError(
            "role",
            "is challenger, but data.queries reads queries from a file",
            "leave it out, or use a config in which the Challenger writes the queries",
        )


def chat(policy: Policy, data: SelfPlayDataModule, role: Role) -> None:
    """Answer what is typed until the input ends, or print ``data.num_queries`` queries.

    The run's sampling settings are used. The model's text reaches the terminal without control
    characters, and the user's text reaches the model without special tokens.

    Args:
        policy: the model.
        data: the run's data, for its settings.
        role: the Solver answers; the Challenger writes queries.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        if role == "challenger":
            print_queries(policy, data)
        else:
            Conversation(policy, data.solver).run()
    except KeyboardInterrupt:
        print()
    except BrokenPipeError:  # the reader has left; Python would flush again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_queries(policy: Policy, data: SelfPlayDataModule) -> None:
    """Print a round's queries, one per line; blank lines separate them if one has several lines."""
    drawn = data.queries.draw(
        Player.local(policy), data.num_queries, index=0, seed=derive_seed(data.seed, "chat")
    )
    texts = [for_terminal(text) for text in drawn.texts]
    print(("\n\n" if any("\n" in text for text in texts) else "\n").join(texts), flush=True)


class Conversation:
    """A conversation between a user and a policy.

    Args:
        policy: the model that answers.
        sampling: how answers are sampled.
    """

    def __init__(self, policy: Policy, sampling: Sampling) -> None:
        self._policy, self._codec = policy, policy.codec
        self._model = policy.causal_lm
        config = self._model.config.get_text_config()
        context: int = getattr(config, "max_position_embeddings", None) or sys.maxsize
        new_tokens = min(sampling.max_new_tokens, max(1, context // 2))
        self._room = context - new_tokens
        self._turns: list[tuple[str, str]] = []
        self._stop = sampling.stop
        # replaces the model's defaults, so that only the run's sampling settings apply
        self._model.generation_config = GenerationConfig(
            do_sample=sampling.temperature > 0,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_new_tokens=new_tokens,
            eos_token_id=list(self._codec.stop_ids),
            pad_token_id=policy.pad_id,
        )

    def run(self) -> None:
        """Answer line after line until the input ends."""
        if sys.stdin.isatty():
            print(_GREETING)
        for line in typed_lines():
            if line == RESET:
                self._turns.clear()
                print("(conversation cleared)")
            elif line:
                self.ask(line)

    def ask(self, question: str) -> None:
        """Print the answer while it is sampled, and remember question and answer.

        Raises:
            OutOfMemory: the conversation does not fit into memory.
        """
        prompt = self._fitting([*self._turns, ("user", question)])
        if prompt is None:
            print(f"(too long: a question can have {self._room} tokens, chat template included)")
            return
        ids = torch.tensor([prompt], device=self._policy.device)
        reading = self._codec.reading(prompt)
        try:
            with inference_state(self._model, ids.device.type):
                answer = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    streamer=TerminalStreamer(self._codec, self._stop, reading),
                    stopping_criteria=[StopsAt(self._codec, self._stop, prompt)],
                )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory("data.solver.max_new_tokens", len(prompt)) from error
        text = self._codec.decode(answer[0, len(prompt) :].tolist())
        if self._stop:
            text = before_stop(text, self._stop, reading) or text
        self._turns += [("user", question), ("assistant", text)]

    def _fitting(self, turns: list[tuple[str, str]]) -> list[int] | None:
        """The conversation in tokens, without its oldest turns if it is too long.

        None if not even the last question fits.
        """
        dropped = 0
        while len(ids := self._codec.encode_chat(turns)) > self._room:
            if len(turns) == 1:
                return None
            turns, dropped = turns[2:], dropped + 1
        if dropped:
            self._turns = turns[:-1]
            questions = "oldest question" if dropped == 1 else f"{dropped} oldest questions"
            print(f"(context full: dropped the {questions})")
        return ids


class StopsAt(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer at its stop text."""

    def __init__(self, codec: ChatCodec, stop: str | None, prompt: list[int]) -> None:
        self._stops, self._stop, self._prompt = StopTexts(codec), stop, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """Whether the answer has come to the stop text. (1,) bool."""
        if not self._stop:
            return torch.zeros(1, dtype=torch.bool, device=input_ids.device)
        row = torch.zeros(1, dtype=torch.long, device=input_ids.device)
        answer_t1 = input_ids[:, len(self._prompt) :].T
        return self._stops.reached(row, answer_t1, [self._prompt], self._stop)


class TerminalStreamer(TextStreamer):  # type: ignore[misc]
    """Prints an answer word by word as :meth:`ChatCodec.decode` spells it, safe for a terminal.

    What may be the beginning of the stop text waits until that is known.
    """

    def __init__(self, codec: ChatCodec, stop: str | None, reading: Reading) -> None:
        super().__init__(
            codec.tokenizer,
            skip_prompt=True,
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        self._stop_ids = frozenset(codec.stop_ids)
        self._stop, self._reading = stop, reading
        self._text, self._printed = "", 0

    def put(self, value: Any) -> None:
        """Receive the prompt, which is not printed, or the next token."""
        ends = value.numel() == 1 and int(value) in self._stop_ids
        if self.next_tokens_are_prompt or not ends:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print text that further tokens cannot change."""
        self._text += text
        until = len(self._text)
        if self._stop:
            before = before_stop(self._text, self._stop, self._reading)
            waits = 0 if stream_end else len(self._stop) - 1
            until = until - waits if before is None else len(before)
        text = self._text[self._printed : until]
        self._printed = max(self._printed, until)
        super().on_finalized_text(for_terminal(text), stream_end)


def for_terminal(text: str) -> str:
    """A text without control characters and without marks that change the text direction.

    Line breaks and tabs stay; of an escape sequence only the printable letters do.
    """
    return "".join(
        c
        for c in text
        if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _DIRECTIONS)
    )


def typed_lines() -> Iterator[str]:
    """Lines of the standard input, with a prompt on a terminal. Invalid bytes are replaced."""
    if isinstance(sys.stdin, io.TextIOWrapper):  # in most locales invalid bytes would raise
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
    """Let arrow keys edit a line and recall earlier ones, if this Python can."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
