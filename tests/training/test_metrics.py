"""What is logged of a round, against rounds worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from handmade import gated, playout, rollouts, scored_round

from lsp_lightning import Paper
from lsp_lightning.runtime.means import Means
from lsp_lightning.training.gradient import UpdateStats
from lsp_lightning.training.metrics import (
    answer_text_metrics,
    info_metrics,
    round_metrics,
    solved_metrics,
)
from lsp_lightning.types import Role, Written

NAN = float("nan")


def facts_of(played, log_ratio, entropy) -> UpdateStats:
    n = len(played.playout.query_texts) if played.trains_challenger else 0
    roles = {Role.CHALLENGER: slice(0, n)} if n else {}
    roles[Role.SOLVER] = slice(n, n + played.rewards_NG.numel())
    return UpdateStats(-0.25, torch.tensor(log_ratio), torch.tensor(entropy), roles)


def logged(played, log_ratio=None, entropy=None, norm=1.5, seconds=None) -> dict[str, float]:
    """The round's metrics as they reach the log."""
    rows = played.rewards_NG.numel() + len(played.playout.query_texts) * played.trains_challenger
    facts = facts_of(played, log_ratio or [0.0] * rows, entropy or [0.0] * rows)
    advantages = Paper().advantages(played)
    seconds = seconds or {"answers": 1.0}
    means = Means()
    means.update(round_metrics(played, advantages, facts, torch.tensor(norm), seconds))
    return {name: mean.item() for name, mean in means.compute().items()}


ROUND = scored_round([[1.0, 0.0], [0.0, 0.0]])


def test_rewards_and_values_of_a_round():
    found = logged(ROUND)
    assert found["reward"] == pytest.approx(1 / 4)
    assert found["value"] == pytest.approx(1 / 4)
    assert found["value_std"] == pytest.approx(1 / 4)  # of 1/2 and 0
    assert found["dead_groups"] == pytest.approx(1 / 2)  # the second group has no spread
    # advantages 1/2, -1/2, 0, 0 and for the Challenger -1/4, 1/4
    assert found["advantage_std/solver"] == pytest.approx(math.sqrt(1 / 8))
    assert found["advantage_std/challenger"] == pytest.approx(1 / 4)
    assert "quality" not in found


def test_the_spread_of_reward_and_quality_is_within_groups():
    # R: (1, 0) spreads by 1/2, (0, 0) by 0; Q: (.2, .6) by .2, (.9, .9) by 0, whatever lies between
    metrics = logged(replace(ROUND, quality_NG=torch.tensor([[0.2, 0.6], [0.9, 0.9]])))
    assert metrics["reward_std"] == pytest.approx(0.25)
    assert metrics["quality_std"] == pytest.approx(0.1)
    assert "quality_std" not in logged(ROUND)


def test_a_group_is_dead_when_reward_and_quality_together_have_no_spread():
    found = logged(scored_round([[1.0, 0.0], [0.0, 0.0]], quality=[[0.0, 1.0], [0.5, 0.5]]))
    assert found["quality"] == pytest.approx(1 / 2)
    assert found["dead_groups"] == 1  # the first one too: 1 + 0 = 0 + 1


def test_kl_and_entropy_are_told_by_role():
    # rows: two queries, then four answers
    found = logged(ROUND, [0.1, 0.3, 1.0, 2.0, 3.0, 6.0], [2.0, 4.0, 1.0, 1.0, 1.0, 5.0])
    assert found["kl/challenger"] == pytest.approx(0.2)
    assert found["kl/solver"] == pytest.approx(3.0)
    assert found["entropy/challenger"] == pytest.approx(3.0)
    assert found["entropy/solver"] == pytest.approx(2.0)
    assert found["loss"] == pytest.approx(-0.25)


def test_a_round_from_a_file_has_nothing_of_the_challenger():
    found = logged(scored_round([[1.0, 0.0], [0.0, 0.0]], from_file=True), [1.0] * 4)
    assert not [name for name in found if "challenger" in name]
    assert not {"queries/tokens", "queries/truncated"} & set(found)
    assert found["kl/solver"] == pytest.approx(1.0)


