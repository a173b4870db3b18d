"""The Challenger: the policy writes the queries of a round."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from lsp_lightning.errors import ConfigError, require_at_least, warn
from lsp_lightning.game.challenger_prompt import ChallengerPrompt, Shown
from lsp_lightning.game.documents import PASSAGE_WORDS, QUERIES_PER_PASSAGE, read_documents
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.game.player import Player
from lsp_lightning.game.queries import QueryBatch, QuerySource, check_sampling, longest_text
from lsp_lightning.seeding import derive_seed, permutation
from lsp_lightning.text.chat import ChatCodec, fill
from lsp_lightning.text.prompts import (
    CHALLENGER,
    challenger_slots,
    is_valid_query,
    read_template,
)
from lsp_lightning.types import Rollouts, Sampling, Written

_KEY = "data.queries.init_args"


class Challenger(QuerySource):
    """Self-play: the policy writes the queries.

    The mean reward of a round's queries is the baseline for each. They answer the same prompt, or
    prompts that differ in the last of their examples. Examples are shown as earlier replies of the
    conversation, other ones in each round: with fixed ones a small model learns a third as much.

    With documents, each query is about a passage of a text of yours, and the baseline is the mean
    reward of the queries about the same passage. Passages come in shuffled passes.

    Args:
        task: what the queries should be about; null leaves it to the Challenger.
        template: a form for the queries, with placeholders that the Challenger fills.
        prompt: file with another prompt; its slots {task}, {template} and {passage} are optional.
        opening: how each query begins. It is given: part of the query, but never trained. Null
            gives none.
        examples: file of example queries, in any format of a PromptFile; null shows none.
        num_examples: how many examples a prompt shows, drawn anew in each round; the last one also
            differs between the queries of a round.
        examples_from_pool: also show queries of the pool (data.pool), in each round as many as come
            from the file; without a file, as soon as the pool has enough.
        documents: file of texts to write about: .txt, .jsonl or .parquet with a key text (or
            passage, document, content, context); null writes without one.
        queries_per_passage: how many queries of a round are about the same passage.
        passage_words: most words of a passage; texts are split between paragraphs or sentences.
        sampling: how queries are sampled; sampling.stop is a text at which a query ends.
    """

    selfplay = True

    def __init__(
        self,
        task: str | None = None,
        template: str | None = None,
        prompt: str | None = None,
        opening: str | None = None,
        examples: str | None = None,
        num_examples: int = 4,
        examples_from_pool: bool = False,
        documents: str | None = None,
        queries_per_passage: int = QUERIES_PER_PASSAGE,
        passage_words: int = PASSAGE_WORDS,
        sampling: Sampling = Sampling(max_new_tokens=256),  # noqa: B008 - frozen
    ) -> None:
        check_sampling(sampling, f"{_KEY}.sampling", for_training=True)
        text = read_template(prompt, CHALLENGER, f"{_KEY}.prompt", ())
        # task and template come from the config: trusted, and so part of the prompt's template
        text = fill(text, challenger_slots(task, template))
        if opening is not None and not opening.strip():
            raise ConfigError(f"{_KEY}.opening", "is blank", "set a text, or null for none")
        self.opening = opening or ""
        self.examples = read_examples(examples, num_examples)
        self._prompt = ChallengerPrompt(text, self.opening, self.examples)
        self.documents = read_documents(documents, queries_per_passage, passage_words)
        if self.documents is None and self._prompt.has_slot:
            warn(
                f"{_KEY}.prompt has a slot {{passage}}, but there is no passage to fill it; set "
                f"{_KEY}.documents, or remove the slot"
            )
        self._num_examples = num_examples
        self.examples_from_pool = examples_from_pool
        if examples_from_pool:
            require_at_least(num_examples, 1, f"{_KEY}.num_examples", "that shows none of the pool")
        self.sampling: Sampling = sampling

    def check_num_queries(self, num_queries: int) -> None:
        """Raise ConfigError unless each passage has the same number of queries."""
        super().check_num_queries(num_queries)
        if self.documents is not None:
            self.documents.check(num_queries)

    def num_prompts(self, num_queries: int) -> int:
        """One for each query if other examples can be shown, else one for all or each passage."""
        if len(self.examples) > self._num_examples or self.examples_from_pool:
            return num_queries
        if self.documents is None:
            return 1
        if num_queries % self.documents.per_passage or self.shares_rounds:
            return num_queries
        return num_queries // self.documents.per_passage

    def longest_prompt(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest prompt, its opening included; None without a tokenizer."""
        if codec is None:
            return None
        lengths = {text: len(codec.encode_plain(text)) for text in self.examples}
        longest = sorted(self.examples, key=lengths.__getitem__)[-self._num_examples :]
        passage = None if self.documents is None else self.documents.longest(codec)[0]
        if not self.examples_from_pool:
            return len(self._prompt.encode(codec, Shown(tuple(longest), passage)))
        longest = longest or ["x"] * self._num_examples
        query = self.longest_query(codec) or 0  # any example may be a query of the pool
        more = sum(max(0, query - lengths.get(text, 0)) for text in longest)
        return len(self._prompt.encode(codec, Shown(tuple(longest), passage))) + more

    def longest_query(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest query, its opening included."""
        return self.sampling.max_new_tokens + (longest_text([self.opening], codec) or 0)

    def longest_passage(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest passage; 0 without documents."""
        return 0 if self.documents is None else self.documents.longest(codec)[1]

    def describe(self) -> str:
        """Its sampling settings, and a hash of everything that it is shown."""
        shown = [self._prompt.text]
        if self.opening or self.examples:
            shown += [self.opening, f"{self._num_examples} of", *self.examples]
        if self.examples_from_pool:
            shown.append("and of the pool")
        if self.documents is not None:
            shown.append(self.documents.describe())
        return f"Challenger with {self.sampling}, prompt {derive_seed(0, *shown):x}"

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """N queries, sampled from the round's prompts."""
        shown = self._shown(num_queries, index, seed)
        places, seed = range(num_queries), derive_seed(seed, index, "queries")
        return self._write(player, shown, places, seed)

    def redraw(
        self,
        player: Player,
        places: Sequence[int],
        num_queries: int,
        index: int,
        seed: int,
        attempt: int,
    ) -> QueryBatch:
        """Other queries from the prompts of the refused ones."""
        shown = self._shown(num_queries, index, seed)
        seed = derive_seed(seed, index, "queries", attempt)
        if len(shown) > 1:
            draws = num_queries // len(shown)
            shown = [shown[place // draws] for place in places]
        return self._write(player, shown, places, seed)

    def _write(
        self, player: Player, shown: Sequence[Shown], places: Sequence[int], seed: int
    ) -> QueryBatch:
        """Queries for these places of the round, as many from each prompt."""
        draws = len(places) // len(shown)
        prompts = [self._prompt.encode(player.codec, each) for each in shown]
        rollouts = player.respond(prompts, draws, self.sampling, seed)
        valid = [
            is_valid_query(text, truncated)
            for text, truncated in zip(rollouts.spoken, rollouts.truncated.tolist(), strict=True)
        ]
        texts = tuple(self._joined(player.codec, rollouts))
        written = Written.all_answered(rollouts, valid)
        examples = tuple(dict.fromkeys(text for each in shown for text in each.examples))
        if self.documents is None:
            return QueryBatch(texts, written, examples=examples)
        written = replace(written, baseline_C=torch.tensor(self.documents.numbers(places)))
        passages = tuple(each.passage for each in shown for _ in range(draws))
        return QueryBatch(texts, written, passages=passages, examples=examples)

    def _shown(self, num_queries: int, index: int, seed: int) -> list[Shown]:
        """What the prompts of a round show: one prompt for all, or for each passage or query."""
        rows = self._examples(num_queries, index, seed)
        if self.documents is None:
            return [Shown(row) for row in rows]
        passages = self.documents.drawn(num_queries, index, seed, self.per_round)
        if len(rows) == 1 and num_queries % self.documents.per_passage == 0:
            return [Shown(rows[0], passage) for passage in passages]
        numbers = self.documents.numbers(range(num_queries))
        return [Shown(rows[i % len(rows)], passages[number]) for i, number in enumerate(numbers)]

    def _examples(self, num_queries: int, index: int, seed: int) -> list[tuple[str, ...]]:
        """The examples of the prompts of a round: of one for each query, or of one for all.

        Queries follow the last example most closely, so that one differs between the queries of a
        round. What stands before it is the same, and models that share prefixes compute it once.
        """
        known = [*self.examples, *self._of_pool(index, seed)]
        count = self._num_examples
        if len(known) < count:
            return [()]
        order = permutation(len(known), derive_seed(seed, index, "examples"))
        shared, last = order[: count - 1], order[count - 1 :]
        prompts = num_queries if len(last) > 1 else 1
        rows = [[*shared, last[i % len(last)]] for i in range(prompts)]
        return [tuple(known[place] for place in row) for row in rows]

    def _of_pool(self, index: int, seed: int) -> list[str]:
        """Queries of the pool to show: as many as the file has, or as a prompt shows."""
        if not self.examples_from_pool or self.pool is None:
            return []
        count = len(self.examples) or self._num_examples
        return [query.text for query in self.pool.drawn(count, index, derive_seed(seed, "shown"))]

    def _joined(self, codec: ChatCodec, rollouts: Rollouts) -> Iterator[str]:
        """The opening with what was written after it."""
        if not self.opening:
            yield from (text.strip() for text in rollouts.spoken)
            return
        rows = zip(rollouts.prompt_ids, rollouts.completion_ids, rollouts.spoken, strict=True)
        for prompt, completion, text in rows:
            first = completion[:1].tolist()
            joined = codec.decode_after(prompt[-1:].tolist(), first)
            lost = joined.removesuffix(codec.decode(first))  # a space, with some tokenizers
            yield f"{self.opening}{lost}{text}".strip()


def read_examples(path: str | None, shown: int) -> tuple[str, ...]:
    """The example queries of a file; none without a file.

    Raises:
        ConfigError: the file cannot be read, or has fewer queries than a prompt shows.
    """
    key = f"{_KEY}.num_examples"
    if path is None:
        return ()
    require_at_least(shown, 1, key, "that shows none: set examples to null for this")
    texts = tuple(query.text for query in read_queries(path, f"{_KEY}.examples"))
    if len(texts) < shown:
        raise ConfigError(key, f"is {shown}, but {path!r} has {len(texts)} queries", "lower it")
    return texts
