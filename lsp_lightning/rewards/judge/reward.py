"""A judge behind a server: any model that speaks OpenAI's chat protocol."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Literal, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import (
    AnswerEnters,
    Judgement,
    Reward,
    RewardError,
    require_answers,
)
from lsp_lightning.rewards.grading import JudgeTemplate, grade_scores, judged_texts
from lsp_lightning.rewards.judge.cache import ReplyCache
from lsp_lightning.rewards.judge.client import ChatClient
from lsp_lightning.rewards.judge.protocol import Failure, Reply
from lsp_lightning.runtime.background import Prefetcher
from lsp_lightning.text.prompts import (
    COMPARE,
    COMPARE_TAGS,
    JUDGE,
    JUDGE_TAGS,
    Winner,
    parse_grade,
    parse_winner,
    without_controls,
    without_thinking,
)
from lsp_lightning.types import Playout

JudgeMode = Literal["grade", "compare"]

_KEY = "model.rewards.JudgeReward"
#: Template, slots and tags of each mode.
_MODES = {
    "grade": (JUDGE, ("instruction", "response"), JUDGE_TAGS),
    "compare": (COMPARE, ("instruction", "first", "second"), COMPARE_TAGS),
}
#: What a verdict is called when the two answers stand in the other order.
_SWAPPED = {
    Winner.FIRST: Winner.SECOND,
    Winner.SECOND: Winner.FIRST,
    Winner.TIE: Winner.TIE,
}
_FIRST_WINS = {Winner.FIRST: 1.0, Winner.SECOND: 0.0, Winner.TIE: 0.5}

T = TypeVar("T")


class JudgeReward(Reward):
    """A score in [0, 1] from a model behind a server: vLLM, llama.cpp, Ollama, transformers serve.

    *grade*: each answer gets 0 to 7 points for the criteria of the self-reward's judge. *compare*:
    the answers to a query stand in a ring, each is compared with the next in both orders, and its
    score is the share that it wins. Where the orders disagree, neither has won.

    A judge's own thinking is not read. A reply that keeps to no form, or that the length limit cut
    off, is unreadable; a request that failed after all tries is unanswered: both judge nothing.
    The server's tokenizer is out of reach: that judged text cannot become one of its control tokens
    is known for the spellings of the common families of models only.

    Args:
        url: where the protocol's paths begin, such as ``http://127.0.0.1:8000/v1``.
        model: the model's name on that server.
        mode: whether answers are graded one by one or compared, see above.
        weight: factor in the sum of its kind.
        name: what it is called in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        standardize: see :class:`lsp_lightning.rewards.base.Reward`.
        prompt: file with the judge's template; slots {instruction} and {response}, or
            {instruction}, {first} and {second}.
        api_key_env: name of the environment variable that holds the server's key.
        concurrency: requests at once.
        timeout: seconds for one try of a request.
        retries: further tries of a request that failed for a reason that may pass.
        temperature: 0 is greedy.
        max_tokens: tokens of a reply, with the judge's thinking.
        cache: SQLite file for the judge's replies, made if it is missing; None keeps them in
            memory.
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
        standardize: bool = False,
        prompt: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
        temperature: float = 0.0,
        max_tokens: int = 512,
        cache: str | None = None,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name), standardize)
        if mode not in _MODES:
            raise ConfigError(f"{_KEY}.mode", f"is {mode!r}", "set grade or compare")
        self._mode = mode
        self.comparable = mode == "grade"  # a score in the ring is of the other answers too
        self._client = ChatClient(
            url=url,
            model=model,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            temperature=temperature,
            max_tokens=max_tokens,
            key=_KEY,
        )
        self._template = JudgeTemplate(prompt, f"{_KEY}.prompt", *_MODES[mode])
        self._cache = ReplyCache(cache, f"{_KEY}.cache", (model, float(temperature), max_tokens))
        # a server may take minutes over a request: nobody waits for that who wants to end
        self._prefetch: Prefetcher[str, Reply | Failure | None] = Prefetcher(
            concurrency, leave=True
        )
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Knock at the server's door, before any model is loaded.

        Raises:
            ConfigError: nobody is there.
        """
        super().setup(trainer, pl_module, stage)
        self._client.check_reachable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask nothing more."""
        self._prefetch.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Nor where a run breaks off, after which there is no teardown."""
        self._prefetch.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Ask for the grade of an answer; what is compared is asked when all answers are there."""
        if self._mode == "grade" and answer is not None:
            prompt = self._filled({"instruction": query, "response": answer})
            self._prefetch.begin(prompt, partial(self._ask_once, prompt))

    def _ask_once(self, prompt: str) -> Reply | Failure | None:
        """None where the cache has the reply."""
        return None if self._cache.find([prompt]) else self._client.ask([prompt])[0]

    def score(self, playout: Playout) -> Tensor:
        """The judge's scores, (N, G)."""
        return self.judge(playout).scores

    def judge(self, playout: Playout) -> Judgement:
        """The scores, and how well the judge could be asked and read.

        Raises:
            RewardError: not one request was answered.
        """
        return self._graded(playout) if self._mode == "grade" else self._compared(playout)

    def _graded(self, playout: Playout) -> Judgement:
        grades, metrics = self._read(
            [self._filled(texts) for texts in judged_texts(playout)], parse_grade
        )
        judgement = grade_scores(grades, playout)
        # ours count a request that failed as unanswered, not as unreadable
        return replace(judgement, metrics={**judgement.metrics, **metrics})

    def _compared(self, playout: Playout) -> Judgement:
        n, g = len(playout.query_texts), playout.group_size
        if g < 2:
            raise RewardError("one answer has nothing to be compared with; use mode: grade")
        texts = judged_texts(playout)
        pairs = [(i * g + j, i * g + k) for i in range(n) for j, k in _ring(g)]
        unlike = [(a, b) for a, b in pairs if _response(texts[a]) != _response(texts[b])]
        prompts = [
            self._filled(
                {
                    "instruction": texts[first]["instruction"],
                    "first": texts[first]["response"],
                    "second": texts[second]["response"],
                }
            )
            for a, b in unlike
            for first, second in ((a, b), (b, a))
        ]
        winners, metrics = self._read(prompts, parse_winner)
        verdicts = list(zip(winners[::2], winners[1::2], strict=True))
        wins = dict.fromkeys(pairs, 0.5) | dict(
            zip(unlike, map(_first_wins, verdicts), strict=True)
        )
        disagreed = [there != _SWAPPED[back] for there, back in verdicts if there and back]
        if disagreed:
            metrics["order_disagreement"] = torch.tensor(disagreed).float()
        return Judgement(_mean_wins(wins, n * g).view(n, g), metrics=metrics)

    def _filled(self, texts: Mapping[str, str]) -> str:
        """The prompt; players' texts can spell neither its tags nor a control token."""
        return self._template.filled({s: without_controls(t.strip()) for s, t in texts.items()})

    def _read(
        self, prompts: Sequence[str], parse: Callable[[str], T | None]
    ) -> tuple[list[T | None], dict[str, Tensor | float]]:
        """What the judge says to each prompt, parsed, and what is logged of the asking."""
        known = self._cache.find(prompts)
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        prefetched = self._prefetch.take(unknown)
        replies = {p: o for p, o in prefetched.items() if isinstance(o, Reply)}
        # what failed beside the sampling is asked again: a server may have come back
        unknown = [prompt for prompt in unknown if prompt not in replies]
        outcomes = self._client.ask(unknown)
        replies |= {p: o for p, o in zip(unknown, outcomes, strict=True) if isinstance(o, Reply)}
        said = known | {prompt: without_thinking(reply.text) for prompt, reply in replies.items()}
        self._complain([o for o in outcomes if isinstance(o, Failure)], bool(said))
        read = {prompt: parse(text) for prompt, text in said.items()}
        # a greedy judge would say the same again; one that draws may be readable the next time
        greedy = self._client.temperature == 0
        self._cache.keep({p: said[p] for p in replies if greedy or read[p] is not None})
        metrics: dict[str, Tensor | float] = {}
        if prompts:
            metrics["unreadable"] = _share(p in said and read[p] is None for p in prompts)
            metrics["unanswered"] = _share(p not in said for p in prompts)
            metrics["cached"] = _share(p in known for p in prompts)
        if replies:
            metrics["seconds"] = fmean(reply.seconds for reply in replies.values())
        return [read.get(prompt) for prompt in prompts], metrics

    def _complain(self, failures: Sequence[Failure], heard: bool) -> None:
        """Raise if nothing at all was heard of the judge; warn once of requests that failed."""
        if failures and not heard:
            raise RewardError(failures[-1].cause)
        if failures and not self._warned:
            self._warned = True
            warnings.warn(
                f"reward {self.name!r}: {len(failures)} requests of a round failed; the last: "
                f"{failures[-1].cause}",
                stacklevel=2,
            )


def _share(truths: Iterable[bool]) -> Tensor:
    return torch.tensor([float(truth) for truth in truths])


def _response(texts: Mapping[str, str]) -> str:
    return texts["response"].strip()


def _ring(g: int) -> list[tuple[int, int]]:
    """Each of ``g`` with the next, the last with the first; two make one pair."""
    return [(0, 1)] if g == 2 else [(j, (j + 1) % g) for j in range(g)]


def _first_wins(verdicts: tuple[Winner | None, Winner | None]) -> float:
    """What a pair's first answer wins by the verdicts in both orders; NaN where one is missing."""
    there, back = verdicts
    if there is None or back is None:
        return math.nan
    return _FIRST_WINS[there] if there == _SWAPPED[back] else 0.5


def _mean_wins(wins: Mapping[tuple[int, int], float], answers: int) -> Tensor:
    """Each answer's mean over its pairs that could be judged, or NaN. -> (answers,)"""
    scores: list[list[float]] = [[] for _ in range(answers)]
    for (first, second), won in wins.items():
        if not math.isnan(won):
            scores[first].append(won)
            scores[second].append(1 - won)
    return torch.tensor([fmean(own) if own else math.nan for own in scores])
