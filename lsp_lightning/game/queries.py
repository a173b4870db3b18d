"""Where a round's queries come from: the Challenger writes them, or a file holds them."""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.player import Player
from lsp_lightning.paths import require_file
from lsp_lightning.seeding import derive_seed, permutation
from lsp_lightning.text.chat import fill
from lsp_lightning.text.prompts import CHALLENGER, challenger_slots, is_valid_query, read_template
from lsp_lightning.types import Rollouts, Sampling

#: What a file may call the known answer of a query.
SOLUTION_KEYS = ("solution", "answer", "reference", "ground_truth")


@dataclass(frozen=True)
class Query:
    """One line of a prompt file."""

    text: str
    """What is asked."""
    solution: object | None = None
    """What is known of it: an answer, tests, or None."""


@dataclass(frozen=True)
class QueryBatch:
    """The queries of one round."""

    texts: tuple[str, ...]
    """N queries."""
    valid_N: Tensor
    """(N,) bool: keeps the form rules."""
    rollouts: Rollouts | None = None
    """How the Challenger wrote them; None from a file."""
    solutions: tuple[object, ...] | None = None
    """What is known of each, or None."""


class QuerySource(ABC):
    """Supplies the queries of any round; the same seed and round give the same ones."""

    #: Whether the policy writes the queries, and so is trained as Challenger.
    selfplay: bool

    def known(self) -> Sequence[Query]:
        """The queries that are known beforehand; none where they are written as they are needed."""
        return ()

    def describe(self) -> str:
        """The source's settings in a line, by which a resumed run is compared."""
        return type(self).__name__

    @abstractmethod
    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """The queries of round ``index`` of the run with this seed."""


class Challenger(QuerySource):
    """Self-play: the policy itself, prompted, writes the queries. It sees nothing but the prompt.

    Args:
        task: what the queries should be about; None leaves it to the Challenger.
        template: a form for the queries, with placeholders that the Challenger fills.
        prompt: file that replaces the prompt; slots {task} and {template} are optional.
        sampling: how queries are drawn.
    """

    selfplay = True

    def __init__(
        self,
        task: str | None = None,
        template: str | None = None,
        prompt: str | None = None,
        sampling: Sampling = Sampling(max_new_tokens=256),  # noqa: B008 - frozen
    ) -> None:
        check_sampling(sampling, "data.queries.init_args.sampling", for_training=True)
        text = read_template(prompt, CHALLENGER, "data.queries.init_args.prompt", ())
        # task and template come from the config: trusted, and so part of the prompt's template
        self._prompt = fill(text, challenger_slots(task, template))
        self.sampling = sampling

    def describe(self) -> str:
        """Its prompt and how it is sampled."""
        return f"Challenger with {self.sampling}, prompt {derive_seed(0, self._prompt):x}"

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """N queries, sampled from one prompt."""
        ids = player.codec.encode(self._prompt, {})
        rollouts = player.respond(
            [ids], num_queries, self.sampling, derive_seed(seed, index, "queries")
        )
        valid = [
            is_valid_query(text, truncated)
            for text, truncated in zip(rollouts.texts, rollouts.truncated.tolist(), strict=True)
        ]
        return QueryBatch(
            texts=tuple(text.strip() for text in rollouts.texts),
            valid_N=torch.tensor(valid),
            rollouts=rollouts,
        )


class PromptFile(QuerySource):
    """The data-driven baseline (GRPO): queries from a JSONL file, and no Challenger to train.

    Args:
        path: file of lines ``{"query": ..., "solution": ...}``; the solution is optional. Each
            pass over it is in a new order.
    """

    selfplay = False

    def __init__(self, path: str) -> None:
        self._queries = read_queries(path, "data.queries.init_args.path")

    def known(self) -> Sequence[Query]:
        """All queries of the file."""
        return self._queries

    def describe(self) -> str:
        """How many queries, and which."""
        texts = "".join(query.text for query in self._queries)
        return f"PromptFile of {len(self._queries)} queries, {derive_seed(0, texts):x}"

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """The next N queries of an endless stream of shuffled passes over the file."""
        size = len(self._queries)
        places = range(index * num_queries, (index + 1) * num_queries)
        passes = {place // size for place in places}
        orders = {k: permutation(size, derive_seed(seed, k, "order")) for k in passes}
        chosen = [self._queries[orders[place // size][place % size]] for place in places]
        return QueryBatch(
            texts=tuple(query.text for query in chosen),
            valid_N=torch.ones(num_queries, dtype=torch.bool),
            solutions=tuple(query.solution for query in chosen),
        )


def read_queries(path: str, key: str) -> list[Query]:
    """Queries of a JSONL file.

    Raises:
        ConfigError: no such file, no lines, or a line that is not a query; names file and line.
    """
    file: Path = require_file(path, key)
    queries = []
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(key, f"{path!r} is not UTF-8 text", "save it as UTF-8") from error
    # not splitlines: JSON strings may hold other line separators as they are
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        where = f"line {number} of {path!r}"
        if not line.strip():
            raise ConfigError(key, f"{where} is empty", "delete the line")
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                key, f"{where} is not JSON ({error.msg})", 'write lines like {"query": "..."}'
            ) from error
        query = entry.get("query") if isinstance(entry, dict) else None
        if not isinstance(query, str) or not query.strip():
            raise ConfigError(
                key, f"{where} has no 'query' text", 'write lines like {"query": "..."}'
            )
        if any("\ud800" <= char <= "\udfff" for char in query):
            raise ConfigError(key, f"{where} holds half of a surrogate pair", "mend the text")
        queries.append(
            Query(query.strip(), next((entry[key] for key in SOLUTION_KEYS if key in entry), None))
        )
    if not queries:
        raise ConfigError(key, f"{path!r} holds no queries", 'write lines like {"query": "..."}')
    return queries


def check_sampling(sampling: Sampling, key: str, for_training: bool) -> None:
    """Whether sampling settings make sense.

    Raises:
        ConfigError: a setting out of its range.
    """
    if not sampling.temperature >= 0 or (for_training and sampling.temperature == 0):
        raise ConfigError(
            f"{key}.temperature", f"is {sampling.temperature}", "training needs one above 0"
        )
    if sampling.max_new_tokens < 1:
        raise ConfigError(f"{key}.max_new_tokens", f"is {sampling.max_new_tokens}", "set 1 or more")
    if not 0 < sampling.top_p <= 1:
        raise ConfigError(f"{key}.top_p", f"is {sampling.top_p}", "set it above 0 and at most 1")
    if for_training and sampling.truncates:
        warnings.warn(
            f"{key}: top_p below 1 and top_k above 0 bias training; the log-probs are those of the "
            "untruncated distribution",
            stacklevel=3,
        )
    if sampling.top_k < 0:
        raise ConfigError(f"{key}.top_k", f"is {sampling.top_k}", "set 0 (off) or more")
