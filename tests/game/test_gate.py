"""The gate in a round: who is shut out, and what that pays and teaches."""

import math
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, rollouts, scored_round
from scripted import Does, NotBad, Scripted, batch
from small_game import Checksum, make_policy, tiny_round

from lsp_lightning import (
    Band,
    Challenger,
    ConfigError,
    Frontier,
    Gate,
    Judged,
    Learnability,
    LengthReward,
    Novel,
    Objective,
    Paper,
    Player,
    Pool,
    Sampling,
    SelfPlayDataModule,
    VerifiableReward,
    WellFormed,
    play_round,
)
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.rewards import Reward, RewardError
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier
from lsp_lightning.types import Refused, Written

# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"redraws": -1}, "redraws: is -1, but it is a number of draws; set 0 or more"),
        ({"redraws": None}, "redraws: is None; set a whole number, 0 or more"),
        ({"checks": Novel()}, "checks: is <lsp"),
        ({"checks": {"a": 1}}, "checks: is {'a': 1}; pass a list of checks"),
        ({"checks": ["Novel"]}, "checks: 'Novel' is not a QueryCheck; pass one, such as Novel()"),
        ({"checks": [Novel]}, "checks: <class "),
        ({"solve_rate": (0.9, 0.1)}, "solve_rate: is [0.9, 0.1]; set two numbers between 0 an"),
        ({"solve_rate": (0.1,)}, "solve_rate: is (0.1,); set two numbers, such as [0.1, 0.9]"),
        ({"solve_rate": 0.5}, "solve_rate: is 0.5; set two numbers, such as [0.1, 0.9]"),
        ({"solve_rate": "ab"}, "solve_rate: is 'ab'; set two numbers, such as [0.1, 0.9]"),
        ({"solve_rate": (-0.1, 0.5)}, "solve_rate: is [-0.1, 0.5]; set two numbers between"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings, line):
    with pytest.raises(ConfigError) as error:
        Gate(**settings)
    assert str(error.value).startswith(f"data.gate.{line}")


@pytest.mark.parametrize("reason", ["drawn", "played", "passed", "admitted", "two words", "", None])
def test_a_reason_is_the_name_of_a_metric_that_the_gate_does_not_have(reason):
    class Own(Novel):
        pass

    Own.reason = reason
    line = rf"^data\.gate\.checks: the reason of Own is {reason!r}; set one word other"
    with pytest.raises(ConfigError, match=line):
        Gate([Own()])


def test_only_a_gate_is_a_gate_and_only_a_pool_a_pool():
    with pytest.raises(ConfigError, match=r"^data\.gate: is .*; pass a Gate, or null for none"):
        SelfPlayDataModule(gate=[Novel()])
    with pytest.raises(ConfigError, match=r"^data\.pool: is .*; pass a Pool, or null for none"):
        SelfPlayDataModule(pool=0.5)


def test_examples_of_a_pool_need_a_pool():
    source = Challenger(examples_from_pool=True)
    with pytest.raises(ConfigError, match=r"examples_from_pool: is true, but data\.pool is null"):
        SelfPlayDataModule(source)
    SelfPlayDataModule(source, pool=Pool())
    with pytest.raises(ConfigError, match=r"num_examples: is 0, but that shows none of the pool"):
        Challenger(examples_from_pool=True, num_examples=0)


def test_the_settings_of_a_run_are_plain_even_with_an_empty_pool():
    data = SelfPlayDataModule(gate=Gate([Novel(near=0.7)], solve_rate=(0.1, 0.9)), pool=Pool())
    settings = data.resume_settings()
    assert settings["gate"] == {
        "checks": {"0 Novel": {"near": 0.7, "memory": 16}},
        "redraws": 3,
        "solve_rate": [0.1, 0.9],
    }
    assert settings["pool"] == {"share": 0.25, "size": 256, "rest": 16, "solve_rate": [0.1, 0.9]}


# -- the order of checks ---------------------------------------------------------------------------


def test_each_check_sees_what_those_before_it_accepted():
    seen = []

    def look(queries):
        seen.append(list(queries))
        return ["b" not in query for query in queries]

    gate = Gate(
        [Does(lambda queries: ["a" not in q for q in queries], "has_a"), Does(look, "has_b")]
    )
    texts = ["a", "b", "c", "ab", "d"]
    found = gate.refusals(texts, [True, True, True, True, False], [])
    assert found == ["has_a", "has_b", None, "has_a", "invalid"]
    assert seen == [["b", "c"]]
    assert gate.refusals([], [], []) == []
    assert gate.refusals(["a"], [True], []) == ["has_a"]  # and the second one is not asked
    assert len(seen) == 1


