"""Rewards for the Challenger alone: novelty, length and form."""

import random
import time
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, playout, rollouts, scored_round

from lsp_lightning import ConfigError, FormReward, LengthReward, NoveltyReward
from lsp_lightning.rewards import RewardError, query_rewards, score_all
from lsp_lightning.types import Written


def asked(*queries, **kwargs):
    """A playout of these queries."""
    return playout(queries, [["a"]] * len(queries), **kwargs)


def round_of(*queries):
    """A scored round of these queries."""
    return replace(scored_round([[1.0]] * len(queries)), playout=asked(*queries))


def remembering(*rounds, **kwargs) -> NoveltyReward:
    """A novelty reward after rounds of these queries."""
    reward = NoveltyReward(**kwargs)
    for queries in rounds:
        reward.observe(round_of(*queries))
    return reward


def novelty(reward, *queries) -> list[float]:
    return reward.score(asked(*queries)).scores.tolist()


def likeness(one: str, other: str) -> float:
    """2 * longest common subsequence over the lengths of both: the share that is not edited."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            longest = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else longest
    return 2 * table[-1][-1] / (len(one) + len(other)) if one or other else 1.0


# -- novelty ---------------------------------------------------------------------------------------


def test_in_a_round_the_first_of_equal_queries_is_new_and_the_others_are_repetitions():
    reward = NoveltyReward()
    assert novelty(reward, "2+2?", "name a sea", "2+2?", "2+2?") == [1, 1, 0, 0]


def test_a_query_of_a_past_round_is_a_repetition_in_all_later_ones():
    reward = remembering(["2+2?", "x"], ["name a sea", "y"])
    assert novelty(reward, "2+2?", "why?", "name a sea") == [0, 1, 0]


def test_only_observing_is_remembered():
    reward = NoveltyReward()
    for _ in range(2):
        assert novelty(reward, "2+2?", "why?") == [1, 1]
        reward.score(asked("2+2?", "why?"))
        score_all([FixedReward([[0.0]] * 2), reward], asked("2+2?", "why?"))
    reward.observe(round_of("2+2?", "why?"))
    assert novelty(reward, "2+2?", "why?") == [0, 0]


@pytest.mark.parametrize("near", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(
    ("past", "query", "alike"),
    [
        ("abcd", "abcd", 1.0),
        ("abcde", "abcd", 8 / 9),  # one character removed: 4 of 5 and 4 of 4 are kept
        ("abcd", "abce", 6 / 8),  # one replaced: 3 of 4 on both sides
        ("abcdefgh", "abcdefgx", 14 / 16),
        ("abcd", "dcba", 2 / 8),  # one letter keeps its order
        ("abcd", "wxyz", 0.0),
        ("aaaa", "a", 2 / 5),
    ],
)
def test_above_near_the_score_falls_linearly_to_0_for_a_repetition(past, query, alike, near):
    assert likeness(past, query) == pytest.approx(alike)
    expected = 1.0 if alike <= near else (1 - alike) / (1 - near)
    reward = remembering([past], near=near)
    assert novelty(reward, query) == pytest.approx([expected], abs=1e-6)
    # the same within a round
    assert novelty(NoveltyReward(near=near), past, query)[1] == pytest.approx(expected, abs=1e-6)


def test_scores_are_those_of_the_most_alike_query_before():
    rng = random.Random(0)
    texts = ["".join(rng.choices("abc", k=rng.randint(0, 8))) for _ in range(24)]
    past, present = texts[:12], texts[12:]
    near = 0.6
    expected = []
    for i, text in enumerate(present):
        alike = max(likeness(text, other) for other in past + present[:i])
        expected.append(1.0 if alike < near else (1 - alike) / (1 - near))
    assert novelty(remembering(past, near=near), *present) == pytest.approx(expected, abs=1e-6)
    assert sum(0 < score < 1 for score in expected) > 0  # of all kinds


def test_case_and_white_space_do_not_make_a_query_new():
    reward = remembering(["Name a  sea."])
    assert novelty(reward, "name a sea.", "NAME\n\tA SEA.", " Name a sea. ") == [0, 0, 0]
    assert novelty(NoveltyReward(), "Stra\u00dfe", "STRASSE") == [1, 0]


def test_near_duplicates_are_logged():
    # 1 and 8/9 and 14/16 are above 0.8, 6/8 is not
    judged = remembering(["abcd", "stuvwxyz"]).score(asked("abcd", "abcde", "abce", "stuvwxya"))
    assert judged.metrics["near_duplicates"].tolist() == [1, 1, 1, 1]
    judged = remembering(["abcd", "stuvwxyz"]).score(asked("abce", "stuvwxya", "why?"))
    assert judged.metrics["near_duplicates"].tolist() == [0, 1, 0]


def test_exactly_at_near_a_query_is_new():
    judged = remembering(["abcd"], near=0.75).score(asked("abce"))
    assert judged.scores.tolist() == [1]
    assert judged.metrics["near_duplicates"].tolist() == [0]


def test_of_long_queries_the_beginning_is_compared():
    start = "".join(random.Random(0).choices("abcdefgh", k=500))
    assert novelty(NoveltyReward(), f"{start}, the one", f"{start} or the other") == [1, 0]
    remembered = remembering([f"{start} and more"])
    assert remembered.state_dict()["memory"] == [start]


def test_the_memory_keeps_the_newest_queries(monkeypatch):
    monkeypatch.setattr(query_rewards, "_REMEMBERED", 3)
    reward = remembering(["alpha", "bravo"], ["charlie"], ["delta"])
    assert reward.state_dict()["memory"] == ["bravo", "charlie", "delta"]
    assert novelty(reward, "alpha", "bravo", "charlie", "delta") == [1, 0, 0, 0]


def test_a_repeated_query_counts_as_the_newest_in_the_memory(monkeypatch):
    # otherwise the Challenger could soon repeat the query that it repeats all the time
    monkeypatch.setattr(query_rewards, "_REMEMBERED", 2)
    reward = remembering(["alpha", "bravo"], ["alpha", "charlie"])
    assert reward.state_dict()["memory"] == ["alpha", "charlie"]


def test_each_text_is_remembered_once():
    reward = remembering(["alpha", "Alpha", "alpha "], ["alpha"])
    assert reward.state_dict()["memory"] == ["alpha"]


def test_at_near_0_every_similarity_counts():
    assert novelty(remembering(["abcd"], near=0.0), "dxyz") == pytest.approx([1 - 2 / 8])


def test_empty_queries_equal_each_other_and_nothing_else():
    assert novelty(NoveltyReward(), "", "a", "", " \n") == [1, 1, 0, 0]
    assert novelty(remembering([""]), "", "a") == [0, 1]


def test_a_checkpoint_restores_the_memory():
    reward = remembering(["alpha", "bravo"], ["Charlie"])
    state = reward.state_dict()
    assert state == {"memory": ["alpha", "bravo", "charlie"]}
    reward.observe(round_of("delta"))
    assert len(state["memory"]) == 3  # a saved state does not change
    fresh = NoveltyReward()
    fresh.load_state_dict(state)
    assert novelty(fresh, "alpha", "charlie", "delta") == [0, 0, 1]
    fresh.observe(round_of("delta"))
    assert fresh.state_dict() == reward.state_dict()
    assert len(state["memory"]) == 3


def test_a_long_memory_is_searched_quickly():
    rng = random.Random(0)

    def text():
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=200))

    reward = NoveltyReward()
    reward.load_state_dict({"memory": [text() for _ in range(10_000)]})
    queries = [text() for _ in range(16)]
    start = time.process_time()
    scores = novelty(reward, *queries)
    assert time.process_time() - start < 2
    assert scores == [1] * 16


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("near", 1.0),
        ("near", -0.1),
        ("near", float("nan")),
    ],
)
def test_settings_of_novelty_are_checked(setting, value):
    with pytest.raises(ConfigError, match=rf"^model\.rewards\.NoveltyReward\.{setting}: [^\n]+$"):
        NoveltyReward(**{setting: value})


# -- length ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "score"),
    # 1 from 10 to 20; below that n / 10, above it 2 - n / 20
    [
        (0, 0),
        (5, 0.5),
        (9, 0.9),
        (10, 1),
        (15, 1),
        (20, 1),
        (21, 0.95),
        (30, 0.5),
        (40, 0),
        (50, 0),
    ],
)
def test_a_length_within_is_paid_in_full_and_less_so_outside(words, score):
    reward = LengthReward(10, 20)
    [scored] = reward.score(asked(" word\n" * words)).tolist()
    assert scored == pytest.approx(score)


def test_without_a_shortest_length_no_text_is_too_short():
    assert LengthReward(0, 20).score(asked("", "a", " word" * 30)).tolist() == [1, 1, 0.5]


def test_characters_and_tokens_can_be_counted():
    queries = ("ab", "a b c d")
    characters = LengthReward(4, 7, unit="characters").score(asked(*queries))
    assert characters.tolist() == [0.5, 1]  # 2 of at least 4
    reward = LengthReward(4, 4, unit="tokens")
    written = Written.all_answered(rollouts(queries, lengths=[5, 3]), [True, True])
    tokens = reward.score(replace(asked(*queries), written=written))
    assert tokens.tolist() == [0.75, 0.75]  # 2 - 5 / 4 and 3 / 4
    # a query that the Challenger did not write in this round could not be judged
    swapped = replace(written, answered_C=torch.tensor([1, -1]))
    tokens = reward.score(replace(asked(*queries), written=swapped))
    assert tokens.isnan().tolist() == [True, False]
    assert float(tokens[1]) == 0.75
    # a round of such queries alone is no failure
    old = replace(asked(*queries), written=replace(written, answered_C=torch.tensor([-1, -1])))
    assert score_all([FixedReward([[0.0]] * 2), reward], old).challenger_N.tolist() == [0, 0]


def test_tokens_of_queries_from_a_file_are_not_known():
    reward = LengthReward(1, 2, unit="tokens")
    with pytest.raises(
        RewardError, match="'length' failed: only queries of a Challenger have tokens"
    ):
        score_all([FixedReward([[0.0]] * 2), reward], asked("a", "b", from_file=True))
    # their words are known
    words = LengthReward(1, 2)
    assert words.score(asked("a", "b", from_file=True)).tolist() == [1, 1]


@pytest.mark.parametrize("enters", ["quality", "task"])
def test_the_length_of_answers_is_a_reward_for_both_players(enters):
    played = playout(["q", "p"], [["one two three", "one"], ["", "a b c d e f"]])
    reward = LengthReward(2, 4, enters=enters)
    scores = reward.score(played)
    # 3 is within; 1 of at least 2; 0; and 2 - 6 / 4
    assert scores.tolist() == [[1, 0.5], [0, 0.5]]
    tokens = LengthReward(4, 4, unit="tokens", enters=enters).score(played)
    lengths = played.answers.completion_mask.sum(1).tolist()
    assert tokens.flatten().tolist() == [max(0, min(n / 4, 2 - n / 4)) for n in lengths]
    scored = score_all([FixedReward([[0.0, 1.0], [1.0, 0.0]]), reward], played)
    if enters == "quality":
        assert torch.equal(scored.quality_NG, scores)
    else:
        assert torch.equal(scored.rewards_NG, scores + torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"low": 3, "high": 2}, "high"),
        ({"low": 0, "high": 0}, "high"),
        ({"low": -5, "high": 4}, "low"),
    ],
)
def test_settings_of_length_are_checked(settings, key):
    with pytest.raises(ConfigError, match=rf"^model\.rewards\.LengthReward\.{key}: [^\n]+$"):
        LengthReward(**settings)


# -- form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "score"),
    [
        ("12+3=?", 1),
        ("12+3=? ", 0),  # the whole query must match
        ("so 12+3=?", 0),
        ("12+3=?\n", 0),
        ("", 0),
    ],
)
def test_a_form_is_matched_by_the_whole_query(query, score):
    assert FormReward(r"\d+\+\d+=\?").score(asked(query)).scores.tolist() == [score]


def test_a_dot_matches_a_line_break_too():
    assert FormReward("a.*b").score(asked("a\n\nb", "a\nc")).scores.tolist() == [1, 0]


def test_a_pattern_that_a_hostile_text_keeps_busy_does_not_match_and_is_counted():
    # with NaN it would get the round's mean, and the Challenger could stall to avoid a 0
    reward = FormReward(r"(a|aa)+$")
    start = time.process_time()
    judgement = reward.score(asked("a" * 60 + "!", "aaa", "b"))
    assert time.process_time() - start < 1.0
    assert judgement.scores.tolist() == [0, 1, 0]
    assert judgement.metrics["slow"].tolist() == [1, 0, 0]


def test_invisible_characters_make_nothing_new():
    hidden = "\u200b".join("what is seven times six")
    asked_thrice = asked("what is seven times six", hidden, "WHAT is  seven times six")
    scores = NoveltyReward().score(asked_thrice).scores
    assert scores.tolist() == [1, 0, 0]


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(?P<a", r"\p{NoSuchThing}", "[a"])
def test_a_pattern_that_is_none_is_refused_in_one_line(pattern):
    with pytest.raises(
        ConfigError, match=r"^model\.rewards\.FormReward\.pattern: is not a [^\n]+$"
    ):
        FormReward(pattern)


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [NoveltyReward(), LengthReward(1, 2), FormReward("a")])
def test_they_are_paid_to_the_challenger_alone_in_the_unit_range(reward):
    assert reward.enters == "challenger"
    assert reward.span == (0, 1)
    task = FixedReward([[1.0, 0.0]] * 3, name="task")
    played = playout(["a", "b c d", ""], [["x", "y"]] * 3)
    scored = score_all([task, reward], played)
    assert scored.challenger_N.shape == (3,)
    assert ((scored.challenger_N >= 0) & (scored.challenger_N <= 1)).all()
    assert scored.rewards_NG.tolist() == task.scores.tolist()
    assert scored.components[reward.name].dtype == torch.float32
