"""How the queries of a round are drawn through the gate and with those of the pool."""

from dataclasses import fields, replace

import pytest
import torch
from handmade import rollouts
from scripted import NOBODY, Does, NotBad, Scripted, batch, written

from lsp_lightning import (
    Challenger,
    ConfigError,
    Gate,
    Player,
    Pool,
    QueryBatch,
    QuerySource,
    Sampling,
    SelfPlayDataModule,
)
from lsp_lightning.game.drawing import draw_queries
from lsp_lightning.game.pool import PooledQuery
from lsp_lightning.text.marks import THINK
from lsp_lightning.text.thinking import Reading
from lsp_lightning.types import Refused, Rollouts


def drawn(source, n, gate=None, pool=None, index=0, seed=0, player=NOBODY):
    return draw_queries(player, source, n, index, seed, gate, pool)


def pool_of(*texts, share=0.25, **kwargs):
    pool = Pool(share=share, **{"rest": 0, **kwargs})
    pool.load_state_dict({"queries": [{"text": text} for text in texts]})
    return pool


# -- redraws ---------------------------------------------------------------------------------------


def test_refused_queries_are_drawn_again_in_their_places_and_every_row_is_kept():
    source = Scripted(
        batch(["bad a", "g1", "bad b", "g3", "bad c"]),
        batch(["bad d", "g2", "bad e"]),  # for places 0, 2 and 4
        batch(["g0", "bad f"]),  # for places 0 and 4
        batch(["bad g"]),  # for place 4
    )
    found = drawn(source, 5, Gate([NotBad()], redraws=3))
    assert source.asked == [5, (1, [0, 2, 4], 5), (2, [0, 4], 5), (3, [4], 5)]
    assert found.texts == ("g0", "g1", "g2", "g3")
    rows = found.written
    assert rows.rollouts.texts == (
        *("bad a", "g1", "bad b", "g3", "bad c"),
        *("bad d", "g2", "bad e", "g0", "bad f", "bad g"),
    )
    assert rows.answered_C.tolist() == [-1, 1, -1, 3, -1, -1, 2, -1, 0, -1, -1]
    assert rows.valid_C.tolist() == [True] * 11
    refused = {0: "a", 2: "b", 4: "c", 5: "d", 7: "e", 9: "f", 10: "g"}
    assert rows.refused == {row: Refused(f"bad {c}", "bad") for row, c in refused.items()}


def test_a_check_sees_what_the_round_already_has():
    check = NotBad()
    source = Scripted(batch(["bad", "g1", "g2", "bad"]), batch(["g0", "bad"]), batch(["g3"]))
    drawn(source, 5, Gate([check]), pool_of("old", share=0.2))
    assert check.taken == [["old"], ["old", "g1", "g2"], ["old", "g1", "g2", "g0"]]


@pytest.mark.parametrize("redraws", [0, 1, 2])
def test_after_the_last_redraw_the_round_is_smaller(redraws):
    source = Scripted(*(batch(["good", "bad"]), batch(["bad"]), batch(["bad"])))
    found = drawn(source, 2, Gate([NotBad()], redraws=redraws))
    assert len(source.asked) == 1 + redraws
    assert found.texts == ("good",)
    assert not found.all_refused
    assert found.written.answered_C.tolist() == [0] + [-1] * (1 + redraws)


def test_invalid_queries_are_refused_without_any_check():
    first = batch(["a", "b"])
    first.written.valid_C[0] = False
    found = drawn(Scripted(first, batch(["c"])), 2, Gate())
    assert found.texts == ("c", "b")
    assert found.written.refused == {0: Refused("a", "invalid")}
    assert found.written.valid_C.tolist() == [False, True, True]


def test_if_all_are_refused_one_of_the_last_is_played():
    source = Scripted(batch(["bad a", "bad b"]), batch(["bad c", "bad d"]))
    found = drawn(source, 2, Gate([NotBad()], redraws=1))
    assert found.texts == ("bad c",)
    assert found.all_refused
    assert found.written.answered_C.tolist() == [-1, -1, 0, -1]
    assert len(found.written.refused) == 4


def test_a_gate_that_accepts_all_changes_no_bit():
    for extra in ({}, {"solutions": ("1", "2")}, {"passages": ("p", None)}):
        expected = batch(["x", "y"], lengths=[1, 3], **extra)
        found = drawn(Scripted(expected), 2, Gate([NotBad()]))
        assert (found.texts, found.solutions, found.passages) == (
            expected.texts,
            expected.solutions,
            expected.passages,
        )
        assert found.written.rollouts is expected.written.rollouts
        for name in ("valid_C", "answered_C", "baseline_C"):
            assert torch.equal(getattr(found.written, name), getattr(expected.written, name))
        assert found.written.refused == {}


