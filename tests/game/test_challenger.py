"""The Challenger's opening, examples and stop text."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tiny_models import qwen_tokenizer
from tokenizers.normalizers import NFC

from lsp_lightning import Challenger, ConfigError, Player, Sampling
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.generation import LocalEngine
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import ANOTHER, is_valid_query
from lsp_lightning.types import Completions

SHORT = Sampling(max_new_tokens=12)
LONG = Sampling(max_new_tokens=40, temperature=0.7)
EXAMPLES = ("Name a tree.", "Count to <|user|> five.", "What is 2 + 2?", "Why?", "Say no.")


@pytest.fixture(scope="module")
def player(tiny_policy) -> Player:
    return Player.local(tiny_policy)


@pytest.fixture
def examples(tmp_path) -> str:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"query": text}) + "\n" for text in EXAMPLES))
    return str(path)


def prompts_of(drawn, player) -> list[str]:
    rollouts = drawn.written.rollouts
    rows = zip(rollouts.prompt_ids, rollouts.prompt_mask, strict=True)
    return [player.codec.tokenizer.decode(ids[mask]) for ids, mask in rows]


# -- opening ------------------------------------------------------------------------------


def test_an_opening_begins_each_query_but_is_no_part_of_what_is_trained(player):
    drawn = Challenger(opening="Write about", sampling=SHORT).draw(player, 6, 0, 0)
    assert all(prompt.endswith("Write about") for prompt in prompts_of(drawn, player))
    completions = drawn.written.rollouts.texts
    assert drawn.texts == tuple(f"Write about{text}".strip() for text in completions)
    assert not any("Write about" in text for text in completions)


def test_a_query_that_is_only_its_opening_is_invalid(player):
    class Silent:
        """Ends every completion at once."""

        def generate(self, prompts, draws, sampling, seed, finished=None):
            ids = torch.full((draws, 1), player.codec.stop_ids[0])
            return Completions(ids, ids >= 0, torch.zeros(ids.shape), torch.zeros(draws).bool())

    drawn = Challenger(opening="Write").draw(replace(player, engine=Silent()), 3, 0, 0)
    assert drawn.texts == ("Write",) * 3
    assert not drawn.written.valid_C.any()


# -- examples ------------------------------------------------------------------------------


def shown_in(prompt) -> list[str]:
    """The examples in a prompt, in their order."""
    return sorted((text for text in EXAMPLES if text in prompt), key=prompt.index)


def test_examples_are_earlier_replies_and_other_ones_in_each_round(player, examples):
    challenger = Challenger(examples=examples, num_examples=2, opening="So", sampling=SHORT)
    seen = set()
    for index in range(8):
        prompts = prompts_of(challenger.draw(player, 3, index, 0), player)
        assert all(prompt.count(ANOTHER) == 2 for prompt in prompts)
        assert all(prompt.endswith("So") for prompt in prompts)
        shown = [shown_in(prompt) for prompt in prompts]
        assert all(len(each) == 2 for each in shown)
        # the last example alone differs from query to query
        assert len({each[0] for each in shown}) == 1
        assert len({each[1] for each in shown}) == 3
        seen.add(frozenset(map(tuple, shown)))
    assert len(seen) > 3
    assert {text for round_ in seen for each in round_ for text in each} == set(EXAMPLES)


def test_as_many_examples_as_the_file_has_are_the_same_for_each_query(player, examples):
    challenger = Challenger(examples=examples, num_examples=5, sampling=LONG)
    assert challenger.num_prompts(3) == 1
    drawn = challenger.draw(player, 3, 0, 0)
    assert len(set(prompts_of(drawn, player))) == 1
    assert len(set(drawn.texts)) == 3


def test_examples_follow_from_seed_and_round(player, examples):
    challenger = Challenger(examples=examples, num_examples=3, sampling=SHORT)

    def shown(index, seed):
        return prompts_of(challenger.draw(player, 1, index, seed), player)[0]

    assert shown(2, 5) == shown(2, 5)
    assert len({shown(index, seed) for index in range(3) for seed in range(3)}) > 4


def test_a_control_token_in_an_example_is_plain_text(player, examples):
    control = player.codec.tokenizer.convert_tokens_to_ids("<|user|>")
    challenger = Challenger(examples=examples, num_examples=5, sampling=SHORT)
    ids = challenger.draw(player, 1, 0, 0).written.rollouts.prompt_ids[0]
    # the user asks once, and once after each example
    assert (ids == control).sum() == 1 + 5


def test_examples_that_the_chat_template_hides_are_refused(tiny_policy, examples):
    tokenizer = deepcopy(tiny_policy.codec.tokenizer)
    tokenizer.chat_template = "<|user|>{{ messages[-1]['content'] }}<|assistant|>"
    line = r"^data\.queries\.init_args\.examples: .* the model's chat template shows none; set"
    with pytest.raises(ConfigError, match=line):
        Challenger(examples=examples).longest_prompt(ChatCodec(tokenizer, {}, (2,)))


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (6, r"num_examples: is 6, but '.*' has 5 queries; lower it"),
        (0, r"num_examples: is 0, but that shows none: set examples to null for this; .*"),
    ],
)
def test_a_number_of_examples_that_cannot_be_shown_is_refused(examples, number, line):
    with pytest.raises(ConfigError, match=rf"^data\.queries\.init_args\.{line}$"):
        Challenger(examples=examples, num_examples=number)


def test_without_examples_their_number_does_not_matter():
    assert Challenger(num_examples=0).examples == ()


def test_a_missing_file_of_examples_is_refused_by_its_key():
    with pytest.raises(ConfigError, match=r"^data\.queries\.init_args\.examples: "):
        Challenger(examples="nowhere.jsonl")


def test_the_longest_prompt_has_the_longest_examples_and_the_opening(player, examples):
    challenger = Challenger(examples=examples, num_examples=2, opening="So", sampling=SHORT)
    rounds = [challenger.draw(player, 1, i, 0).written.rollouts for i in range(20)]
    assert challenger.longest_prompt(player.codec) == max(int(r.prompt_mask.sum()) for r in rounds)
    assert challenger.longest_prompt(None) is None
    opening = len(player.codec.encode_plain("So"))
    assert challenger.longest_query(player.codec) == SHORT.max_new_tokens + opening


def longest_prompt(tokenizer, folder, *texts):
    """Tokens of the longest prompt that shows one of these examples."""
    (folder / "examples.txt").write_text("\n".join(texts))
    challenger = Challenger(examples=str(folder / "examples.txt"), num_examples=1)
    return challenger.longest_prompt(ChatCodec(tokenizer, {}, (2,)))


def test_the_longest_examples_are_those_of_most_tokens(tmp_path):
    tokenizer, smiles, words = qwen_tokenizer(), "\U0001f600" * 5, "count to 5"
    longest = longest_prompt(tokenizer, tmp_path, smiles, words)
    assert longest == longest_prompt(tokenizer, tmp_path, smiles)  # four tokens each
    assert longest > longest_prompt(tokenizer, tmp_path, words)


def test_a_tokenizer_may_compose_the_characters_of_an_example(tmp_path):
    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.normalizer = NFC()  # as Qwen's
    assert longest_prompt(tokenizer, tmp_path, "a cafe\u0301")


def test_what_the_challenger_is_shown_stands_in_its_description(examples):
    lines = {
        Challenger(sampling=SHORT).describe(),
        Challenger(opening=None, sampling=SHORT).describe(),  # the same as without one
        Challenger(opening="So", sampling=SHORT).describe(),
        Challenger(examples=examples, sampling=SHORT).describe(),
        Challenger(examples=examples, num_examples=2, sampling=SHORT).describe(),
        Challenger(sampling=replace(SHORT, stop="\n")).describe(),
    }
    assert len(lines) == 5


# -- stop ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def free(player):
    """Completions without a stop text, and a text that many of them contain."""
    rollouts = player.respond([player.codec.encode("{q}", {"q": "Go."})], 32, LONG, seed=3)
    pairs = [text[i : i + 2] for text in rollouts.texts for i in range(4, len(text) - 1)]
    stop = max(set(pairs), key=lambda pair: sum(pair in text for text in rollouts.texts))
    assert sum(stop in text for text in rollouts.texts) > 3
    return rollouts, stop


def test_a_completion_ends_before_the_stop_text_and_is_the_same_until_there(player, free):
    without, stop = free
    told: dict[int, str] = {}
    prompts = [player.codec.encode("{q}", {"q": "Go."})]
    rollouts = player.respond(prompts, 32, replace(LONG, stop=stop), 3, told.__setitem__)
    assert rollouts.texts == tuple(text.partition(stop)[0] for text in without.texts)
    assert told == dict(enumerate(rollouts.texts))
    for row, whole in enumerate(without.texts):
        length = int(rollouts.completion_mask[row].sum())
        ids = rollouts.completion_ids[row, :length]
        assert torch.equal(ids, without.completion_ids[row, :length])
        assert torch.allclose(
            rollouts.logprobs[row, :length], without.logprobs[row, :length], atol=1e-5
        )
        if stop in whole:
            # the last token completes the stop text: without it the text is not there
            assert stop in player.codec.decode(ids.tolist())
            assert stop not in player.codec.decode(ids[:-1].tolist())
            assert not rollouts.truncated[row]
        else:
            assert rollouts.truncated[row] == without.truncated[row]
    assert rollouts.completion_ids.shape[1] == int(rollouts.completion_mask.sum(1).max())
    assert not rollouts.logprobs[~rollouts.completion_mask].any()


def test_an_engine_that_samples_on_gives_the_same_completions(player, tiny_policy, free):
    _, stop = free
    blind = LocalEngine(
        tiny_policy.causal_lm,
        tiny_policy.codec.stop_ids,
        tiny_policy.pad_id,
        never=tiny_policy.undecodable_ids,
    )
    prompts = [player.codec.encode("{q}", {"q": "Go."})]
    ending, cut = (
        each.respond(prompts, 32, replace(LONG, stop=stop), 3)
        for each in (player, replace(player, engine=blind))
    )
    assert ending.texts == cut.texts
    assert torch.equal(ending.completion_ids, cut.completion_ids)
    assert torch.equal(ending.truncated, cut.truncated)


def test_sampling_ends_at_the_stop_text(tiny_policy, free):
    _, stop = free
    engine = Player.local(tiny_policy).engine
    prompts = [tiny_policy.codec.encode("{q}", {"q": "Go."})]
    drawn = engine.generate(prompts, 32, replace(LONG, stop=stop), 3)
    rows = [ids[mask].tolist() for ids, mask in zip(drawn.ids, drawn.mask, strict=True)]
    decode = tiny_policy.codec.decode
    ended = [row for row in rows if stop in decode(row)]
    assert len(ended) > 3
    assert not any(stop in decode(row[:-1]) for row in ended)


def test_a_query_that_ends_at_a_stop_text_is_valid(player, free):
    _, stop = free
    drawn = Challenger(sampling=replace(LONG, stop=stop)).draw(player, 16, 0, 0)
    rollouts = drawn.written.rollouts
    rows = zip(rollouts.spoken, rollouts.truncated.tolist(), strict=True)
    assert drawn.written.valid_C.tolist() == [is_valid_query(*row) for row in rows]
    assert not any(stop in text for text in drawn.texts)


class Says:
    """An engine whose completions all have one text and end by themselves."""

    def __init__(self, policy, text: str) -> None:
        self._ids = [*policy.codec.encode_plain(text), policy.codec.stop_ids[0]]

    def generate(self, prompts, draws, sampling, seed, finished=None):
        ids = torch.tensor(self._ids).repeat(len(prompts) * draws, 1)
        rows = torch.zeros(len(ids), dtype=torch.bool)
        return Completions(ids, ids >= 0, torch.zeros(ids.shape), rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("One.\n\nTwo.", "One."),
        ("\n\nOne.\n\nTwo.", "One."),  # nothing is said before the first
        ("<think>so\n\nso</think>\n\nOne.\n\nTwo.", "One."),
        ("<think>so\n\nso", ""),  # it never says anything
    ],
)
def test_a_stop_text_counts_where_something_has_been_said(player, tiny_policy, text, said):
    stopping = replace(player, engine=Says(tiny_policy, text))
    prompts = [player.codec.encode("{q}", {"q": "Go."})]
    rollouts = stopping.respond(prompts, 2, replace(LONG, stop="\n\n"), 3)
    assert [spoken.strip() for spoken in rollouts.spoken] == [said] * 2


def test_a_stop_text_with_a_backslash_is_warned_of():
    with pytest.warns(SelfPlayWarning, match=r"^data\.queries\.init_args\.sampling\.stop is \\n"):
        Challenger(sampling=Sampling(stop=r"\n\n"))


@pytest.mark.filterwarnings("error")
def test_a_line_break_or_a_backslash_alone_is_not_warned_of():
    for text in ("\n\n", "\\"):
        Challenger(sampling=Sampling(stop=text))


@pytest.mark.parametrize("opening", ["", "  \n"])
def test_a_blank_opening_is_refused(opening):
    line = r"^data\.queries\.init_args\.opening: is blank; set a text, or null for none$"
    with pytest.raises(ConfigError, match=line):
        Challenger(opening=opening)


def test_an_empty_stop_text_is_refused():
    line = r"^data\.queries\.init_args\.sampling\.stop: is empty; set a text, or null for none$"
    with pytest.raises(ConfigError, match=line):
        Challenger(sampling=Sampling(stop=""))