def test_texts_are_counted():
    queries = ["same", "same", "s"]
    played = replace(
        scored_round([[1.0, 0.0]] * 3),
        playout=replace(
            playout(queries, [["a", "b"]] * 3),
            written=Written.all_answered(
                rollouts(queries, lengths=[3, 5, 1], truncated=[False, True, False]),
                [True, False, True],
            ),
            answers=rollouts(
                list("ababab"), lengths=[1, 2, 3, 6, 5, 1], truncated=[False] * 5 + [True]
            ),
        ),
    )
    found = logged(played, seconds={"queries": 1.0, "answers": 2.0})
    assert found["queries/invalid"] == pytest.approx(1 / 3)
    assert found["queries/duplicate"] == pytest.approx(1 / 3)  # one of three is a repetition
    assert found["queries/characters"] == pytest.approx(3)
    assert found["queries/tokens"] == pytest.approx(3)
    assert found["queries/truncated"] == pytest.approx(1 / 3)
    assert found["answers/tokens"] == pytest.approx(3)
    assert found["answers/truncated"] == pytest.approx(1 / 6)
    # 3 + 5 + 1 tokens of queries, 1 + 2 + 3 + 6 + 5 + 1 of answers, in 3 seconds
    assert found["tokens_per_second"] == pytest.approx(9)
    assert found["seconds/answers"] == pytest.approx(2)


@pytest.mark.parametrize(("norm", "skipped"), [(0.5, 0.0), (math.inf, 1.0), (NAN, 1.0)])
def test_a_round_whose_gradient_is_not_finite_is_logged_as_skipped(norm, skipped):
    assert logged(ROUND, norm=norm)["skipped"] == skipped


def test_the_logged_reward_is_the_mean_of_the_answers_that_were_judged():
    # R of 1 | 0 and two lost answers, which were filled in
    unfilled = {"task": torch.tensor([[1.0, NAN], [0.0, NAN]])}
    found = logged(replace(scored_round([[1.0, 1.0], [0.0, 0.0]]), unfilled=unfilled))
    assert found["reward"] == pytest.approx(1 / 2)
    # a quality reward that fails hides no R
    failed = {"task": torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "quality": torch.full((2, 2), NAN)}
    played = scored_round([[1.0, 1.0], [0.0, 1.0]], quality=[[0.0] * 2] * 2, judged=[False] * 2)
    found = logged(replace(played, unfilled=failed))
    assert found["reward"] == pytest.approx(3 / 4)
    assert "quality" not in found


@pytest.mark.filterwarnings("error")
def test_a_round_in_which_nothing_was_judged_has_nan_and_no_older_value():
    means, seconds = Means(keep_nan=True), {"answers": 1.0}
    nothing = scored_round([[0.0, 0.0], [0.0, 0.0]], quality=[[0.0] * 2] * 2, judged=[False, False])
    for played in (scored_round([[1.0, 0.0]] * 2, quality=[[1.0] * 2] * 2), nothing):
        facts = facts_of(played, [0.0] * 6, [0.0] * 6)
        advantages = Paper().advantages(played)
        means.update(round_metrics(played, advantages, facts, torch.tensor(1.0), seconds))
        found = means.compute()
    for name in ("reward", "value", "value_std", "quality", "dead_groups"):
        assert found[name].isnan(), name
    assert found["advantage_std/solver"] == 0


def test_components_are_means_of_what_was_judged_and_the_rest_is_counted():
    components = {
        "a": torch.tensor([[1.0, NAN], [0.0, 0.5]]),
        "b": torch.tensor([0.2, 0.4]),
    }
    found = logged(replace(ROUND, components=components))
    assert found["reward/a"] == pytest.approx(1 / 2)
    assert found["unjudged/a"] == pytest.approx(1 / 4)
    assert found["reward/b"] == pytest.approx(0.3)
    assert found["unjudged/b"] == 0


