"""Says why a run learns nothing: one line that names the cause and the setting to change."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lsp_lightning.callbacks.remedies import Remedies, Stall
from lsp_lightning.callbacks.written import all_out_of_range, all_refused, none_valid
from lsp_lightning.errors import warn
from lsp_lightning.functional import dead_groups
from lsp_lightning.rewards import FunctionReward, Reward
from lsp_lightning.types import Playout, SelfPlayRound

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
    (
        "queries refused",
        "queries cut off",
        "queries empty",
        "queries invalid",
        "malformed",
        "answers empty",
        "thoughts unclosed",
    )
)


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

    @property
    def causes(self) -> dict[str, bool]:
        """The causes that the last round had or that a warning has named: whether one has."""
        return dict.fromkeys(self._seen, False) | dict.fromkeys(self._gone, True)

    def state_dict(self) -> dict[str, Any]:
        """What was counted and named."""
        return {"seen": dict(self._seen), "gone": dict(self._gone)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._seen, self._gone = dict(state_dict["seen"]), dict(state_dict["gone"])

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
    remedies = Remedies(data, rewards)
    identical = _identical_answers(played.playout, remedies)
    for_R = (
        all_refused(played.playout.written, remedies)
        or none_valid(played.playout.written, remedies)
        or _malformed(played, rewards, remedies)
        or _of_answers(played.playout, remedies)
        or _unjudged(played, rewards)
        or (None if identical else all_out_of_range(played, remedies))
        or _constant_R(played, rewards, remedies, identical)
    )
    if for_R:
        yield for_R
    if identical is None and (for_R is None or for_R.cause not in _NOTHING_TO_JUDGE):
        yield from _constant_Q(played, rewards)


def _malformed(
    played: SelfPlayRound, rewards: Sequence[Reward], remedies: Remedies
) -> Stall | None:
    """The queries, if a verifier finds a right answer to none of those that were written."""
    asked_N = played.playout.written_N
    if not asked_N.any():  # they come from a file, or all are replayed
        asked_N = torch.ones_like(asked_N)
    for name, values in malformed(played, rewards).items():
        if torch.tensor(values)[asked_N].all():
            return Stall(
                "malformed",
                f"no query had a right answer (queries/{name} is 1)",
                remedies.queries_in_form,
            )
    return None


def _of_answers(playout: Playout, remedies: Remedies) -> Stall | None:
    """The answers, if all of them are unfinished or empty."""
    spoken = [text.strip() for group in playout.spoken_groups() for text in group]
    limit = remedies.at_answer_limit
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
        return Stall("answers cut off", fact, remedies.longer_answers)
    return None


def _unjudged(played: SelfPlayRound, rewards: Sequence[Reward]) -> Stall | None:
    """The rewards that could judge nothing, if no answer was judged."""
    if played.judged_NG.any():
        return None
    silent = [r.name for r in weighted(rewards) if known_scores(played, r).numel() == 0]
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
    played: SelfPlayRound, rewards: Sequence[Reward], remedies: Remedies, identical: Stall | None
) -> Stall | None:
    """R, if it is the same for all answers to each query, or almost the same for all answers."""
    task = [reward for reward in weighted(rewards) if reward.enters == "task"]
    almost = all(is_flat(known_scores(played, reward), reward) for reward in task)
    if not almost and not dead_groups(played.rewards_NG[played.judged_N]).all():
        return None
    if identical:
        return identical
    ends = {_end(known_scores(played, reward), reward) for reward in task}
    binary = all(reward.binary for reward in task)
    if ends == {"lowest"}:
        word = "was wrong" if binary else "got the lowest score"
        fact = f"every answer {word}, so R taught nothing"
        return Stall("all wrong", fact, remedies.easier_queries)
    if ends == {"highest"}:
        word = "was right" if binary else "got the highest score"
        fact = f"every answer {word}, so R taught nothing"
        return Stall("all right", fact, remedies.harder_queries)
    if almost:
        return _too_alike("R", task)
    return Stall(
        "R constant",
        "all answers to a query had the same R, so R taught the Solver nothing",
        remedies.medium_queries,
    )


def _constant_Q(played: SelfPlayRound, rewards: Sequence[Reward]) -> Iterator[Stall]:
    """A cause for each quality reward that scores all answers of the round almost the same."""
    for reward in weighted(rewards):
        if reward.enters == "quality" and is_flat(known_scores(played, reward), reward):
            yield _too_alike("Q", [reward])


def _too_alike(sum_: str, rewards: Sequence[Reward]) -> Stall:
    names = " and ".join(repr(reward.name) for reward in rewards)
    cause = f"{sum_} constant: {names}"
    if all(isinstance(reward, FunctionReward) for reward in rewards):
        fact = f"the function of {names} returned nearly the same number for all answers"
        remedy = "let it tell answers apart (model.rewards), or set its weight to 0"
        return Stall(cause, f"{fact}, so {sum_} taught nothing", remedy)
    out = "leave it out, or " if sum_ == "Q" else ""  # there must be an R
    return Stall(
        cause,
        f"the scores of {names} hardly differed, so {sum_} taught nothing but noise",
        f"in model.rewards {out}give it another prompt or a stronger judge",
    )


def _identical_answers(playout: Playout, remedies: Remedies) -> Stall | None:
    if any(len(set(group)) > 1 for group in playout.spoken_groups()):
        return None
    return Stall(
        "answers identical",
        "all answers to a query were the same text, so nothing set them apart",
        remedies.varied_answers,
    )


def malformed(played: SelfPlayRound, rewards: Sequence[Reward]) -> dict[str, tuple[bool, ...]]:
    """Whether each query has no right answer, by each verifier with a weight other than 0.

    -> N values by ``REWARD_NAME/malformed``; empty if no verifier tells.
    """
    names = [f"{reward.name}/malformed" for reward in weighted(rewards)]
    found = {name: played.query_info.get(name, ()) for name in names}
    return {name: tuple(map(bool, values)) for name, values in found.items() if values}


def weighted(rewards: Iterable[Reward]) -> list[Reward]:
    """The rewards of answers with a weight other than 0."""
    return [r for r in rewards if r.weight != 0 and r.enters != "challenger"]


def known_scores(played: SelfPlayRound, reward: Reward) -> Tensor:
    """The scores that a reward gave, without those of unjudged answers. -> (judged,)"""
    scores = played.components[reward.name]
    return scores[~scores.isnan()]


def is_flat(known: Tensor, reward: Reward) -> bool:
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
