"""A reward for the Challenger alone: kinds of queries that were rare lately."""

from dataclasses import replace
from math import log

import pytest
from handmade import playout, scored_round

from lsp_lightning import ConfigError, InstructionVerifier, RarityReward, Verifier
from lsp_lightning.rewards import RewardError
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier


class Kinds(Verifier):
    """The kinds of a query are its words; a query of digits is malformed."""

    def check(self, query, answers, solution):
        return [0.0] * len(answers)

    def describe(self, query):
        if query.isdigit():
            return None
        if query == "fails":
            raise ValueError("no")
        return {"words": tuple(query.split()), "length": len(query)}


def asked(*queries):
    return playout(queries, [["a"]] * len(queries))


def after(*rounds, **settings) -> RarityReward:
    """The reward after rounds of these queries."""
    reward = RarityReward(**{"verifier": Kinds(), **settings})
    for queries in rounds:
        reward.observe(replace(scored_round([[1.0]] * len(queries)), playout=asked(*queries)))
    return reward


def rarity(reward, *queries) -> list[float]:
    return reward.score(asked(*queries)).scores.tolist()


def test_before_the_first_round_every_kind_is_new():
    assert rarity(after(), "a", "b", "a") == [1, 1, 1]


def test_the_more_often_a_kind_was_asked_for_the_less_it_pays():
    # a 3 times and b once, of 4
    reward = after(["a", "a"], ["a", "b"])
    assert rarity(reward, "a", "b", "c") == pytest.approx(
        [1 - log(4) / log(6), 1 - log(2) / log(6), 1]
    )


def test_a_query_of_several_kinds_scores_their_mean():
    reward = after(["a b", "a c"])
    a, b = 1 - log(3) / log(6), 1 - log(2) / log(6)
    assert rarity(reward, "a b", "a d", "a a") == pytest.approx([(a + b) / 2, (a + 1) / 2, a])


def test_a_malformed_query_scores_0_and_is_not_counted():
    reward = after(["a", "17", "18"])
    assert rarity(reward, "17", "a") == pytest.approx([0, 1 - log(2) / log(3)])


def test_the_only_kind_of_a_long_memory_pays_almost_nothing():
    assert 0 < rarity(after(["a"] * 64), "a")[0] < 0.01


def test_the_newest_queries_are_remembered():
    reward = after(["a"] * 64, ["b"] * 62)
    assert rarity(reward, "a", "b") == pytest.approx([1 - log(3) / log(66), 1 - log(63) / log(66)])


def test_numbers_are_no_kinds():
    assert rarity(after(["a", "a"]), "b") == [1]  # of the same length


def test_the_effective_number_of_kinds_is_logged():
    def kinds(reward):
        return reward.score(asked("a")).metrics.get("kinds")

    assert kinds(after()) is None
    assert float(kinds(after(["a"] * 5))) == pytest.approx(1)
    assert float(kinds(after(["a", "b", "c"]))) == pytest.approx(3)
    # entropy of (3/4, 1/4), by hand
    assert float(kinds(after(["a", "a", "a", "b"]))) == pytest.approx(4 / 27**0.25)


def test_a_query_that_cannot_be_described_costs_only_its_own_score():
    reward = after(["a", "fails"])
    with pytest.warns(UserWarning, match="could not judge 1 of 2: ValueError: no, at 'fails'"):
        assert rarity(reward, "fails", "b") == [0, 1]


def test_a_checkpoint_restores_the_memory():
    reward, fresh = after(["a b", "17"], ["c"]), after(["d"])
    fresh.load_state_dict(reward.state_dict())
    queries = ("a", "c", "d e", "1")
    assert rarity(fresh, *queries) == rarity(reward, *queries)


@pytest.mark.parametrize(
    ("verifier", "often", "rare"),
    [
        (TinyWorldVerifier(), "sort 21", "count a in ab"),
        (
            InstructionVerifier(),
            "Write.\nConstraints:\n- no commas",
            "Write.\nConstraints:\n- at least 2 commas",
        ),
    ],
)
def test_our_verifiers_tell_kinds(verifier, often, rare):
    reward = after([often] * 3, verifier=verifier)
    assert rarity(reward, often, rare) == pytest.approx([1 - log(4) / log(5), 1])


def test_all_constraints_of_an_instruction_are_kinds():
    query = "Write.\nConstraints:\n- no commas\n- at least 20 words\n- all lower case"
    kinds = InstructionVerifier().describe(query)["constraint"]
    assert len(kinds) == 3
    assert kinds[:2] == ("limit on commas", "words")


def test_mistakes_are_told_in_one_line():
    with pytest.raises(
        RewardError, match=r"^Kinds\.describe names no kind; return a text, [^\n]+$"
    ):
        rarity(after(), " ")

    class Silent(Verifier):
        def check(self, query, answers, solution):
            return [0.0] * len(answers)

    with pytest.raises(ConfigError, match=r"^model\.rewards\.RarityReward\.verifier: Silent does "):
        after(verifier=Silent()).setup(None, None, "fit")