def test_without_a_gate_and_a_pool_the_batch_is_the_sources():
    expected = batch(["bad", "y"])
    assert drawn(Scripted(expected), 2) is expected


# -- the real Challenger ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def player(tiny_policy):
    return Player.local(tiny_policy)


def all_refused(player, index=0, seed=0, **kwargs):
    source = Challenger(sampling=Sampling(max_new_tokens=6), **kwargs)
    gate = Gate([Does(lambda queries: [False] * len(queries))], redraws=2)
    return drawn(source, 3, gate, index=index, seed=seed, player=player).written.rollouts.texts


def test_every_attempt_draws_other_queries_and_the_same_ones_for_one_seed_and_round(player):
    texts = all_refused(player)
    assert len(texts) == 3 * (1 + 2)
    assert len({texts[:3], texts[3:6], texts[6:]}) == 3
    assert all_refused(player) == texts
    assert not {*all_refused(player, seed=1)} & {*texts}
    assert not {*all_refused(player, index=1)} & {*texts}


def test_a_query_is_drawn_again_from_the_prompt_of_its_place(player, tmp_path):
    path = tmp_path / "examples.txt"
    path.write_text("one\ntwo\nthree\nfour\n")
    source = Challenger(examples=str(path), num_examples=1, sampling=Sampling(max_new_tokens=4))
    gate = Gate([Does(lambda queries: [False] * len(queries))], redraws=1)
    rows = drawn(source, 3, gate, player=player).written.rollouts
    pairs = zip(rows.prompt_ids, rows.prompt_mask, strict=True)
    prompts = [tuple(ids[mask].tolist()) for ids, mask in pairs]
    assert len(set(prompts[:3])) == 3
    assert prompts[3:] == prompts[:3]


def test_an_accepted_querys_prompt_is_not_used_again(player, tmp_path):
    path = tmp_path / "examples.txt"
    path.write_text("one\ntwo\nthree\nfour\n")
    source = Challenger(examples=str(path), num_examples=1, sampling=Sampling(max_new_tokens=4))
    first = source.draw(player, 3, 0, 0).written.rollouts
    again = source.redraw(player, [2, 0], 3, 0, 0, 1).written.rollouts
    assert torch.equal(again.prompt_ids, first.prompt_ids[[2, 0]])


# -- sources of one's own --------------------------------------------------------------------------


def test_the_gate_is_for_written_queries_alone():
    given = QueryBatch(
        ("bad but given", "bad", "good"),
        written(["bad", "good", "unanswered"], [1, 2, -1], [5, 6, 7]),
    )
    check = NotBad()
    source = Scripted(given, batch(["better"]))
    found = drawn(source, 3, Gate([check]))
    assert source.asked == [3, (1, [1], 3)]
    assert found.texts == ("bad but given", "better", "good")
    assert check.taken == [["bad but given"], ["bad but given", "good"]]
    assert found.written.answered_C.tolist() == [-1, 2, -1, 1]
    assert found.written.baseline_C.tolist() == [5, 6, 7, 0]
    assert found.written.refused == {0: Refused("bad", "bad")}


def test_given_queries_may_stand_in_for_refused_ones():
    source = Scripted(batch(["bad", "good"]), QueryBatch(("from a file",), solutions=("7",)))
    found = drawn(source, 2, Gate([NotBad()]))
    assert found.texts == ("from a file", "good")
    assert found.solutions == ("7", None)
    assert found.written.answered_C.tolist() == [-1, 1]


def test_a_round_without_any_written_query_passes():
    given = QueryBatch(("bad", "bad"))
    assert drawn(Scripted(given), 2, Gate([NotBad()])) is given


def test_solutions_and_passages_go_with_their_queries():
    source = Scripted(
        batch(["bad", "g1", "bad"], solutions=(1, 2, 3), passages=("p", None, "r")),
        batch(["g0", "g2"], solutions=(4, 5)),
    )
    found = drawn(source, 3, Gate([NotBad()]))
    assert found.texts == ("g0", "g1", "g2")
    assert found.solutions == (4, 2, 5)
    assert found.passages is None  # of those that were accepted none has one


def test_the_default_redraw_is_another_draw_with_another_seed():
    seeds = []

    class Own(QuerySource):
        selfplay = True

        def draw(self, player, num_queries, index, seed):
            seeds.append(seed)
            return batch(["bad"] * num_queries)

    drawn(Own(), 2, Gate([NotBad()], redraws=3), seed=9)
    assert seeds[0] == 9
    assert len(set(seeds)) == 4


