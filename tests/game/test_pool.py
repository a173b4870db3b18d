"""The pool: which queries enter, stay and leave, and what it gives back."""

import io
from dataclasses import replace

import pytest
import torch
from handmade import scored_round

from lsp_lightning import ConfigError, Pool
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.game.pool import PooledQuery

#: Solve rates 1/4, 1/2, 3/4, 0 and 1 of four answers.
QUARTER, HALF, MOST, NONE, ALL = (
    [1.0, 0.0, 0.0, 0.0],
    [1.0, 1.0, 0.0, 0.0],
    [1.0, 1.0, 1.0, 0.0],
    [0.0] * 4,
    [1.0] * 4,
)


def played(rewards, texts=None, *, rates=None, judged=None, valid=None, **changes):
    """A round with these rewards, in {0, 1}, of queries with these texts."""
    found = scored_round(rewards, judged=judged, valid=valid)
    of_playout = {k: changes.pop(k) for k in ("solutions", "passages", "written") if k in changes}
    texts = tuple(texts or "abcdefgh"[: len(rewards)])
    rates_N = torch.tensor(rates) if rates else found.rewards_NG.mean(1)
    return replace(
        found,
        playout=replace(found.playout, query_texts=texts, **of_playout),
        **{"solve_rates_N": rates_N, **changes},
    )


def observed(*rounds, **settings) -> Pool:
    pool = Pool(**settings)
    for round_ in rounds:
        pool.observe(round_)
    return pool


# -- who enters ------------------------------------------------------------------------------------


def test_queries_that_are_solved_sometimes_enter():
    # 1/4 and 3/4 are the ends of the default range, and belong to it
    pool = observed(played([QUARTER, HALF, MOST, NONE, ALL]))
    assert pool.texts == ("a", "b", "c")


def test_the_range_is_of_the_rate_not_of_R():
    # R in [-1, 3]: a mean of 0 is 1/4, a mean of 1/2 is 3/8
    pool = observed(played([QUARTER, HALF], rates=[0.3125, 0.375]), solve_rate=(0.37, 0.38))
    assert pool.texts == ("b",)


def test_groups_without_a_spread_do_not_enter_whatever_their_rate():
    # scores between 0 and 1: all answers are half right, and nothing can be learned from them
    pool = observed(played([[0.5] * 4, [0.4, 0.6, 0.4, 0.6]]))
    assert pool.texts == ("b",)
    assert observed(played([NONE, ALL]), solve_rate=(0, 1)).texts == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"valid": [True, False]},
        {"malformed_N": torch.tensor([False, True])},
        {"admitted_N": torch.tensor([True, False])},
        {"judged": [True, False]},
    ],
)
def test_other_queries_do_not_enter(changes):
    assert observed(played([HALF, HALF], **changes)).texts == ("a",)


def test_a_group_that_was_judged_in_part_enters_by_what_is_known():
    judged = [[True, True, True, False]]
    assert observed(played([[1.0, 0.0, 0.5, 0.5]], judged=judged)).texts == ("a",)


def test_without_a_known_range_of_R_nothing_enters():
    assert observed(played([HALF], solve_rates_N=None)).texts == ()


# -- who leaves ------------------------------------------------------------------------------------


def test_a_replayed_query_leaves_when_it_is_no_longer_in_the_range():
    pool = observed(played([HALF, HALF]), played([ALL, HALF], written=None))
    assert pool.texts == ("b",)


def test_a_replayed_query_that_nobody_could_judge_stays_in_its_place():
    pool = observed(played([HALF, HALF]), played([NONE, HALF], judged=[False, True]))
    assert pool.texts == ("a", "b")


def test_a_replayed_query_that_the_gate_left_out_leaves():
    pool = observed(played([HALF, HALF]), played([HALF], admitted_N=torch.tensor([False])))
    assert pool.texts == ("b",)


def test_of_two_queries_that_are_alike_the_older_one_makes_room():
    kinds = ["reverse abcd", "sort 4213", "7+5=?"]
    pool = observed(played([HALF] * 3, kinds), size=3)
    for i in range(20):  # a Challenger that narrows
        pool.observe(played([HALF] * 2, [f"12-{i}=?", f"13-{i}=?"]))
    # the last subtraction is kept, and of the two that are most alike, one: the others stay
    assert set(pool.texts) >= {"reverse abcd", "sort 4213"}
    assert len(pool) == 3


def test_without_likeness_the_query_that_was_played_longest_ago_makes_room():
    pool = observed(played([HALF] * 3), size=3)
    pool.observe(played([HALF], ["a"]))  # now b is the oldest
    assert pool.texts == ("b", "c", "a")
    pool.observe(played([HALF, HALF], ["x", "y"]))
    assert pool.texts == ("a", "x", "y")


def test_a_round_larger_than_the_pool_leaves_its_last_queries():
    assert observed(played([HALF] * 5), size=2).texts == ("d", "e")


def test_the_pool_never_grows_beyond_its_size():
    pool = Pool(size=5)
    for index in range(40):
        pool.observe(played([HALF] * 3, [f"{index} {i}" for i in range(3)]))
        assert len(pool) == min(5, 3 * (index + 1))
    pool.observe(played([HALF] * 2, ["39 2", "39 2"]))
    assert len(pool) == 5  # each text is there once


# -- what it gives ---------------------------------------------------------------------------------


