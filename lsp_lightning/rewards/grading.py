"""What the judges share: a prompt template, and grades as scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lsp_lightning.rewards.base import Judgement
from lsp_lightning.text.chat import fill
from lsp_lightning.text.cutting import cut_middle, well_formed
from lsp_lightning.text.fencing import fence, tags_of
from lsp_lightning.text.prompts import (
    CRITERIA,
    JUDGE,
    JUDGE_TAGS,
    MAX_SCORE,
    Grade,
    read_template,
)
from lsp_lightning.types import Playout

#: Longest text that a judge reads, in characters; a judge's context is usually shorter.
_MOST_CHARACTERS = 200_000


class JudgeTemplate:
    """The judge's prompt template. Its tags are disarmed in the texts that fill its slots.

    If ``optional`` has a slot that the template lacks, its text is left out. If a text for it is
    missing, it is filled with "".

    Args:
        path: file with the template, or None for the default.
        key: config key to name in errors.
        default: the template if there is no file.
        slots: slots that the template must have.
        tags: more tags to disarm, such as those of the judge's reply.
        optional: slots that the template may have.
    """

    def __init__(
        self,
        path: str | None,
        key: str,
        default: str = JUDGE,
        slots: Sequence[str] = ("instruction", "response"),
        tags: Sequence[str] = JUDGE_TAGS,
        optional: Sequence[str] = (),
    ) -> None:
        self.text = read_template(path, default, key, slots)
        self._optional = {slot: f"{{{slot}}}" in self.text for slot in optional}
        # a user's template may have other tags, and may lack those of the reply
        self._tags = {*tags_of(self.text), *tags}

    @property
    def shows_passage(self) -> bool:
        """Whether the judge sees the passage that a query is about."""
        return self._optional.get("passage", False)

    def fenced(self, texts: dict[str, str]) -> dict[str, str]:
        """The players' texts by slot, with the judge's tags disarmed (:func:`fence`).

        Texts of more than 200,000 characters lose their middle.
        """
        empty = {slot: "" for slot, there in self._optional.items() if there}
        texts = {s: t for s, t in (empty | texts).items() if self._optional.get(s, True)}
        short = {slot: cut_middle(text, _MOST_CHARACTERS) for slot, text in texts.items()}
        return {slot: fence(well_formed(text), self._tags) for slot, text in short.items()}

    def filled(self, texts: dict[str, str]) -> str:
        """The whole prompt as text, with the disarmed texts in its slots."""
        return fill(self.text, self.fenced(texts))


def judged_texts(playout: Playout) -> list[dict[str, str]]:
    """Instruction, response and passage, if any, for each of the N*G answers, query-major."""
    found = []
    for i, answers in enumerate(playout.spoken_groups()):
        query, passage = playout.query_texts[i], playout.passage(i)
        known = {} if passage is None else {"passage": passage}
        found += [{"instruction": query, "response": answer} | known for answer in answers]
    return found


def grade_scores(grades: Sequence[Grade | None], playout: Playout) -> Judgement:
    """Grades of the N*G answers as scores in [0, 1]; NaN for an unreadable grade (None).

    The metrics are the share of unreadable grades, and the mean points of each criterion.
    """
    shape = (len(playout.query_texts), playout.group_size)
    scores = torch.tensor([float("nan") if g is None else g.score / MAX_SCORE for g in grades])
    metrics: dict[str, Tensor | float] = {
        "unreadable": torch.tensor([float(grade is None) for grade in grades])
    }
    points = [grade.criteria for grade in grades if grade is not None and grade.criteria]
    for k in range(CRITERIA if points else 0):
        metrics[f"criterion_{k + 1}"] = torch.tensor([float(row[k]) for row in points])
    return Judgement(scores.view(shape), metrics=metrics)