def test_a_group_with_nothing_judged_does_not_lower_the_logged_reward():
    # its filled-in zeros stand for nothing: mean reward 1, and no group that was judged is dead
    played = scored_round([[0.0, 0.0], [1.5, 0.5]], judged=[False, True])
    found = logged(played)
    assert found["reward"] == pytest.approx(1)
    assert found["value"] == pytest.approx(1)
    assert found["dead_groups"] == 0


def test_facts_of_numbers_are_means_and_facts_of_texts_are_entropies():
    facts = {
        "malformed": (True, False, False, False),
        "level": (None, 1, 2, 3),
        "family": ("add", "add", "sort", "sort"),
        "nothing": (None,) * 4,
    }
    found = {
        name: value for fact in facts for name, value in info_metrics(fact, facts[fact]).items()
    }
    assert found == pytest.approx(
        {
            "queries/malformed": 1 / 4,
            "queries/level": 2,
            "queries/family_entropy": math.log(2),  # two families, half each
        }
    )


def test_a_query_may_have_several_kinds():
    # a twice, b and c once, of 4
    found = info_metrics("kinds", (("a", "b"), None, ("a",), ["c"], ()))
    assert found == pytest.approx({"queries/kinds_entropy": 1.5 * math.log(2)})
    assert info_metrics("kinds", ((), ())) == {}


def test_facts_of_one_family_have_entropy_zero():
    assert info_metrics("family", ("add",) * 3) == {"queries/family_entropy": 0.0}


def test_what_rewards_tell_never_hides_what_is_measured():
    # a verifier's own "duplicate" and a reward that calls itself "kl"
    played = replace(
        ROUND,
        query_info={"duplicate": (1.0, 1.0), "size": (1.0, 3.0)},
        reward_metrics={"kl/solver": 9.0, "mine/cut": torch.tensor([0.0, 1.0])},
    )
    found = logged(played, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert found["queries/duplicate"] == 0
    assert found["kl/solver"] == 1
    assert found["queries/size"] == 2
    assert found["mine/cut"] == 0.5


def test_solve_rates_are_those_of_judged_queries_that_were_written():
    # of three written queries one is refused, so that two are played, and a replayed one
    played = gated(["ab", "xy", "zz"], {1: "repeated"}, replayed=["old"])
    rates = torch.tensor([0.0, 1.0, 0.5])
    assert len(played.playout.query_texts) == 3
    found = {
        name: float(torch.as_tensor(value).float().mean())
        for name, value in solved_metrics(replace(played, solve_rates_N=rates)).items()
    }
    of_written = rates[played.playout.written_N]
    assert found["solve_rate"] == pytest.approx(float(of_written.mean()))
    assert found["queries/unsolved"] == pytest.approx(float((of_written == 0).float().mean()))
    assert found["queries/solved"] == pytest.approx(float((of_written == 1).float().mean()))
    assert solved_metrics(replace(played, solve_rates_N=None)) == {}  # R has no limits


def test_solve_rates_of_a_file_are_those_of_all_judged_queries():
    played = scored_round([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], judged=[True, True, False])
    played = replace(played, playout=replace(played.playout, written=None))
    found = solved_metrics(replace(played, solve_rates_N=torch.tensor([1 - 1e-7, 0.0, 0.0])))
    assert {name: float(value.mean()) for name, value in found.items()} == pytest.approx(
        {"solve_rate": 1 / 2, "queries/unsolved": 1 / 2, "queries/solved": 1 / 2}
    )


def test_answers_are_looked_at_without_their_thinking():
    found = answer_text_metrics(["print(1)", "the sum is 4", "the sum is 5", ""])
    assert found["answers/code"] == pytest.approx(1 / 4)
    # print(1), and three pairs in each of the others, of which (the sum) and (sum is) repeat
    assert found["answers/distinct_2"] == pytest.approx(5 / 7)
    assert all(map(math.isnan, answer_text_metrics([]).values()))
