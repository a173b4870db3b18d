"""A reward from a judge model on an OpenAI-compatible server."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal, TypeVar, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import require_one_of, warn
from lsp_lightning.rewards.base import (
    AnswerEnters,
    Judgement,
    Reward,
    RewardError,
    require_answers,
)
from lsp_lightning.rewards.grading import JudgeTemplate, grade_scores, judged_texts
from lsp_lightning.rewards.judge.client import ChatClient
from lsp_lightning.rewards.judge.protocol import Failure, Reply
from lsp_lightning.rewards.judge.ring import Ring, points
from lsp_lightning.runtime.background import Prefetcher
from lsp_lightning.runtime.http import Client
from lsp_lightning.text.fencing import without_controls
from lsp_lightning.text.prompts import (
    COMPARE,
    COMPARE_TAGS,
    JUDGE,
    JUDGE_TAGS,
    parse_grade,
    parse_winner,
)
from lsp_lightning.text.thinking import reading_of_most
from lsp_lightning.types import Playout

JudgeMode = Literal["grade", "compare"]

_KEY = "model.rewards.JudgeReward"
#: Default template, slots and tags of each mode.
_MODES = {
    "grade": (JUDGE, ("instruction", "response"), JUDGE_TAGS),
    "compare": (COMPARE, ("instruction", "first", "second"), COMPARE_TAGS),
}

T = TypeVar("T")


class JudgeReward(Reward):
    """A score in [0, 1] from a judge on a server: vLLM, llama.cpp, Ollama, transformers serve.

    *grade*: the judge gives each answer 0 to 7 points, by the same criteria as
    :class:`lsp_lightning.SelfReward`. *compare*: the answers to a query form a ring. The judge
    compares each answer with the next one, in both orders. An answer's score is the share of its
    comparisons that it wins. A tie counts half, and so does a pair whose two orders disagree.

    The judge's thinking is ignored, and a reply whose thinking never ends is empty. If most replies
    of a round end a thought that they did not begin, then the judge's chat template begins it, and
    the other replies are taken as unended thoughts. A reply in the wrong form, or cut off by the
    length limit, is *unreadable*. A request without an answer after all tries is *unanswered*.
    Neither gives a score; both are counted in the metrics.

    The prompt's tags and the control tokens of common model families are disarmed in the players'
    texts. Other control tokens are not recognised, because the server's tokenizer is not available
    here.

    Args:
        url: the server's base URL, such as ``http://127.0.0.1:8000/v1``.
        model: the model's name on that server.
        mode: grade answers one by one, or compare them in pairs.
        weight: factor in R or Q; 0 only logs the scores.
        name: the name in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        prompt: file with the judge's template; it needs the slots {instruction} and {response}, or
            {instruction}, {first} and {second} to compare. It may have {passage}, which is empty
            for a query without a passage.
        client: API key, timeout and number of requests at once.
        temperature: sampling temperature of the judge; 0 is greedy.
        max_tokens: longest reply in tokens, including the judge's thinking.
    """

    span = (0.0, 1.0)

    def __init__(
        self,
        url: str,
        model: str,
        mode: JudgeMode = "grade",
        weight: float = 1.0,
        name: str = "judge",
        enters: AnswerEnters = "task",
        prompt: str | None = None,
        client: Client = Client(),  # noqa: B008 - frozen
        temperature: float = 0.0,
        max_tokens: int = 512,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name))
        require_one_of(mode, get_args(JudgeMode), f"{_KEY}.mode")
        self.url, self.model = url, model
        self.mode: JudgeMode = mode
        self.comparable = mode == "grade"
        self.needs_group = mode == "compare"
        self._chat = ChatClient(url, model, client, temperature, max_tokens, _KEY)
        self._template = JudgeTemplate(prompt, f"{_KEY}.prompt", *_MODES[mode], ("passage",))
        # a request may take minutes: a run that ends does not wait for it
        self._prefetch: Prefetcher[str, Reply | Failure] = Prefetcher(
            client.concurrency, daemon=True
        )
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the server is reachable, before any model is loaded.

        Raises:
            ConfigError: there is no server at ``url``.
        """
        super().setup(trainer, pl_module, stage)
        self._chat.check_reachable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop requests that are still waiting."""
        self._prefetch.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Drop waiting requests: after an error Lightning does not call :meth:`teardown`."""
        self._prefetch.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Request the grade of an answer early.

        A comparison waits for all answers, and a prompt with a passage for the passage.
        """
        early = self.mode == "grade" and not self._template.shows_passage
        if early and answer is not None:
            prompt = self._filled({"instruction": query, "response": answer})
            self._prefetch.begin(prompt, lambda: self._chat.ask([prompt])[0])

    def score(self, playout: Playout) -> Judgement:
        """The judge's scores, (N, G), and the shares of unanswered and unreadable requests.

        Raises:
            RewardError: no request was answered, or there is a single answer to compare.
        """
        return self._graded(playout) if self.mode == "grade" else self._compared(playout)

    def _graded(self, playout: Playout) -> Judgement:
        grades, metrics = self._read(
            [self._filled(texts) for texts in judged_texts(playout)], parse_grade
        )
        judgement = grade_scores(grades, playout)
        # `metrics` comes last: it counts a failed request as unanswered, not as unreadable
        return replace(judgement, metrics={**judgement.metrics, **metrics})

    def _compared(self, playout: Playout) -> Judgement:
        ring = Ring.of(playout, "use mode: grade")
        winners, metrics = self._read([self._filled(texts) for texts in ring.shown], parse_winner)
        judgement = ring.judgement([points(winner) for winner in winners])
        return replace(judgement, metrics={**metrics, **judgement.metrics})

    def _filled(self, texts: Mapping[str, str]) -> str:
        """The judge's prompt. The template's tags and chat control tokens are disarmed in the
        players' texts.
        """
        return self._template.filled({s: without_controls(t.strip()) for s, t in texts.items()})

    def _read(
        self, prompts: Sequence[str], parse: Callable[[str], T | None]
    ) -> tuple[list[T | None], dict[str, Tensor | float]]:
        """The judge's parsed reply to each prompt (None without a readable one), and metrics."""
        unique = list(dict.fromkeys(prompts))
        prefetched = self._prefetch.take(unique)
        replies = {p: o for p, o in prefetched.items() if isinstance(o, Reply)}
        # the server may have been down only while prefetching: ask again
        rest = [prompt for prompt in unique if prompt not in replies]
        outcomes = self._chat.ask(rest)
        replies |= {p: o for p, o in zip(rest, outcomes, strict=True) if isinstance(o, Reply)}
        self._report([o for o in outcomes if isinstance(o, Failure)], bool(replies))
        reading = reading_of_most([reply.text for reply in replies.values()])
        read = {prompt: parse(reading.said(reply.text)) for prompt, reply in replies.items()}
        metrics: dict[str, Tensor | float] = {}
        if prompts:
            metrics["unreadable"] = _share(p in read and read[p] is None for p in prompts)
            metrics["unanswered"] = _share(p not in read for p in prompts)
        if replies:
            metrics["seconds"] = fmean(reply.seconds for reply in replies.values())
        return [read.get(prompt) for prompt in prompts], metrics

    def _report(self, failures: Sequence[Failure], any_reply: bool) -> None:
        """Raise RewardError if every request failed; warn once if only some did."""
        if failures and not any_reply:
            raise RewardError(failures[-1].cause)
        if failures and not self._warned:
            self._warned = True
            warn(
                f"reward {self.name!r}: {len(failures)} requests of a round failed; the last: "
                f"{failures[-1].cause}"
            )


def _share(truths: Iterable[bool]) -> Tensor:
    return torch.tensor([float(truth) for truth in truths])
