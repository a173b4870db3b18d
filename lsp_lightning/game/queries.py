"""Where the queries of a round come from: the base class of sources, and queries from a file."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least, warn
from lsp_lightning.game.known_queries import Query, read_queries
from lsp_lightning.game.player import Player
from lsp_lightning.game.pool import Pool
from lsp_lightning.game.query_keys import HALF_PAIR
from lsp_lightning.seeding import derive_seed, permutation
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Sampling, Written


@dataclass(frozen=True)
class QueryBatch:
    """The queries of one round."""

    texts: tuple[str, ...]
    """N queries, in the order in which they are answered."""
    written: Written | None = None
    """The rows that the Challenger wrote; None if it wrote none."""
    solutions: tuple[object, ...] | None = None
    """The known answer of each query (or its tests), or None."""
    passages: tuple[str | None, ...] | None = None
    """The passage that each query was written about, or None."""
    examples: tuple[str, ...] = ()
    """The example queries that the Challenger was shown, each once."""
    past: tuple[int, ...] = ()
    """The places of the queries that an earlier policy wrote."""

    @property
    def all_refused(self) -> bool:
        """Whether the gate refused the only query, so that it is played without being learned."""
        if self.written is None or len(self.texts) != 1:
            return False
        [rows] = torch.nonzero(self.written.answered_C == 0, as_tuple=True)
        return any(row in self.written.refused for row in rows.tolist())


class QuerySource(ABC):
    """Where the queries of a round come from. Subclass it for a source of your own.

    Override :meth:`draw`. The other methods tell the planner and a resumed run what to expect;
    their defaults are safe.
    """

    #: Whether the policy writes the queries, and so is trained as Challenger too.
    selfplay: bool = False
    #: How the policy writes queries; None if it writes none.
    sampling: Sampling | None = None
    #: Good queries of earlier rounds, which may be shown as examples. It is set before each draw.
    pool: Pool | None = None
    #: N, the queries of a round, those of the pool included. It is set before each draw.
    per_round: int | None = None
    #: Whether a pool or an earlier policy takes places of the rounds, so that :meth:`draw` is asked
    #: for fewer than N queries, and not in each round for as many.
    shares_rounds: bool = False

    @abstractmethod
    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """The queries of one round.

        Args:
            player: the policy, to write queries with (``player.respond``) and to encode prompts
                (``player.codec``).
            num_queries: how many to return; fewer than N if ``shares_rounds``.
            index: the round, from 0.
            seed: the run's seed. The same seed and round must give the same queries, or resuming
                is not exact: derive what you need from both (``lsp_lightning.seeding``).
        """

    def redraw(
        self,
        player: Player,
        places: Sequence[int],
        num_queries: int,
        index: int,
        seed: int,
        attempt: int,
    ) -> QueryBatch:
        """Other queries in place of those that the gate refused.

        Override it if the place of a query says something about it: its prompt, its baseline.

        Args:
            player: as in :meth:`draw`.
            places: the places of the refused queries among those that were drawn.
            num_queries: how many were drawn.
            index: the round, from 0.
            seed: the run's seed.
            attempt: 1 for the first time that queries of this round are drawn again.
        """
        return self.draw(player, len(places), index, derive_seed(seed, "redraw", attempt))

    def known(self) -> Sequence[Query]:
        """All queries that are known before the run; none if they are written during it."""
        return ()

    def describe(self) -> str:
        """The settings in one line; a resumed run warns if the line has changed."""
        return type(self).__name__

    def check_num_queries(self, num_queries: int) -> None:
        """Raise ConfigError unless a round can have N queries."""
        if self.selfplay:
            require_at_least(num_queries, 2, "data.num_queries", "queries are compared in a round")

    def num_prompts(self, num_queries: int) -> int:
        """How many prompts the Challenger gets for N queries; each has N / prompts completions."""
        return 1

    def longest_prompt(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest prompt that the Challenger gets; None if unknown.

        Args:
            codec: the policy's tokenizer, or None if it could not be loaded.
        """
        return None

    def longest_query(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest query; None if unknown.

        By default ``sampling.max_new_tokens``, or else the length of the longest known query.
        """
        if self.sampling is not None:
            return self.sampling.max_new_tokens
        return longest_text([query.text for query in self.known()], codec)

    def longest_passage(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest passage that a query comes with; 0 if none does, None if unknown.

        By default 0 if all queries are known before the run.
        """
        return 0 if self.known() else None


class PromptFile(QuerySource):
    """Queries from a file, and no Challenger to train: the data-driven baseline (GRPO).

    Args:
        path: file of rows with a query and perhaps its solution, as JSON Lines, JSON, CSV, TSV,
            Parquet or text, or a split of a Hub dataset, ``hf:openai/gsm8k:main:train``. Each pass
            over the rows has a new order.
    """

    def __init__(self, path: str) -> None:
        self._queries = read_queries(path, "data.queries.init_args.path")

    def known(self) -> Sequence[Query]:
        """All queries of the file."""
        return self._queries

    def describe(self) -> str:
        """The number of queries, and a hash of their texts."""
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
            solutions=tuple(query.solution for query in chosen),
        )