def test_what_redraw_returns_is_checked():
    with pytest.raises(ConfigError, match=r"^data\.queries: redraw of Scripted returned 2 texts; "):
        drawn(Scripted(batch(["bad", "g"]), batch(["x", "y"])), 2, Gate([NotBad()]))


def test_another_temperature_in_redraw_is_one_line():
    # all rows of a role are trained at one temperature
    hot = batch(["g"])
    hot = replace(
        hot, written=replace(hot.written, rollouts=replace(rollouts(["g"]), temperature=2))
    )
    with pytest.raises(ConfigError, match=r"redraw of Scripted samples at another temperature"):
        drawn(Scripted(batch(["bad", "g"]), hot), 2, Gate([NotBad()]))


# -- rollouts of several draws ---------------------------------------------------------------------


def of_widths(texts, prompt, lengths):
    """Rows with distinct tokens, prompts of ``prompt`` tokens, one of them padding."""
    rows = rollouts(texts, lengths)
    n, start = len(texts), 10 * prompt
    ids = torch.arange(start, start + n * prompt).view(n, prompt)
    mask = torch.ones(n, prompt, dtype=torch.bool)
    mask[0, 0] = False
    return replace(
        rows,
        prompt_ids=ids,
        prompt_mask=mask,
        completion_ids=rows.completion_ids * ids[:, :1],
        logprobs=rows.logprobs * prompt,
        truncated=torch.tensor([prompt % 2 == 0] * n),
    )


def test_joined_rollouts_hold_the_rows_of_each_part_whatever_their_widths():
    parts = [of_widths(["a", "b"], 3, [2, 4]), of_widths(["c"], 6, [1]), of_widths(["d"], 2, [7])]
    joined = Rollouts.joined(parts, pad_id=99)
    assert joined.prompt_ids.shape == (4, 6)
    assert joined.completion_ids.shape == (4, 7)
    assert joined.texts == ("a", "b", "c", "d")
    rows = [(part, i) for part in parts for i in range(len(part))]
    for k, (part, i) in enumerate(rows):
        for ids, mask in (("prompt_ids", "prompt_mask"), ("completion_ids", "completion_mask")):
            real, now = getattr(part, mask)[i], getattr(joined, mask)[k]
            assert torch.equal(getattr(joined, ids)[k][now], getattr(part, ids)[i][real])
            assert now.sum() == real.sum()
        assert joined.prompt_mask[k, -1]  # prompts end on the right, completions begin on the left
        assert joined.completion_mask[k, 0]
        real = part.completion_mask[i]
        assert torch.equal(joined.logprobs[k][joined.completion_mask[k]], part.logprobs[i][real])
        assert joined.truncated[k] == part.truncated[i]
    assert (joined.completion_ids[2, 1:] == 99).all()
    assert (joined.prompt_ids[3, :4] == 99).all()
    assert not joined.logprobs[~joined.completion_mask].any()
    for field in fields(joined):  # as a part on its own has them
        a, b = getattr(joined, field.name), getattr(parts[0], field.name)
        assert not isinstance(a, torch.Tensor) or a.dtype == b.dtype


def test_joined_rollouts_say_what_their_parts_say():
    # one part knows that its thoughts began in the prompt, the other knows nothing
    inside = replace(rollouts(["thought</think>x"]), readings=(Reading(inside=THINK),))
    plain = rollouts(["<think>a</think>y"])
    assert Rollouts.joined([inside, plain], 0).spoken == (*inside.spoken, *plain.spoken)


# -- the pool --------------------------------------------------------------------------------------


def test_a_share_of_the_round_comes_from_the_pool_and_stands_last():
    source = Scripted(batch(["a", "b", "c"]))
    pool = pool_of("p", "q", share=0.25)
    found = drawn(source, 4, pool=pool)
    assert source.asked == [3]
    assert found.texts[:3] == ("a", "b", "c")
    assert found.texts[3] in ("p", "q")
    assert found.written.answered_C.tolist() == [0, 1, 2]  # the replay is no row of the Challenger
    assert source.pool is pool


def test_a_pool_that_is_smaller_than_its_share_is_filled_up_with_new_queries():
    source = Scripted(batch(["a", "b", "c"]))
    found = drawn(source, 4, pool=pool_of("p", share=0.5))
    assert found.texts == ("a", "b", "c", "p")
    source = Scripted(batch(["a", "b"]))
    assert drawn(source, 2, pool=pool_of(share=0.5)).texts == ("a", "b")


