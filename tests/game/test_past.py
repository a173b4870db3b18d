"""The earlier policy: which weights it has, which queries of a round are its, and resume."""

from dataclasses import replace

import pytest
import torch
from small_game import SHORT_PROMPT, Checksum, make_policy, stir

from lsp_lightning import (
    Challenger,
    ConfigError,
    Gate,
    PastChallenger,
    Player,
    Pool,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    VerifiableReward,
    play_round,
)
from lsp_lightning.game.drawing import draw_queries
from lsp_lightning.game.gate import QueryCheck
from lsp_lightning.models.other_weights import holding, trained_weights
from lsp_lightning.seeding import derive_seed

N = 8


def challenger() -> Challenger:
    return Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=9))


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def policy(brief_folder):
    return make_policy(brief_folder)


# -- other weights for a while ---------------------------------------------------------------------


def test_the_weights_are_back_bit_for_bit_also_after_an_error(policy):
    stir(policy)
    before = trained_weights(policy)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    with holding(policy, zeros):
        assert equal(trained_weights(policy), zeros)
    assert equal(trained_weights(policy), before)
    with pytest.raises(KeyError, match="no power"), holding(policy, zeros):
        raise KeyError("no power")
    assert equal(trained_weights(policy), before)


def test_a_copy_does_not_change_with_the_policy(policy):
    copy = trained_weights(policy)
    stir(policy)
    assert not equal(copy, trained_weights(policy))


def test_parameters_stay_the_same_objects_so_that_an_optimiser_keeps_them(policy):
    places = {name: p.data_ptr() for name, p in policy.named_parameters() if p.requires_grad}
    with holding(policy, trained_weights(policy)):
        pass
    assert places == {n: p.data_ptr() for n, p in policy.named_parameters() if p.requires_grad}


# -- which weights ---------------------------------------------------------------------------------


def test_it_is_between_age_and_twice_the_age_old(policy):
    """With age 3, round by round: the round whose weights play."""
    past, weights, played = PastChallenger(age=3), [], []
    for index in range(10):
        weights.append(trained_weights(policy))
        past.prepare(index, policy)
        with holding(policy, past.state_dict()["weights"]):
            now = trained_weights(policy)
        played.append(next(i for i, one in enumerate(weights) if equal(one, now)))
        stir(policy, seed=index)
    assert played == [0, 0, 0, 0, 0, 0, 3, 3, 3, 6]


def test_its_queries_are_those_that_the_policy_wrote_with_these_weights(policy):
    past, source, player = PastChallenger(share=0.25, age=2), challenger(), Player.local(policy)
    past.prepare(0, policy)
    expected = source.draw(player, 2, 1, derive_seed(7, "past"))
    stir(policy, scale=1.0)
    past.prepare(1, policy)
    found = draw_queries(player, source, N, 1, 7, past=past)
    valid = expected.written.valid_C.tolist()
    assert any(valid)
    queries = tuple(text for text, fits in zip(expected.texts, valid, strict=True) if fits)
    assert tuple(found.texts[i] for i in found.past) == queries
    assert source.draw(player, 2, 1, derive_seed(7, "past")).texts != expected.texts


def test_without_prepare_it_cannot_play(policy):
    with pytest.raises(RuntimeError, match="call prepare"):
        PastChallenger().player(Player.local(policy))


# -- in a round ------------------------------------------------------------------------------------


class Refuses(QueryCheck):
    """Refuses the queries of a set."""

    reason = "unwanted"

    def __init__(self, texts):
        self.texts = texts

    def accepts(self, queries, taken):
        return [query not in self.texts for query in queries]


def played(policy, past, **kwargs):
    past.prepare(0, policy)
    return play_round(
        Player.local(policy),
        challenger(),
        [VerifiableReward(Checksum())],
        num_queries=N,
        group_size=2,
        sampling=Sampling(max_new_tokens=4),
        past=past,
        seed=3,
        **kwargs,
    )


def test_its_queries_train_the_solver_alone(policy):
    found = played(policy, PastChallenger(share=0.5)).playout
    assert len(found.query_texts) == N
    assert 1 <= len(found.past) <= 4
    assert not found.written_N[list(found.past)].any()
    assert not found.replayed_N.any()
    assert len(found.written.rollouts) == N - len(found.past)
    assert len(found.answers) == 2 * N


def test_what_it_writes_passes_the_same_gate_and_the_policy_writes_the_rest(policy):
    past = PastChallenger(share=0.5)
    free = played(policy, past).playout
    first = free.query_texts[free.past[0]]
    gated = played(policy, past, gate=Gate([Refuses({first})], redraws=0)).playout
    assert len(gated.past) == len(free.past) - [free.query_texts[i] for i in free.past].count(first)
    assert first not in [gated.query_texts[i] for i in gated.past]


def test_the_pool_and_the_past_take_their_shares_and_the_pool_may_take_up_its_queries(policy):
    pool = Pool(share=0.25, rest=0)
    pool.load_state_dict({"queries": [{"text": "one"}, {"text": "two"}]})
    found = played(policy, PastChallenger(share=0.25), pool=pool).playout
    assert sorted(found.query_texts[-2:]) == ["one", "two"]
    assert found.replayed_N.sum() == 2
    assert set(found.past) == set(range(N - 2 - len(found.past), N - 2))
    assert found.written_N.sum() == N - 2 - len(found.past)


def test_a_share_of_nothing_changes_nothing(policy):
    past = PastChallenger(share=0.0)
    assert played(policy, past).playout.query_texts == tuple(
        draw_queries(Player.local(policy), challenger(), N, 0, 3).texts
    )


# -- settings and state ----------------------------------------------------------------------------


def test_the_state_is_plain_and_restores_both_weights(policy, tmp_path):
    past = PastChallenger(age=1)
    for index in range(3):
        stir(policy, seed=index)
        past.prepare(index, policy)
    torch.save(past.state_dict(), tmp_path / "state")
    other = PastChallenger(age=1)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for name in ("weights", "next"):
        assert equal(other.state_dict()[name], past.state_dict()[name])
    assert not equal(past.state_dict()["weights"], past.state_dict()["next"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.0}, r"data.past.share: is 1.0; set at least 0 and below 1"),
        ({"share": -0.1}, r"data.past.share"),
        ({"age": 0}, r"data.past.age: is 0, but it is a number of rounds; set 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PastChallenger(**settings)


def test_the_challenger_keeps_two_new_queries_beside_the_pool_and_the_past():
    shares = {"pool": Pool(share=0.5), "past": PastChallenger(share=0.4)}
    with pytest.raises(ConfigError, match=r"data.pool.share: leaves the Challenger fewer than 2"):
        SelfPlayDataModule(challenger(), num_queries=N, **shares)
    SelfPlayDataModule(challenger(), num_queries=2 * N, **shares)


def test_queries_of_a_file_have_no_past(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"query": "1+1"}\n')
    with pytest.raises(ConfigError, match=r"data.past: is for queries that the Challenger writes"):
        SelfPlayDataModule(PromptFile(str(tmp_path / "q.jsonl")), past=PastChallenger())


def test_it_needs_an_adapter_and_rollouts_in_this_process():
    selection = SelfPlayDataModule(challenger(), past=PastChallenger()).selection
    selection.check_policy(True, False)
    with pytest.raises(ConfigError, match=r"data.past: keeps copies .*; set model.lora, or leave"):
        selection.check_policy(False, False)
    with pytest.raises(ConfigError, match=r"data.past: needs the weights .*LocalRollouts"):
        selection.check_policy(True, True)
    replace(selection, past=None).check_policy(False, True)
