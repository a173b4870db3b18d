"""Says why a run learns nothing: one line that names the cause and the setting to change."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import warn
from lsp_lightning.functional import dead_groups
from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.queries import PromptFile
from lsp_lightning.rewards import FunctionReward, Reward
from lsp_lightning.types import Playout, Sampling, SelfPlayRound, Written

#: Rounds in a row before a cause is named. One such round can be chance, five are not.
PATIENCE = 5
#: A shorter run is a trial: its rounds are enough, but not fewer than these.
_FEWEST = 3
#: All scores of a round count as the same if their standard deviation is below this share of the
#: reward's span. A judge that tells answers apart has a tenth or more; one that does not had 0.014
#: (84 scores between 0.513 and 0.560).
LEAST_SPREAD = 0.025
#: Causes that leave the quality rewards nothing to judge, so that they are the only ones named.
_NOTHING_TO_JUDGE = frozenset(
    ("queries cut off", "queries empty", "queries invalid", "answers empty", "thoughts unclosed")
)


@dataclass(frozen=True)
class Stall:
    """A reason why a round teaches nothing."""

    cause: str
    """The name of the cause; a run warns of each cause once until it is gone."""
    fact: str
    """What was seen, as in "for 5 rounds in a row, every answer was cut off"."""
    remedy: str
    """What to change, with its config key."""


class StallWatch(Callback):
    """Warns once of each cause that lasts for five rounds, and again if it returns later.

    In a run of three or four rounds, all of them are enough.
    """

    def __init__(self) -> None:
        self._patience = PATIENCE
        self._seen: dict[str, int] = {}  # rounds in a row with each cause
        self._gone: dict[str, int] = {}  # rounds in a row without a cause that was named

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at how many rounds the run has."""
        self._patience = min(PATIENCE, max(_FEWEST, trainer.max_steps))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the round."""
        data: Any = getattr(trainer, "datamodule", None)
        module: Any = pl_module
        self.observe(batch, list(stalls(batch, module.rewards, data)))

    def observe(self, played: SelfPlayRound, found: Sequence[Stall]) -> None:
        """Count the causes of a round, and warn of those that have lasted long enough."""
        now = {stall.cause: stall for stall in found}
        self._seen = {cause: self._seen.get(cause, 0) + 1 for cause in now}
        for cause in list(self._gone):
            self._gone[cause] = 0 if cause in now else self._gone[cause] + 1
            if self._gone[cause] == PATIENCE:
                del self._gone[cause]
        for cause, stall in now.items():
            if self._seen[cause] >= self._patience and cause not in self._gone:
                self._gone[cause] = 0
                warn(
                    f"for {self._patience} rounds in a row, {stall.fact}; {stall.remedy}",
                    kind=f"{cause} in round {played.index}",
                )


def stalls(played: SelfPlayRound, rewards: Sequence[Reward], data: Any) -> Iterator[Stall]:
    """Why a round teaches nothing: at most one cause for R, and one for each quality reward.

    Causes for R are tried in the order of the game, so that the first cause is named, not its
    consequences.

    Args:
        played: the scored round.
        rewards: the rewards of the run.
        data: the run's DataModule, for the settings that a line names.
    """
    keys = _Keys(data)
    identical = _identical_answers(played.playout, keys)
    for_R = (
        _of_queries(played.playout.written, keys)
        or _malformed(played, keys)
        or _of_answers(played.playout, keys)
        or _unjudged(played, rewards)
        or _constant_R(played, rewards, keys, identical)
    )
    if for_R:
        yield for_R
    if identical is None and (for_R is None or for_R.cause not in _NOTHING_TO_JUDGE):
        yield from _constant_Q(played, rewards)


class _Keys:
    """Config keys and values that a warning may name."""

    def __init__(self, data: Any) -> None:
        queries = getattr(data, "queries", None)
        self.queries, self.written_tokens = "data.queries", None
        if isinstance(queries, Challenger):
            self.queries = "data.queries.init_args.prompt"
            self.written_tokens = queries.sampling.max_new_tokens
        elif isinstance(queries, PromptFile):
            self.queries = "data.queries.init_args.path"
        self.solver: Sampling | None = getattr(data, "solver", None)


def _of_queries(written: Written | None, keys: _Keys) -> Stall | None:
    """The written queries, if none of them follows the form rules."""
    if written is None or written.valid_C.any():
        return None
    if written.rollouts.truncated.all():
        limit = f" at {keys.written_tokens} tokens" if keys.written_tokens else ""
        return Stall(
            "queries cut off",
            f"every query was cut off{limit}, and such a query is invalid",
            "raise data.queries.init_args.sampling.max_new_tokens",
        )
    if not any(text.strip() for text in written.rollouts.texts):
        return Stall("queries empty", "every query was empty", f"change {keys.queries}")
    return Stall(
        "queries invalid",
        "every query was invalid (empty, cut off, or with a template tag)",
        f"change {keys.queries} so that the Challenger replies with the query alone",
    )


def _malformed(played: SelfPlayRound, keys: _Keys) -> Stall | None:
    """The queries, if a verifier finds a right answer to none of them."""
    for name, values in played.query_info.items():
        if name.endswith("/malformed") and values and all(value is True for value in values):
            return Stall(
                "malformed",
                f"no query had a right answer (queries/{name} is 1)",
                f"change {keys.queries}, so that the queries have the form that the verifier reads",
            )
    return None


def _of_answers(playout: Playout, keys: _Keys) -> Stall | None:
    """The answers, if all of them are unfinished or empty."""
    spoken = [text.strip() for group in playout.spoken_groups() for text in group]
    limit = f" at {keys.solver.max_new_tokens} tokens" if keys.solver else ""
    cut = bool(playout.answers.truncated.all())
    if not any(spoken):
        if not any(text.strip() for text in playout.answers.texts):
            fact = "every answer was empty"
            return Stall("answers empty", fact, "change data.solver_prompt or model.base")
        return Stall(
            "thoughts unclosed",
            f"no answer came to the end of its thinking{f' (cut off{limit})' if cut else ''}",
            "raise data.solver.max_new_tokens, or turn thinking off with "
            "model.chat_template_kwargs: {enable_thinking: false}",
        )
    if cut:
        fact = f"every answer was cut off{limit}"
        return Stall("answers cut off", fact, "raise data.solver.max_new_tokens")
    return None


def _unjudged(played: SelfPlayRound, rewards: Sequence[Reward]) -> Stall | None:
    """The rewards that could judge nothing, if no answer was judged."""
    if played.judged_NG.any():
        return None
    silent = [r.name for r in _weighted(rewards) if _known(played, r).numel() == 0]
    names = " and ".join(repr(name) for name in silent) or "all rewards together"
    votes = [name for name in silent if f"{name}/agreement" in played.query_info]
    if votes:
        fact = f"no answers to a query agreed, so {names} judged nothing"
        remedy = "give solutions (data.queries), raise data.group_size, or lower min_agreement"
        return Stall("unjudged", fact, remedy)
    return Stall(
        "unjudged",
        f"{names} could judge no answer",
        "change the reward (model.rewards) or the queries (data.queries)",
    )


def _constant_R(
    played: SelfPlayRound, rewards: Sequence[Reward], keys: _Keys, identical: Stall | None
) -> Stall | None:
    """R, if it is the same for all answers to each query, or almost the same for all answers."""
    task = [reward for reward in _weighted(rewards) if reward.enters == "task"]
    almost = all(_flat(_known(played, reward), reward) for reward in task)
    if not almost and not dead_groups(played.rewards_NG[played.judged_N]).all():
        return None
    if identical:
        return identical
    ends = {_end(_known(played, reward), reward) for reward in task}
    binary = all(reward.binary for reward in task)
    if ends == {"lowest"}:
        word = "was wrong" if binary else "got the lowest score"
        fact = f"every answer {word}, so R taught nothing"
        return Stall("all wrong", fact, f"ask for easier queries ({keys.queries})")
    if ends == {"highest"}:
        word = "was right" if binary else "got the highest score"
        fact = f"every answer {word}, so R taught nothing"
        return Stall("all right", fact, f"ask for harder queries ({keys.queries})")
    if almost:
        return _too_alike("R", task)
    return Stall(
        "R constant",
        "all answers to a query had the same R, so R taught the Solver nothing",
        f"raise data.group_size, or ask for queries of medium difficulty ({keys.queries})",
    )


def _constant_Q(played: SelfPlayRound, rewards: Sequence[Reward]) -> Iterator[Stall]:
    """A cause for each quality reward that scores all answers of the round almost the same."""
    for reward in _weighted(rewards):
        if reward.enters == "quality" and _flat(_known(played, reward), reward):
            yield _too_alike("Q", [reward])


def _too_alike(sum_: str, rewards: Sequence[Reward]) -> Stall:
    names = " and ".join(repr(reward.name) for reward in rewards)
    cause = f"{sum_} constant: {names}"
    if all(isinstance(reward, FunctionReward) for reward in rewards):
        fact = f"the function of {names} returned nearly the same number for all answers"
        remedy = "let it tell answers apart (model.rewards), or set its weight to 0"
        return Stall(cause, f"{fact}, so {sum_} taught nothing", remedy)
    return Stall(
        cause,
        f"the scores of {names} hardly differed, so {sum_} taught nothing but noise",
        "in model.rewards give it another prompt or a stronger judge, or set its weight to 0",
    )


def _identical_answers(playout: Playout, keys: _Keys) -> Stall | None:
    if any(len(set(group)) > 1 for group in playout.spoken_groups()):
        return None
    temperature = f" (now {keys.solver.temperature:g})" if keys.solver else ""
    return Stall(
        "answers identical",
        "all answers to a query were the same text, so nothing set them apart",
        f"raise data.solver.temperature{temperature}, or ask for harder queries ({keys.queries})",
    )


def _weighted(rewards: Iterable[Reward]) -> list[Reward]:
    """The rewards of answers with a weight other than 0."""
    return [r for r in rewards if r.weight != 0 and r.enters != "challenger"]


def _known(played: SelfPlayRound, reward: Reward) -> Tensor:
    """The scores that a reward gave, without those of unjudged answers. -> (judged,)"""
    scores = played.components[reward.name]
    return scores[~scores.isnan()]


def _flat(known: Tensor, reward: Reward) -> bool:
    """Whether the scores of a round are almost the same, see :data:`LEAST_SPREAD`."""
    if known.numel() < 2:
        return False
    if reward.span is None or reward.binary:  # no scale to compare with: equal up to rounding
        return bool(dead_groups(known.unsqueeze(0)).all())
    low, high = reward.span
    return bool(known.std(unbiased=False) < LEAST_SPREAD * (high - low))


def _end(known: Tensor, reward: Reward) -> str:
    """``lowest`` or ``highest`` if all scores are at this end of the span, as R counts them."""
    span = (0.0, 1.0) if reward.binary else reward.span
    if span is not None and reward.weight < 0:  # a penalty: 0 is its best score
        span = span[::-1]
    for name, end in zip(("lowest", "highest"), span or (), strict=False):
        if torch.isclose(known, torch.tensor(end)).all():
            return name
    return "between"