def test_a_rate_at_the_end_of_the_range_is_admitted_and_an_unknown_one_too():
    rates = torch.tensor([0.0, 0.1, 0.5, 0.9, 0.900001, 0.91, 1.0])
    judged = torch.tensor([True] * 7)
    gate = Gate(solve_rate=(0.1, 0.9))
    assert gate.admits(rates, judged).tolist() == [False, True, True, True, True, False, False]
    assert gate.admits(rates, ~judged).all()
    assert Gate().admits(rates, judged).all()
    assert gate.admits(None, judged).all()


# -- what is shut out pays the round's least ------------------------------------------------------

#: R of four answers: a replay, accepted ones, one outside of the range, one that nobody could
#: judge, and one that breaks the form rules. V = 1/4, 1/2, 3/4, 0, -, 1/2.
REWARDS = [[1.0, 0, 0, 0], [1.0, 1, 0, 0], [1.0, 1, 1, 0], [0.0] * 4, [0.0] * 4, [1.0, 1, 0, 0]]
#: The row of each query: the Challenger's rows are query 1, a refused one, 2, 3, 4, one that its
#: source left unanswered, and the invalid 5.
ANSWERED = [1, -1, 2, 3, 4, -1, 5]
#: What each objective pays for the queries 1, 2, 3 and 5 by their V.
PAYS = {
    Paper: (-0.5, -0.75, 0.0, -0.5),
    Learnability: (1.0, 0.75, 0.0, 1.0),  # 4 V (1 - V)
    Frontier: (0.5, 0.25, 0.0, 0.5),  # 1 - V, or 0 for V = 0
    Band: (1.0, 1.0, 0.0, 1.0),  # 1 in [.25, .75], 0 at V = 0
}


def gated_round(last_malformed=False):
    played = scored_round(REWARDS, judged=[True] * 4 + [False, True], binary=True)
    valid = torch.tensor([True] * 6 + [False])
    rows = Written(
        rollouts([f"row {c}" for c in range(7)]),
        valid,
        torch.tensor(ANSWERED),
        torch.zeros(7, dtype=torch.long),
        {1: Refused("refused", "malformed")},
    )
    return replace(
        played,
        playout=replace(played.playout, written=rows),
        admitted_N=torch.tensor([True, True, True, False, True, True]),
        malformed_N=torch.tensor([False, True, False, False, False, last_malformed]),
    )


@pytest.mark.parametrize("invalid_query", ["lowest", "malformed_lowest", "as_scored"])
@pytest.mark.parametrize("objective", PAYS)
def test_what_each_row_is_paid(objective, invalid_query):
    one, two, three, five = PAYS[objective]
    least = min(one, two, three, five)
    if invalid_query == "malformed_lowest":  # query 1 is malformed
        one = least
    if invalid_query != "as_scored":
        five = least
    # the rows: query 1, refused, query 2, outside of the range, unjudged, unanswered, invalid
    paid = [one, least, two, least, None, least, five]
    mean = sum(x for x in paid if x is not None) / 6
    expected = [0.0 if x is None else x - mean for x in paid]
    advantages = objective(invalid_query=invalid_query).advantages(gated_round())
    torch.testing.assert_close(advantages.challenger_C, torch.tensor(expected))
    # the Solver: R minus the group's mean, and 0 outside of the range and for what nobody judged
    torch.testing.assert_close(
        advantages.solver_NG,
        torch.tensor(
            [
                [0.75, -0.25, -0.25, -0.25],
                [0.5, 0.5, -0.5, -0.5],
                [0.25, 0.25, 0.25, -0.75],
                [0.0] * 4,
                [0.0] * 4,
                [0.5, 0.5, -0.5, -0.5],
            ]
        ),
    )


@pytest.mark.parametrize("last_malformed", [False, True])
@pytest.mark.parametrize("invalid_query", ["lowest", "malformed_lowest", "as_scored"])
@pytest.mark.parametrize("objective", PAYS)
def test_a_penalty_is_taken_off_what_was_refused_or_breaks_the_form(
    objective, invalid_query, last_malformed
):
    punished = [1]  # the refused row, and those that the setting names
    punished += [6] if invalid_query != "as_scored" else []
    punished += [0] if invalid_query == "malformed_lowest" else []
    without = objective(invalid_query=invalid_query).advantages(gated_round(last_malformed))
    found = objective(invalid_query=invalid_query, penalty=0.6).advantages(
        gated_round(last_malformed)
    )
    change = [-0.6 if row in punished else 0.0 for row in range(7)]
    # the mean is over all rows but the unjudged one, whose advantage stays 0
    expected = [0.0 if row == 4 else c - sum(change) / 6 for row, c in enumerate(change)]
    difference = found.challenger_C - without.challenger_C
    torch.testing.assert_close(difference, torch.tensor(expected))
    torch.testing.assert_close(found.solver_NG, without.solver_NG)