def check_batch(batch: object, source: QuerySource, num_queries: int, method: str = "draw") -> None:
    """Raise ConfigError unless a method returned a consistent QueryBatch of N queries."""
    draw = f"{method} of {type(source).__name__}"

    def require(condition: bool, problem: str, remedy: str) -> None:
        if not condition:
            raise ConfigError("data.queries", f"{draw} returned {problem}", remedy)

    kind = type(batch).__name__
    require(isinstance(batch, QueryBatch), f"a {kind}", "return a QueryBatch")
    assert isinstance(batch, QueryBatch)
    texts, solutions, written = batch.texts, batch.solutions, batch.written
    passages = batch.passages
    strings = isinstance(texts, tuple | list) and all(isinstance(text, str) for text in texts)
    require(strings, "texts that are not a tuple of str", "return one str for each query")
    strings = passages is None or all(isinstance(text, str | None) for text in passages)
    require(strings, "passages that are not a tuple of str", "return a str or None for each query")
    whole = not any(map(HALF_PAIR.search, (*texts, *filter(None, passages or ()))))
    require(whole, "a text with half of a surrogate pair", "decode it with errors='replace'")
    for name, values in (("texts", texts), ("solutions", solutions), ("passages", passages)):
        count = num_queries if values is None else len(values)
        remedy = f"return {num_queries} (num_queries)"
        require(count == num_queries, f"{count} {name}", remedy)
    if written is None:
        return
    require(source.selfplay, "written rows without selfplay", "set selfplay = True in the class")
    c = len(written.rollouts)
    for name in ("valid_C", "answered_C", "baseline_C"):
        values = getattr(written, name)
        fits = isinstance(values, Tensor) and tuple(values.shape) == (c,)
        require(fits, f"a written.{name} that does not fit", f"use a tensor of shape ({c},)")
    require(written.valid_C.dtype == torch.bool, "a written.valid_C of numbers", "use torch.bool")
    beyond = bool((written.answered_C >= num_queries).any())
    require(not beyond, "a written.answered_C beyond the last query", "count from 0")
    answered = written.answered_C[written.answered_C >= 0].tolist()
    once = len(set(answered)) == len(answered)
    require(once, "a query twice in written.answered_C", "list it once; unanswered rows get -1")


def longest_text(texts: Sequence[str], codec: ChatCodec | None) -> int | None:
    """Tokens of the longest text, or None without texts.

    Without a tokenizer, the estimate is one token per three characters.
    """
    if not texts:
        return None
    if codec is None:
        return max(len(text) for text in texts) // 3
    return max(len(codec.encode_plain(text)) for text in sorted(texts, key=len)[-8:])


def check_sampling(sampling: Sampling, key: str, for_training: bool) -> None:
    """Raise ConfigError unless every sampling setting is in its range."""
    known = 0 <= sampling.temperature < math.inf
    if not known or (for_training and sampling.temperature == 0):
        raise ConfigError(
            f"{key}.temperature",
            f"is {sampling.temperature}",
            "set a finite number above 0 (0, greedy, is for evaluation only)",
        )
    if sampling.max_new_tokens < 1:
        raise ConfigError(f"{key}.max_new_tokens", f"is {sampling.max_new_tokens}", "set 1 or more")
    if not 0 < sampling.top_p <= 1:
        raise ConfigError(f"{key}.top_p", f"is {sampling.top_p}", "set it above 0 and at most 1")
    if for_training and sampling.truncates:
        warn(
            f"{key}: top_p below 1 or top_k above 0 biases training, because log-probs are those "
            "of the full distribution; set top_p to 1 and top_k to 0"
        )
    if sampling.stop == "":
        raise ConfigError(f"{key}.stop", "is empty", "set a text, or null for none")
    if r"\n" in (sampling.stop or ""):  # YAML and shells leave it as it is in single quotes
        warn(
            f"{key}.stop is {sampling.stop}, with a backslash; if you mean a line break, put it "
            "into double quotes in YAML, or type $'...' in bash"
        )
    if sampling.top_k < 0:
        raise ConfigError(f"{key}.top_k", f"is {sampling.top_k}", "set 0 (off) or more")
