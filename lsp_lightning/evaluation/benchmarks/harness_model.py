"""A policy as a model of lm-evaluation-harness. Importing this needs lm-eval."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.evaluation.benchmarks.base import KEY, Side
from lsp_lightning.evaluation.exam import HELDOUT_BATCH
from lsp_lightning.models.logits import continuation_logprobs
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.rendering import ChatTemplateError
from lsp_lightning.types import Sampling

Result = TypeVar("Result")
Scored = tuple[float, bool]
#: (texts, tokens of the context, tokens of the continuation), as TemplateLM makes them.
Pair = tuple[tuple[str, str] | None, list[int], list[int]]

#: Context of a model whose config does not tell; the harness's number.
_CONTEXT = 2048
#: Continuations that are scored together.
_PAIRS = 512
_READ = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class PolicyLM(TemplateLM):  # type: ignore[misc] # lm-eval has no types
    """One side of a comparison, for the harness.

    Not the harness's ``HFLM``, for four reasons. Answers come from the engine that training
    samples with: the same stop tokens, compute type and fixed date of the chat template; few-shot
    examples are computed once for all tasks; a batch that does not fit into memory is halved.
    Thinking is removed as in training. Log-probs need the logits of continuations only, where HFLM
    computes those of whole rows. And HFLM changes the tokenizer that it is given.

    Prompts and cuts are those of HFLM, so both give one model the same figures. One thing differs:
    HFLM adds a BOS token that the tokenizer likes and the chat template does not write; training
    does not, and neither does this.

    Args:
        side: the model.
        seed: fixes the sampled answers.
        label: who it is, for the progress bar.
    """

    def __init__(self, side: Side, seed: int, label: str) -> None:
        super().__init__()
        self.tokenizer = side.codec.tokenizer
        self._side = side
        self._seed = seed
        self._label = label

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found = self.tokenizer.eos_token_id
        return int(self._side.codec.stop_ids[0] if found is None else found)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context."""
        found = self.tokenizer.bos_token_id
        return self.eot_token_id if found is None else int(found)

    @property
    def max_length(self) -> int:
        """Longest row in tokens."""
        return self._side.context or _CONTEXT

    @property
    def tokenizer_name(self) -> str:
        """Names the chat template in the harness's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Tokens of a text, which spells its control tokens: the chat template writes them."""
        return list(self.tokenizer(string, add_special_tokens=False)["input_ids"])

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation; without a generation prompt, its last turn is continued."""
        turns = list(chat_history)
        prefix = "" if add_generation_prompt else turns.pop()["content"]
        try:
            return self._side.codec.render(turns, True, prefix)
        except ChatTemplateError:
            said = [turn for turn in turns if turn["role"] != "system"]
            if len(said) == len(turns):
                raise
            warn(f"{KEY}: this chat template has no system turn; the task's one is left out")
            return self._side.codec.render(said, True, prefix)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """An answer to each prompt, cut before its first stop text, without thinking."""
        kinds: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            kinds.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        seen: dict[str, int] = {}
        seeds = []
        for request in requests:  # a prompt that is repeated gets another sample
            prompt = request.args[0]
            seen[prompt] = seen.get(prompt, 0) + 1
            seeds.append(derive_seed(self._seed, "benchmark", seen[prompt], prompt))
        texts: dict[int, str] = {}
        for members in kinds.values():
            settings = requests[members[0]].args[1]
            found = self._answers([requests[i].args[0] for i in members], settings, members, seeds)
            texts.update(zip(members, found, strict=True))
        return [texts[i] for i in range(len(requests))]

    def _answers(
        self,
        contexts: Sequence[str],
        settings: Mapping[str, Any],
        members: Sequence[int],
        seeds: Sequence[int],
    ) -> list[str]:
        """Answers to prompts with the same settings."""
        sampling, until = self._sampling(settings)
        prompts = [self._shortened(self.tok_encode(text), sampling) for text in contexts]

        def answer(part: list[int]) -> list[str]:
            drawn = self._side.player.respond(
                [prompts[i] for i in part], 1, sampling, [seeds[members[i]] for i in part]
            )
            return [_before(text, until) for text in drawn.spoken]

        return self._in_parts(answer, [len(p) for p in prompts], HELDOUT_BATCH, "answers")

    def _sampling(self, settings: Mapping[str, Any]) -> tuple[Sampling, list[str]]:
        """How answers are sampled, and the texts that end them."""
        known = normalize_gen_kwargs(dict(settings))
        if other := sorted(set(known) - _READ):
            warn(f"{KEY}: generation settings of a task are not supported and ignored: {other}")
        until = [text for text in known["until"] if text]
        sampled = known["do_sample"]
        return Sampling(
            temperature=float(known.get("temperature", 0.0)) if sampled else 0.0,
            max_new_tokens=known["max_gen_toks"],
            top_p=float(known.get("top_p", 1.0)) if sampled else 1.0,
            top_k=int(known.get("top_k", 0)) if sampled else 0,
            stop=until[0] if until else None,  # only saves time: answers are cut at all of them
        ), until

    def _shortened(self, ids: list[int], sampling: Sampling) -> list[int]:
        """A prompt without its beginning if it would not fit into the context with its answer."""
        room = self.max_length - sampling.max_new_tokens
        if room < 1:
            raise ConfigError(
                KEY,
                f"answers of a task may have {sampling.max_new_tokens} tokens, but the model's "
                f"context has {self.max_length}",
                "lower max_gen_toks in a copy of its YAML file, or take another model",
            )
        if len(ids) > room:
            warn(f"{KEY}: prompts that do not fit into the model's context lose their beginning")
        return ids[-room:]

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[Scored]:
        """Log-prob of each continuation, and whether greedy decoding gives it."""
        contexts, continuations = [], []
        for _, context, continuation in requests:
            row = [*context, *continuation][-self.max_length - 1 :]
            contexts.append(row[: len(row) - len(continuation)])
            continuations.append(row[len(contexts[-1]) :])
        lengths = [len(a) + len(b) for a, b in zip(contexts, continuations, strict=True)]

        def score(part: list[int]) -> list[Scored]:
            pairs = [contexts[i] for i in part], [continuations[i] for i in part]
            with self._side.weights() as model:
                return self._side.passes.run(
                    lambda tokens: continuation_logprobs(model, *pairs, self._side.pad_id, tokens),
                    longest=max(lengths[i] for i in part),
                )

        return self._in_parts(score, lengths, _PAIRS, "log-probs", in_order=True)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-prob of each whole text, in windows of the context's size."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        scored = iter(self._loglikelihood_tokens([w for row in windows for w in row]))
        return [sum(next(scored)[0] for _ in row) for row in windows]

    def _windows(self, text: str) -> Iterator[Pair]:
        rolling = get_rolling_token_windows(
            self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
        )
        for window in rolling:
            context, continuation = make_disjoint_window(window)
            yield None, context, continuation

    def _in_parts(
        self,
        work: Callable[[list[int]], list[Result]],
        lengths: Sequence[int],
        size: int,
        what: str,
        in_order: bool = False,
    ) -> list[Result]:
        """``work`` on parts of the rows, with a progress bar. -> its results in order.

        Args:
            work: takes the numbers of some rows and gives a result for each.
            lengths: length of each row; the longest come first, so memory runs out early.
            size: rows of a part.
            what: what is made, for the bar.
            in_order: keep the order, because neighbours begin alike.
        """
        order = list(range(len(lengths)))
        if not in_order:
            order.sort(key=lambda i: -lengths[i])
        results: dict[int, Result] = {}
        with tqdm(total=len(order), desc=f"{self._label}: {what}", dynamic_ncols=True) as bar:
            for start in range(0, len(order), size):
                part = order[start : start + size]
                results.update(zip(part, work(part), strict=True))
                bar.update(len(part))
        return [results[i] for i in range(len(order))]


def _before(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    for stop in until:
        text = text.split(stop)[0]
    return text
