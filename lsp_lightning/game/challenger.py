"""The Challenger: the policy writes the queries of a round."""

from collections.abc import Iterator, Sequence

from lsp_lightning.errors import ConfigError, require_at_least, warn
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.game.player import Player
from lsp_lightning.game.queries import QueryBatch, QuerySource, check_sampling, longest_text
from lsp_lightning.seeding import derive_seed, permutation
from lsp_lightning.text.chat import ChatCodec, fill
from lsp_lightning.text.prompts import (
    ANOTHER,
    CHALLENGER,
    challenger_slots,
    is_valid_query,
    read_template,
)
from lsp_lightning.text.rendering import ChatTemplateError
from lsp_lightning.types import Rollouts, Sampling, Written

_KEY = "data.queries.init_args"


class Challenger(QuerySource):
    """Self-play: the policy writes the queries.

    The mean reward of a round's queries is the baseline for each. They answer the same prompt, or
    prompts that differ in the last of their examples. Examples are shown as earlier replies of the
    conversation, other ones in each round: with fixed ones a small model learns a third as much.

    Args:
        task: what the queries should be about; null leaves it to the Challenger.
        template: a form for the queries, with placeholders that the Challenger fills.
        prompt: file with another prompt; its slots {task} and {template} are optional.
        opening: how each query begins. It is given: part of the query, but never trained. Null
            gives none.
        examples: file of example queries, in any format of a PromptFile; null shows none.
        num_examples: how many examples a prompt shows, drawn anew in each round; the last one also
            differs between the queries of a round.
        examples_from_pool: also show queries of the pool (data.pool), in each round as many as come
            from the file; without a file, as soon as the pool has enough.
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
        sampling: Sampling = Sampling(max_new_tokens=256),  # noqa: B008 - frozen
    ) -> None:
        check_sampling(sampling, f"{_KEY}.sampling", for_training=True)
        text = read_template(prompt, CHALLENGER, f"{_KEY}.prompt", ())
        # task and template come from the config: trusted, and so part of the prompt's template
        self._prompt = fill(text, challenger_slots(task, template))
        if opening is not None and not opening.strip():
            raise ConfigError(f"{_KEY}.opening", "is blank", "set a text, or null for none")
        self.opening = opening or ""
        self.examples = read_examples(examples, num_examples)
        self._num_examples = num_examples
        self.examples_from_pool = examples_from_pool
        if examples_from_pool:
            require_at_least(num_examples, 1, f"{_KEY}.num_examples", "that shows none of the pool")
        self.sampling: Sampling = sampling

    def num_prompts(self, num_queries: int) -> int:
        """One for each query if other examples can be shown, else one for all."""
        varied = len(self.examples) > self._num_examples or self.examples_from_pool
        return num_queries if varied else 1

    def longest_prompt(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest prompt, its opening included; None without a tokenizer."""
        if codec is None:
            return None
        lengths = {text: len(codec.encode_plain(text)) for text in self.examples}
        longest = sorted(self.examples, key=lengths.__getitem__)[-self._num_examples :]
        if not self.examples_from_pool:
            return len(self._encode(codec, longest))
        longest = longest or ["x"] * self._num_examples
        query = self.longest_query(codec) or 0  # any example may be a query of the pool
        more = sum(max(0, query - lengths.get(text, 0)) for text in longest)
        return len(self._encode(codec, longest)) + more

    def longest_query(self, codec: ChatCodec | None) -> int | None:
        """Tokens of the longest query, its opening included."""
        return self.sampling.max_new_tokens + (longest_text([self.opening], codec) or 0)

    def describe(self) -> str:
        """Its sampling settings, and a hash of everything that it is shown."""
        shown = [self._prompt]
        if self.opening or self.examples:
            shown += [self.opening, f"{self._num_examples} of", *self.examples]
        if self.examples_from_pool:
            shown.append("and of the pool")
        return f"Challenger with {self.sampling}, prompt {derive_seed(0, *shown):x}"

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        """N queries, sampled from the round's prompts."""
        shown = self._shown(num_queries, index, seed)
        draws = num_queries // len(shown)
        return self._write(player, shown, draws, derive_seed(seed, index, "queries"))

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
        if len(shown) == 1:
            return self._write(player, shown, len(places), seed)
        return self._write(player, [shown[place] for place in places], 1, seed)

    def _write(
        self, player: Player, shown: Sequence[Sequence[str]], draws: int, seed: int
    ) -> QueryBatch:
        """``draws`` queries from each of the prompts with these examples."""
        prompts = [self._encode(player.codec, examples) for examples in shown]
        rollouts = player.respond(prompts, draws, self.sampling, seed)
        valid = [
            is_valid_query(text, truncated)
            for text, truncated in zip(rollouts.spoken, rollouts.truncated.tolist(), strict=True)
        ]
        return QueryBatch(
            texts=tuple(self._joined(player.codec, rollouts)),
            written=Written.all_answered(rollouts, valid),
            examples=tuple(dict.fromkeys(text for examples in shown for text in examples)),
        )

    def _shown(self, num_queries: int, index: int, seed: int) -> list[list[str]]:
        """The examples of each prompt of a round: one prompt for each query, or one for all.

        Queries follow the last example most closely, so that one differs between the queries of a
        round. What stands before it is the same, and models that share prefixes compute it once.
        """
        known = [*self.examples, *self._of_pool(index, seed)]
        count = self._num_examples
        if len(known) < count:
            return [[]]
        order = permutation(len(known), derive_seed(seed, index, "examples"))
        shared, last = order[: count - 1], order[count - 1 :]
        prompts = num_queries if len(last) > 1 else 1
        rows = [[*shared, last[i % len(last)]] for i in range(prompts)]
        return [[known[place] for place in row] for row in rows]

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

    def _encode(self, codec: ChatCodec, examples: Sequence[str]) -> list[int]:
        """A prompt's tokens: a conversation whose earlier replies are examples, and the opening.

        Queries of the pool that the chat template does not show whole are left out.

        Raises:
            ConfigError: the chat template does not show earlier replies.
        """
        if not examples:
            return codec.encode(self._prompt, {}, self.opening)
        turns = [("user", self._prompt)]
        for example in examples:
            turns += [("assistant", example), ("user", ANOTHER)]
        try:
            ids = codec.encode_chat(turns, self.opening)
            shown = _decoded(codec, ids)
        except ChatTemplateError:
            shown = ""
        hidden = [e for e in examples if _decoded(codec, codec.encode_plain(e)) not in shown]
        if not hidden:
            return ids
        if any(example in self.examples for example in hidden):
            raise ConfigError(
                f"{_KEY}.examples",
                "are shown as earlier replies, but the model's chat template shows none",
                "set examples to null, and put them into a prompt file",
            )
        warn(
            f"{_KEY}.examples_from_pool: the model's chat template hides some queries of the pool, "
            "or a part of them; these are not shown"
        )
        return self._encode(codec, [example for example in examples if example not in hidden])


def _decoded(codec: ChatCodec, ids: Sequence[int]) -> str:
    """The text as the tokenizer knows it, without white space, which depends on what is beside."""
    return "".join(codec.tokenizer.decode(ids).split())


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
