"""Where queries come from: every line of a file once a pass, or the Challenger's own words."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from lightning.pytorch import Trainer

from lsp_lightning import Challenger, ConfigError, Player, PromptFile, Sampling, SelfPlayDataModule
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.game.queries import check_sampling
from lsp_lightning.text.prompts import is_valid_query

SIZE = 7


def write_lines(path, lines) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def prompt_file(tmp_path) -> PromptFile:
    entries = [{"query": f"q{i}", "reference": f"r{i}"} for i in range(SIZE)]
    return PromptFile(write_lines(tmp_path / "queries.jsonl", map(json.dumps, entries)))


def stream(source: PromptFile, num_queries: int, rounds: int, seed: int = 0) -> list[str]:
    """The texts of the first rounds. A file needs no player."""
    return [text for t in range(rounds) for text in source.draw(None, num_queries, t, seed).texts]


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_queries", [1, 3, 7, 10])
def test_every_pass_over_the_file_brings_each_query_once_in_a_new_order(prompt_file, num_queries):
    passes = 3
    drawn = stream(prompt_file, num_queries, rounds=-(-passes * SIZE // num_queries))
    orders = [drawn[k * SIZE : (k + 1) * SIZE] for k in range(passes)]
    for order in orders:
        assert sorted(order) == [f"q{i}" for i in range(SIZE)]
    assert len(set(map(tuple, orders))) == passes


def test_the_stream_does_not_depend_on_how_it_is_cut_into_rounds(prompt_file):
    assert stream(prompt_file, 2, 15) == stream(prompt_file, 3, 10) == stream(prompt_file, 30, 1)


def test_same_seed_and_round_give_the_same_queries_whatever_was_drawn_before(prompt_file):
    later = prompt_file.draw(None, 3, 5, seed=1).texts
    stream(prompt_file, 4, 6, seed=2)
    assert prompt_file.draw(None, 3, 5, seed=1).texts == later


def test_another_seed_gives_another_order(prompt_file):
    assert stream(prompt_file, SIZE, 1, seed=0) != stream(prompt_file, SIZE, 1, seed=1)


def test_a_round_from_a_file_carries_references_and_no_rollouts(prompt_file):
    drawn = prompt_file.draw(None, 4, 0, seed=0)
    assert drawn.solutions == tuple(text.replace("q", "r") for text in drawn.texts)
    assert drawn.written is None
    assert not prompt_file.selfplay


def test_a_query_without_a_reference_is_a_query(tmp_path):
    path = write_lines(
        tmp_path / "q.jsonl", ['{"query": " hi "}', '{"query": "x", "reference": 3}']
    )
    queries = read_queries(path, "key")
    assert [(q.text, q.solution) for q in queries] == [("hi", None), ("x", 3)]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_at_a_line_feed_only(tmp_path, separator):
    # JSON allows these separators inside a text as they are; web text has them
    text = f"one{separator}two"
    line = json.dumps({"query": text}, ensure_ascii=False)
    queries = read_queries(write_lines(tmp_path / "q.jsonl", [line]), "key")
    assert [q.text for q in queries] == [text]


def test_windows_line_ends_are_line_ends(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'{"query": "a"}\r\n{"query": "b"}\r\n')
    assert [q.text for q in read_queries(str(file), "key")] == ["a", "b"]


GOOD = '{"query": "a"}'


@pytest.mark.parametrize(
    ("lines", "number", "problem"),
    [
        ([GOOD, '{"query": "a"'], 2, "is not JSON"),
        ([GOOD, "", '{"query": "a"'], 3, "is not JSON"),
        (["plain text"], 1, "is not JSON"),
        ([GOOD, '{"text": "a"}'], 2, "has no 'query' text"),
        ([GOOD, '{"query": ""}'], 2, "has no 'query' text"),
        ([GOOD, '{"query": 7}'], 2, "has no 'query' text"),
        (['"a"'], 1, "is not an object"),
        (["null"], 1, "is not an object"),
    ],
)
def test_a_bad_line_is_refused_with_file_number_and_reason(tmp_path, lines, number, problem):
    path = write_lines(tmp_path / "q.jsonl", lines)
    with pytest.raises(ConfigError) as error:
        PromptFile(path)
    message = str(error.value)
    assert message.startswith("data.queries.init_args.path: ")
    assert f"line {number} of {path!r} {problem}" in message
    assert "\n" not in message


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="contains no queries"):
        PromptFile(write_lines(tmp_path / "q.jsonl", []))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.queries\.init_args\.path: no file "):
        PromptFile(str(tmp_path / "missing.jsonl"))


def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'{"query": "\xff\xfe"}\n')
    with pytest.raises(ConfigError, match=r"UTF-8"):
        PromptFile(str(file))


# -- sampling settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("max_new_tokens", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("top_k", -1),
    ],
)
def test_a_sampling_setting_out_of_range_is_refused_by_its_own_key(setting, value):
    with pytest.raises(ConfigError, match=rf"^data\.solver\.{setting}: "):
        check_sampling(replace(Sampling(), **{setting: value}), "data.solver", for_training=True)


def test_greedy_sampling_is_for_evaluation_only():
    check_sampling(Sampling(temperature=0.0), "key", for_training=False)
    with pytest.raises(ConfigError, match="set a finite number above 0"):
        check_sampling(Sampling(temperature=0.0), "key", for_training=True)


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_p=1e-6), Sampling(top_k=1), Sampling(0.01, 1)]
)
def test_sampling_settings_at_the_edge_of_their_range_are_taken(sampling):
    check_sampling(sampling, "key", for_training=True)


def test_a_challenger_is_refused_with_bad_sampling_before_any_model_is_there():
    with pytest.raises(ConfigError, match=r"^data\.queries\.init_args\.sampling\.max_new_tokens: "):
        Challenger(sampling=Sampling(max_new_tokens=0))


def test_what_truncates_is_told_apart():
    assert not Sampling().truncates
    assert Sampling(top_p=0.9).truncates
    assert Sampling(top_k=5).truncates


# -- the Challenger -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def player(tiny_policy) -> Player:
    return Player.local(tiny_policy)


def draw(player, index=0, seed=0, **kwargs):
    challenger = Challenger(sampling=Sampling(max_new_tokens=24), **kwargs)
    return challenger.draw(player, 16, index, seed)


def test_the_challenger_writes_n_queries_that_all_continue_its_one_prompt(player):
    drawn = draw(player, task="sums")
    (prompt,) = {tuple(row.tolist()) for row in drawn.written.rollouts.prompt_ids}
    text = player.codec.tokenizer.decode(prompt)
    assert "Task: sums\n" in text
    assert len(drawn.texts) == len(drawn.written.rollouts) == 16
    assert len(set(drawn.texts)) > 1


def test_the_whole_reply_is_the_query_but_for_white_space_at_its_ends(player):
    drawn = draw(player)
    assert drawn.texts == tuple(text.strip() for text in drawn.written.rollouts.texts)
    assert drawn.solutions is None


def test_a_query_that_was_cut_off_is_invalid_and_still_there(player):
    drawn = draw(player)
    truncated = drawn.written.rollouts.truncated.tolist()
    assert Counter(truncated).keys() == {True, False}  # this model gives both
    for text, cut, valid in zip(
        drawn.texts, truncated, drawn.written.valid_C.tolist(), strict=True
    ):
        assert valid == is_valid_query(text, cut)
        if cut:
            assert not valid


def test_seed_and_round_decide_what_the_challenger_writes(player):
    assert draw(player, index=3, seed=1).texts == draw(player, index=3, seed=1).texts
    assert draw(player, index=3, seed=1).texts != draw(player, index=4, seed=1).texts
    assert draw(player, index=3, seed=1).texts != draw(player, index=3, seed=2).texts


def test_the_challengers_prompt_can_come_from_a_file(player, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Ask about {task}")
    drawn = draw(player, task="the sea", prompt=str(file))
    prompt = player.codec.tokenizer.decode(drawn.written.rollouts.prompt_ids[0])
    assert "<|user|>Ask about Task: the sea" in prompt


def test_a_trainer_without_batches_is_refused_with_its_key():
    trainer = Trainer(max_steps=3, limit_train_batches=0, logger=False, accelerator="cpu")
    with pytest.raises(ConfigError, match=r"^trainer.limit_train_batches: is 0: no round; leave"):
        SelfPlayDataModule().check_rounds(trainer)