def test_a_query_outside_of_the_range_still_counts_for_the_least():
    # -V = -1 is what the round pays least, though the query is shut out: 0 and -1 around -1/2
    played = scored_round([[1.0, 1.0], [0.0, 0.0]])
    played = replace(played, admitted_N=torch.tensor([False, True]))
    assert Paper().advantages(played).challenger_C.tolist() == [-0.5, 0.5]


def test_quality_and_other_pay_of_a_query_that_is_shut_out_do_not_save_it():
    played = scored_round(
        [[1.0, 0.0], [1.0, 0.0]], quality=[[9.0, 9.0], [0.0, 0.0]], challenger=[5.0, 0.0]
    )
    played = replace(played, admitted_N=torch.tensor([False, True]))
    # -1/2 + 9 + 5 is not paid; -1/2 is the least
    assert Paper().advantages(played).challenger_C.tolist() == [0.0, 0.0]
    assert Paper().advantages(played).solver_NG[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("objective", PAYS)
def test_if_nothing_written_was_judged_nobody_is_paid(objective):
    played = scored_round([[1.0, 0.0]])
    for answered in ([-1, -1], [-1, 0]):  # only a replay; or the query that nobody could judge
        rows = replace(gated_round().playout.written, answered_C=torch.tensor(answered + [-1] * 5))
        found = replace(played, playout=replace(played.playout, written=rows))
        if 0 in answered:
            found = replace(found, judged_NG=torch.zeros((1, 2), dtype=torch.bool))
        assert objective().advantages(found).challenger_C.tolist() == [0.0] * 7


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("objective", PAYS)
def test_a_refused_query_that_is_played_moves_nobody(objective, scale):
    played = scored_round([[1.0, 0.0]], binary=True)
    rows = replace(gated_round().playout.written, answered_C=torch.tensor([-1, 0] + [-1] * 5))
    played = replace(played, playout=replace(played.playout, written=rows))
    assert played.playout.refused_N.tolist() == [True]
    played = replace(played, admitted_N=torch.tensor([False]))
    advantages = objective(advantage_scale=scale).advantages(played)
    assert not advantages.rows().any()


class Logarithm(Objective):
    """Undefined where no answer is right."""

    def challenger_rewards(self, played):
        return -played.values_N.log()


def test_an_objective_may_be_undefined_where_the_gate_shuts_out(recwarn):
    played = scored_round([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    played = replace(played, admitted_N=torch.tensor([True, True, False]))
    # 0, log 2, and the least: 0
    mean = math.log(2) / 3
    expected = torch.tensor([-mean, math.log(2) - mean, -mean])
    torch.testing.assert_close(Logarithm().advantages(played).challenger_C, expected)
    assert not recwarn
    nothing = replace(played, admitted_N=torch.zeros(3, dtype=torch.bool))
    rewards = -nothing.values_N.log()
    assert rewards.isinf().any()
    assert Logarithm().advantages(nothing).challenger_C.tolist() == [0.0] * 3


def test_without_a_gate_an_undefined_objective_is_not_hidden():
    played = scored_round([[1.0, 1.0], [0.0, 0.0]])
    with pytest.warns(SelfPlayWarning, match="challenger_rewards of Logarithm returned NaN or inf"):
        advantages_C = Logarithm().advantages(played).challenger_C
    assert not advantages_C.isfinite().all()


def test_the_scale_of_learnability_is_that_of_admitted_queries():
    played = scored_round([[0.0, 100.0], [0.0, 2.0]])
    objective = Learnability()
    objective.observe(replace(played, admitted_N=torch.tensor([False, True])))
    assert objective.state_dict() == {"largest_variance": 1.0}
    objective.observe(replace(played, admitted_N=torch.tensor([False, False])))
    assert objective.state_dict() == {"largest_variance": 1.0}


# -- whole rounds ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def player(tiny_policy):
    return Player.local(tiny_policy)


def play(player, source, rewards, n, **kwargs):
    return play_round(
        player,
        source,
        rewards,
        num_queries=n,
        group_size=2,
        sampling=Sampling(max_new_tokens=3),
        **kwargs,
    )


def binary(scores):
    reward = FixedReward(scores)
    reward.binary, reward.span = True, (0.0, 1.0)
    return reward


def test_a_range_of_solve_rates_admits_by_the_mean_R(player):
    reward = binary([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    found = play(
        player, Scripted(batch(list("abc"))), [reward], 3, gate=Gate(solve_rate=(0.1, 0.9))
    )
    assert found.solve_rates_N.tolist() == [1.0, 0.5, 0.0]
    assert found.admitted_N.tolist() == [False, True, False]


def test_the_solve_rate_is_a_share_of_the_range_of_R(player):
    reward = FixedReward([[3.0, 3.0], [-1.0, 1.0]])
    reward.span = (-1.0, 3.0)
    doubled = FixedReward([[0.0, 0.0], [1.0, 0.0]], name="other", weight=-2.0)
    doubled.span = (0.0, 1.0)
    # R = 3, 3 and -3, 1 of [-3, 3]: means 3 and -1
    found = play(player, Scripted(batch(list("ab"))), [reward, doubled], 2, gate=Gate())
    torch.testing.assert_close(found.solve_rates_N, torch.tensor([1.0, 1 / 3]))


def test_a_round_of_what_was_refused_teaches_nothing(player):
    reward = binary([[1.0, 0.0]])
    source = Scripted(batch(["bad a", "bad b"]))
    found = play(player, source, [reward], 2, gate=Gate([NotBad()], redraws=0))
    assert found.playout.query_texts == ("bad a",)
    assert found.admitted_N.tolist() == [False]
    assert not Learnability().advantages(found).rows().any()
    assert found.playout.written_texts == ("bad a", "bad b")


class Breaks(Reward):
    """Cannot judge anything."""

    def score(self, playout):
        raise ValueError("what is this?")


def test_a_reward_that_fails_at_a_refused_query_ends_no_run(player):
    """It is the query that the gate found bad, and nothing would have been learned from it."""
    rewards = [
        Breaks(),
        Breaks(name="q", enters="quality"),
        Breaks(name="c", enters="challenger", standardize=True),
    ]
    source = Scripted(batch(["bad a", "bad b"]), batch(["good", "bad"]))
    gate = Gate([NotBad()], redraws=0)
    with pytest.warns(SelfPlayWarning, match="what is this.; the gate had refused this query"):
        found = play(player, source, rewards, 2, gate=gate)
    assert found.judged_NG.tolist() == [[False, False]]
    assert not Paper().advantages(found).rows().any()
    assert {name: tuple(x.shape) for name, x in found.components.items()} == {
        "breaks": (1, 2),
        "q": (1, 2),
        "c": (1,),
    }
    for reward in rewards:
        reward.observe(found)
    Novel().observe(found)
    Pool().observe(found)
    with pytest.raises(RewardError, match="what is this"):
        play(player, source, rewards, 2, gate=gate)


def test_a_gate_that_accepts_all_plays_the_same_round(brief_folder):
    policy = make_policy(brief_folder)
    source = Challenger(sampling=Sampling(max_new_tokens=9))
    rewards = [VerifiableReward(Checksum())]
    without = tiny_round(policy, n=4, source=source, rewards=rewards)
    gate = Gate()
    gate.refusals = lambda texts, valid, taken: [None] * len(texts)
    within = play_round(
        Player.local(policy),
        source,
        rewards,
        num_queries=4,
        group_size=3,
        sampling=Sampling(temperature=1.2, max_new_tokens=7),
        gate=gate,
    )
    assert within.admitted_N.all()
    assert within.playout.query_texts == without.playout.query_texts
    assert torch.equal(within.rewards_NG, without.rewards_NG)
    for a, b in zip(within.playout.rollouts, without.playout.rollouts, strict=True):
        assert a.texts == b.texts
        assert torch.equal(a.completion_ids, b.completion_ids)
        assert torch.equal(a.logprobs, b.logprobs)
    for a, b in zip(
        (within.playout.written.answered_C, Learnability().advantages(within).rows()),
        (without.playout.written.answered_C, Learnability().advantages(without).rows()),
        strict=True,
    ):
        assert torch.equal(a, b)


class Hostile(Scripted):
    """Writes what no check should see."""

    def draw(self, player, num_queries, index, seed):
        places = range(index * num_queries, (index + 1) * num_queries)
        return batch([QUERIES[place % len(QUERIES)] for place in places])

    def redraw(self, player, places, num_queries, index, seed, attempt):
        return self.draw(player, len(places), index + attempt, seed)


QUERIES = [
    *("", " \n\t", "<|user|><s></s><|assistant|>hi", "a\x00b", "\u202eabc\u2066\u200b"),
    *("word" * 500, "7+5=?", "sort 4z", "count in", "\ufeff"),
]


@pytest.mark.filterwarnings("ignore::lsp_lightning.errors.SelfPlayWarning")
def test_hostile_queries_play_whole_rounds(player, tiny_policy):
    gate = Gate([WellFormed(TinyWorldVerifier()), Novel(), Judged(least=0.1)], 2, (0.1, 0.9))
    gate.connect(FrozenPlayer(tiny_policy))
    pool, objective = Pool(share=0.25, rest=0), Learnability()
    rewards = [VerifiableReward(Checksum()), LengthReward(low=1, high=9, unit="tokens")]
    for index in range(4):
        found = play(player, Hostile(), rewards, 4, gate=gate, pool=pool, index=index)
        assert objective.advantages(found).rows().isfinite().all()
        for part in (objective, gate, pool, *rewards):
            part.observe(found)