def test_queries_come_back_with_their_solution_and_passage():
    pool = observed(played([HALF, HALF], solutions=(["t1", {"k": 1}], None), passages=("p", None)))
    found = {query.text: query for query in pool.drawn(9, 0, 0)}
    first, second = PooledQuery("a", ["t1", {"k": 1}], "p", 0), PooledQuery("b", played=0)
    assert found == {"a": first, "b": second}


def test_draws_are_fixed_by_seed_round_and_content():
    pool = observed(played([HALF] * 8))
    first = pool.drawn(4, index=3, seed=5)
    assert len({query.text for query in first}) == 4
    assert pool.drawn(4, index=3, seed=5) == first
    other = [pool.drawn(4, index=i, seed=s) for i, s in ((4, 5), (3, 6))]
    assert all(draw != first for draw in other)
    assert pool.texts == tuple("abcdefgh")  # to draw is not to play


def test_a_query_rests_before_it_is_played_again():
    pool = observed(played([HALF] * 3, index=4), share=0.5, rest=2)

    def replayed(index):
        return sorted(query.text for query in pool.replays(6, index, 0))

    assert replayed(6) == []
    assert replayed(7) == ["a", "b", "c"]
    pool.observe(played([HALF], ["b"], index=7))
    assert replayed(8) == ["a", "c"]
    assert replayed(10) == ["a", "b", "c"]
    assert len(pool.drawn(3, 8, 0)) == 3  # an example in the prompt need not rest
    restored = Pool(share=0.5, rest=2)
    restored.load_state_dict(saved(pool))
    assert restored.replays(6, 8, 0) == pool.replays(6, 8, 0)


def test_the_same_words_about_another_passage_are_another_query():
    texts, passages = ["What is it?"] * 2, ("of trees", "of stones")
    pool = observed(played([HALF, HALF], texts, passages=passages))
    assert len(pool) == 2
    pool.observe(played([ALL], texts[:1], passages=passages[:1]))  # this one is too easy now
    [left] = pool.drawn(2, 0, 0)
    assert (left.text, left.passage) == ("What is it?", "of stones")
    assert pool.drawn(2, 0, 0, without={left.key}) == []
    restored = Pool()
    restored.load_state_dict(observed(played([HALF, HALF], texts, passages=passages)).state_dict())
    assert len(restored) == 2


def test_every_query_is_drawn_sometimes():
    pool = observed(played([HALF] * 8))
    seen = {query.text for index in range(60) for query in pool.drawn(1, index, 0)}
    assert seen == {*"abcdefgh"}


def test_left_out_queries_are_not_drawn():
    pool = observed(played([HALF] * 3))
    assert {query.text for query in pool.drawn(9, 0, 0, without={("b", None)})} == {"a", "c"}
    assert pool.drawn(9, 0, 0, without={(text, None) for text in "abc"}) == []
    assert pool.drawn(0, 0, 0) == []


# -- its state -------------------------------------------------------------------------------------


def saved(pool: Pool) -> dict:
    """The state after a checkpoint, which is loaded as plain values."""
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_restored_pool_goes_on_like_the_first():
    texts = ["a", "", " \n", "<|user|></s>", "a\x00b", "\u202ex", "\ud83d", "w" * 100_000]
    solutions = ("7", None, [1, 2.5, True], {"a": ["b"]}, 3, "\x00", "\ud83d", ("x",))
    first = observed(played([HALF] * 8, texts, solutions=solutions))
    assert len(first) == 8
    second = Pool()
    second.load_state_dict(saved(first))
    assert second.texts == first.texts
    assert second.drawn(8, 2, 1) == first.drawn(8, 2, 1)
    for pool in (first, second):
        pool.observe(played([HALF, ALL], ["a", " \n"]))
    assert second.state_dict() == first.state_dict()


def test_a_solution_that_no_checkpoint_could_hold_stays_out():
    class Tests:
        pass

    round_ = played([HALF] * 3, solutions=(Tests(), ["x", Tests()], "7"))
    with pytest.warns(SelfPlayWarning, match=r"^data\.pool: solutions of type Tests cannot be sav"):
        pool = observed(round_)
    assert pool.texts == ("c",)
    saved(pool)


def test_a_smaller_pool_takes_the_newest_of_a_larger_ones_state():
    pool = Pool(size=2)
    pool.load_state_dict(observed(played([HALF] * 5)).state_dict())
    pool.observe(played([HALF], ["z"]))
    assert pool.texts == ("e", "z")


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"share": 1.0}, "share"),
        ({"share": -0.1}, "share"),
        ({"share": float("nan")}, "share"),
        ({"share": None}, "share"),
        ({"size": 0}, "size"),
        ({"size": None}, "size"),
        ({"rest": -1}, "rest"),
        ({"solve_rate": None}, "solve_rate"),
        ({"solve_rate": (0.9, 0.1)}, "solve_rate"),
        ({"solve_rate": (0.5,)}, "solve_rate"),
        ({"solve_rate": 0.5}, "solve_rate"),
        ({"solve_rate": ("a", "b")}, "solve_rate"),
        ({"solve_rate": (0.0, float("nan"))}, "solve_rate"),
        ({"solve_rate": (0.1, 1.5)}, "solve_rate"),
    ],
)
def test_settings_out_of_range_are_one_line(settings, key):
    with pytest.raises(ConfigError, match=rf"^data\.pool\.{key}: is .*; set "):
        Pool(**settings)
