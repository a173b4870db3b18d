"""Answers of a player to an exam, kept in a ledger batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.ledger import Ledger, digest
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.padding import pad_left, pad_right
from lsp_lightning.types import Rollouts

#: Most completions of a batch: what is lost if the command is stopped. It changes no answer.
_BATCH = 128

#: Called with what is counted, how many are done, and how many there are.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answer:
    """An answer as it is kept."""

    text: str
    """The whole text, with the model's thinking."""
    spoken: str
    """The text without thinking, which is judged."""
    ids: tuple[int, ...]
    """Its tokens, up to and with the one that ends it."""
    truncated: bool
    """Whether the length limit cut it off."""

    @classmethod
    def read(cls, entry: Any) -> "Answer":
        """The answer in an entry of a ledger; raise ValueError if it is not one."""
        match entry:
            case [str() as text, str() as spoken, [*ids], bool() as cut] if all(
                type(i) is int for i in ids
            ):
                return cls(text, spoken, tuple(ids), cut)
        raise ValueError("not an answer")

    @property
    def entry(self) -> list[Any]:
        """The answer for a ledger."""
        return [self.text, self.spoken, list(self.ids), self.truncated]


@dataclass(frozen=True)
class Contestant:
    """A player that is evaluated."""

    name: str
    """What it is called on the progress line."""
    player: Player | FrozenPlayer
    """The policy, or its reference."""
    identity: str
    """Checksum of all that decides its answers, besides prompt, sampling and seed."""

    def answers(self, exam: Exam, ledger: Ledger, told: Told) -> list[tuple[Answer, ...]]:
        """Its answers to each task of an exam; those in the ledger are taken from there."""
        sampling = dict(vars(exam.sampling))
        keys = [
            digest(self.identity, list(prompt), sampling, exam.draws, seed)
            for prompt, seed in zip(exam.prompts, exam.task_seeds, strict=True)
        ]
        found = {k: kept for k in keys if (kept := _kept(ledger.get(k), exam.draws)) is not None}
        missing = [i for i, key in enumerate(keys) if key not in found]
        size, total = max(1, _BATCH // exam.draws), len(keys) * exam.draws
        for start in range(0, len(missing), size):
            told(self.name, (len(keys) - len(missing) + start) * exam.draws, total)
            batch = missing[start : start + size]
            new = dict(zip([keys[i] for i in batch], self._drawn(exam, batch), strict=True))
            ledger.add({key: [answer.entry for answer in row] for key, row in new.items()})
            found |= new
        if missing:
            told(self.name, total, total)
        return [found[key] for key in keys]

    def _drawn(self, exam: Exam, tasks: Sequence[int]) -> list[tuple[Answer, ...]]:
        """New answers to some of the tasks."""
        prompts, seeds = [exam.prompts[i] for i in tasks], exam.task_seeds
        drawn = self.player.respond(prompts, exam.draws, exam.sampling, [seeds[i] for i in tasks])
        rows = zip(drawn.completion_ids, drawn.completion_mask, strict=True)
        ids = [tuple(row[mask].tolist()) for row, mask in rows]
        cut = drawn.truncated.tolist()
        answers = [Answer(*row) for row in zip(drawn.texts, drawn.spoken, ids, cut, strict=True)]
        return [tuple(answers[i : i + exam.draws]) for i in range(0, len(answers), exam.draws)]


def _kept(entry: Any, draws: int) -> tuple[Answer, ...] | None:
    """The answers to a task in a ledger's entry; None if there are none."""
    try:
        found = tuple(map(Answer.read, entry or ()))
    except (TypeError, ValueError):
        return None
    return found if len(found) == draws else None


def rollouts_of(
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Answer]],
    codec: ChatCodec,
    pad_id: int,
    temperature: float,
) -> Rollouts:
    """Kept answers as completions, for a reward. Their log-probs are not kept: they are NaN.

    Args:
        prompts: the prompt of each group in tokens.
        groups: the answers to each prompt, as many to each.
        codec: tells thinking from text.
        pad_id: fills up shorter rows.
        temperature: at which they were sampled.
    """
    draws = len(groups[0])
    rows = [answer for group in groups for answer in group]
    prompt_ids, prompt_mask = pad_left(prompts, pad_id)
    ids, mask = pad_right([answer.ids for answer in rows], pad_id)
    readings = tuple(r for p in prompts for r in [codec.reading(p)] * draws)
    return Rollouts(
        prompt_ids=prompt_ids.repeat_interleave(draws, dim=0),
        prompt_mask=prompt_mask.repeat_interleave(draws, dim=0),
        completion_ids=ids,
        completion_mask=mask,
        logprobs=torch.where(mask, torch.nan, 0.0),
        truncated=torch.tensor([answer.truncated for answer in rows]),
        texts=tuple(answer.text for answer in rows),
        temperature=temperature,
        readings=readings,
    )