@pytest.mark.parametrize(
    ("share", "n", "replays"), [(0.29, 100, 29), (0.58, 50, 29), (0.25, 7, 1), (0.0, 8, 0)]
)
def test_the_share_is_rounded_down_but_not_by_floating_point(share, n, replays):
    assert Pool(share=share).most_replays(n) == replays


def test_queries_of_the_pool_stand_in_for_refused_ones():
    source = Scripted(batch(["bad", "good", "bad"]))
    found = drawn(source, 3, Gate([NotBad()], redraws=0), pool_of("p", "q", "r", share=0))
    assert len(found.texts) == 3
    assert found.texts[0] == "good"
    assert {*found.texts[1:]} < {"p", "q", "r"}
    assert found.written.answered_C.tolist() == [-1, 0, -1]


def test_the_pool_gives_no_query_twice():
    # p was written anew, so that q alone can stand in for two
    source = Scripted(batch(["bad", "p", "bad"]))
    found = drawn(source, 3, Gate([NotBad()], redraws=0), pool_of("p", "q", share=0))
    assert found.texts == ("p", "q")
    # nor one of those that are replayed anyway
    source = Scripted(batch(["bad", "bad"]))
    found = drawn(source, 4, Gate([NotBad()], redraws=0), pool_of("p", "q", "r", share=0.5))
    assert sorted(found.texts) == ["p", "q", "r"]


def test_a_query_that_must_rest_does_not_stand_in():
    # else a pool that is still small would give the same few queries to every round
    gate, pool = Gate([NotBad()], redraws=0), Pool(share=0, rest=2)
    pool.load_state_dict({"queries": [{"text": "tired", "played": 3}, {"text": "p"}]})
    texts = ["bad", "good", "bad"]
    assert drawn(Scripted(batch(texts)), 3, gate, pool, index=5).texts == ("good", "p")
    assert drawn(Scripted(batch(texts)), 3, gate, pool, index=6).texts[0] == "good"
    assert len(drawn(Scripted(batch(texts)), 3, gate, pool, index=6).texts) == 3


def test_if_all_are_refused_the_pool_plays_the_whole_round():
    source = Scripted(batch(["bad", "bad"]))
    pool = pool_of("p", "q", "r", share=0.0)
    found = drawn(source, 2, Gate([NotBad()], redraws=0), pool)
    assert len(found.texts) == 2
    assert {*found.texts} < {"p", "q", "r"}
    assert found.written.answered_C.tolist() == [-1, -1]
    assert not found.all_refused
    assert found.written.refused == {0: Refused("bad", "bad"), 1: Refused("bad", "bad")}


def test_a_refused_copy_of_the_pools_only_query_does_not_keep_it_out():
    source = Scripted(batch(["bad p", "bad p"]))
    found = drawn(source, 2, Gate([NotBad()], redraws=0), pool_of("bad p", share=0.0))
    assert found.texts == ("bad p",)
    assert found.written.answered_C.tolist() == [-1, -1]  # it is the pool's, so it is learned from


def test_an_empty_pool_gives_nothing_when_all_are_refused():
    found = drawn(Scripted(batch(["bad", "bad"])), 2, Gate([NotBad()], redraws=0), pool_of())
    assert found.texts == ("bad",)
    assert found.all_refused


def test_replays_bring_their_solutions_and_passages():
    pool = Pool(share=0.5, rest=0)
    query = PooledQuery("p", solution="7", passage="text")
    pool._queries[query.key] = query
    found = drawn(Scripted(batch(["a"])), 2, pool=pool)
    assert (found.solutions, found.passages) == ((None, "7"), (None, "text"))


@pytest.mark.parametrize(("n", "share"), [(2, 0.5), (4, 0.9)])
def test_a_share_that_leaves_the_challenger_nothing_to_compare_is_refused(n, share):
    with pytest.raises(ConfigError, match=r"^data\.pool\.share: is .* leaves .* fewer than 2 new"):
        SelfPlayDataModule(num_queries=n, pool=Pool(share=share))
    SelfPlayDataModule(num_queries=4, pool=Pool(share=0.5))


def test_two_rounds_with_one_gate_and_pool_are_alike_until_they_observe():
    gate, pool = Gate([NotBad()]), pool_of("p", "q", share=0.5)
    texts = [
        drawn(Scripted(batch(["bad", "x"]), batch(["y"])), 4, gate, pool).texts for _ in range(2)
    ]
    assert texts[0] == texts[1]
