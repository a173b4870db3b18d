"""Rounds that another program sampled: what their gradient is, and what is told of the distance."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from few import few
from small_game import brief, make_policy, stir, tiny_round

from lsp_lightning import Paper
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.training import gradient as steps
from lsp_lightning.training import off_policy as sampled
from lsp_lightning.training.batches import by_row, pack, sampled_logprobs
from lsp_lightning.training.gradient import (
    LossSettings,
    accumulate_gradients,
    prepare_round,
    role_rows,
)
from lsp_lightning.training.metrics import round_metrics
from lsp_lightning.training.off_policy import Draws, draws_of
from lsp_lightning.training.update import RoundUpdate

ALL_AT_ONCE = 10**6
PLAIN = LossSettings(beta=0.0, kl="k1_in_reward", alpha_ch=0.7)


@pytest.fixture(scope="module")
def policy(brief_folder):
    """In double precision, and far enough from its reference for the KL term to count."""
    policy = make_policy(brief_folder)
    stir(policy, scale=0.05)
    return policy.double().eval()


@pytest.fixture(scope="module")
def played(policy):
    return tiny_round(policy, n=4, g=3)


def told(played, change):
    """The round with log-probs that a sampler told: of queries and answers as ``change`` says."""

    def of(rollouts):
        changed = torch.where(rollouts.completion_mask, change(rollouts.logprobs), 0.0)
        return replace(rollouts, logprobs=changed)

    playout = played.playout
    written = replace(playout.written, rollouts=of(playout.written.rollouts))
    changed = replace(playout, written=written, answers=of(playout.answers))
    return replace(played, playout=changed)


def apart(logprobs):
    """Log-probs by another program: up to 1 nat away, the same ones every time."""
    noise = torch.rand(logprobs.shape, generator=torch.Generator().manual_seed(3))
    return logprobs + 2 * noise - 1


def unknown(logprobs):
    return torch.full_like(logprobs, float("nan"))


def gradient(policy, played, settings=PLAIN, cap=None, budget=ALL_AT_ONCE, advantages=None):
    """The round's gradient as one vector, and its facts."""
    policy.zero_grad()
    batches = pack(played, policy.pad_id, budget, True)
    given = advantages or Paper().advantages(played)
    prepared = prepare_round(policy, played, given, batches, settings, cap)
    batches = pack(played, policy.pad_id, budget, True, prepared.contributes_R(settings))
    facts = accumulate_gradients(policy, prepared, batches, settings, lambda loss: loss.backward())
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad]), facts


def relative(a, b):
    return float((a - b).norm() / b.norm())


def rows_of(played):
    """(prompt, completion, temperature) of every row of the round, the queries first."""
    return [
        (r.prompt_ids[i][r.prompt_mask[i]], r.completion_ids[i][r.completion_mask[i]], r)
        for r in played.playout.rollouts
        for i in range(len(r))
    ]


def plain_logprobs(model, prompt, completion, rollouts):
    logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
    logprobs = (logits[len(prompt) - 1 : -1] / rollouts.temperature).log_softmax(-1)
    return logprobs[torch.arange(len(completion)), completion]


def plain_gradient(policy, played, settings, cap):
    """Row by row: advantages with their penalty, times each token's truncated weight."""
    advantages = Paper().advantages(played)
    given = [*advantages.challenger_C.tolist(), *advantages.solver_NG.flatten().tolist()]
    rows = rows_of(played)
    own = [plain_logprobs(policy.causal_lm, *row) for row in rows]
    with policy.reference() as model:
        distance = [
            float((mine.detach() - plain_logprobs(model, *row)).sum())
            for mine, row in zip(own, rows, strict=True)
        ]
    weights = [
        (mine.detach() - theirs).exp().clamp(max=cap)
        for mine, theirs in zip(own, sampled_logprobs(played), strict=True)
    ]
    loss = torch.zeros(())
    for role, members in role_rows(played).items():
        rows_here = range(members.start, members.stop)
        share = (settings.alpha_ch if role == "challenger" else 1.0) / len(rows_here)
        for r in rows_here:
            others = [distance[o] for o in rows_here if o != r]
            advantage = given[r] - settings.beta * (distance[r] - sum(others) / len(others))
            loss = loss - share * advantage * (weights[r] * own[r]).sum()
    policy.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("cap", [1.5, float("inf")])
@pytest.mark.parametrize("budget", few(1, [60, ALL_AT_ONCE]))
def test_the_gradient_is_that_of_the_formula_with_its_weights_written_out(
    policy, played, beta, cap, budget
):
    settings, played = replace(PLAIN, beta=beta), told(played, apart)
    found, _ = gradient(policy, played, settings, cap, budget)
    expected = plain_gradient(policy, played, settings, cap)
    assert relative(found, expected) < 1e-6
    unweighted, _ = gradient(policy, told(played, unknown), settings, cap, budget)
    assert relative(unweighted, expected) > 0.05, "the weights change little: little was tested"


@pytest.mark.parametrize("change", [unknown, lambda logprobs: logprobs])
def test_where_the_sampler_agrees_or_tells_nothing_the_gradient_is_the_local_one(
    policy, played, change
):
    settings = replace(PLAIN, beta=0.3)
    local, _ = gradient(policy, played, settings)
    for cap in (2.0, 1.0):
        served, _ = gradient(policy, told(played, change), settings, cap)
        # the sampler's own log-probs come from a cache and in single precision
        assert relative(served, local) < 1e-5


def test_logprobs_that_nobody_told_are_found_without_weights_too(policy, played):
    settings = replace(PLAIN, beta=0.3)
    local, facts = gradient(policy, played, settings)
    found, filled = gradient(policy, told(played, unknown), settings, cap=None)
    assert relative(found, local) < 1e-5
    torch.testing.assert_close(filled.log_ratio_R, facts.log_ratio_R, atol=1e-4, rtol=0)
    assert not [name for name in filled.sampler if "importance" in name]


def test_where_this_process_samples_nothing_is_computed_again(policy, played, monkeypatch):
    monkeypatch.setattr(sampled, "completion_logprobs", lambda *_, **__: pytest.fail("computed"))
    draws = draws_of(policy, played, [], cap=None)
    for own, as_sampled in zip(draws.logprobs(), sampled_logprobs(played), strict=True):
        assert torch.equal(own, as_sampled)
    assert draws.weights() is None
    assert draws.stats() == {}
    _, facts = gradient(policy, played)
    assert not [name for name in metrics_of(played, facts) if "importance" in name]


def test_the_distance_to_the_reference_is_the_trainers(policy, played):
    _, local = gradient(policy, played)
    _, served = gradient(policy, told(played, apart), cap=2.0)
    assert local.log_ratio_R.abs().max() > 0.1
    torch.testing.assert_close(served.log_ratio_R, local.log_ratio_R, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kl", ["k2_loss", "k3_loss", "k1_loss"])
def test_terms_of_the_loss_are_not_weighed(policy, played, kl):
    settings = replace(PLAIN, beta=0.3, kl=kl)
    advantages = Paper().advantages(played)
    nothing = replace(
        advantages,
        challenger_C=torch.zeros_like(advantages.challenger_C),
        solver_NG=torch.zeros_like(advantages.solver_NG),
    )
    local, _ = gradient(policy, played, settings, advantages=nothing)
    served, _ = gradient(policy, told(played, apart), settings, 2.0, advantages=nothing)
    assert local.norm() > 0
    assert torch.equal(served, local)


def test_dropout_is_off_for_the_trainers_own_logprobs_and_on_again_after(
    tiny_llama_folder, tmp_path
):
    policy = make_policy(brief(tiny_llama_folder, tmp_path / "model"), dropout=0.5)
    stir(policy, scale=0.3)
    played = tiny_round(policy)
    policy.train()
    batches = pack(played, policy.pad_id, ALL_AT_ONCE, True, None)
    draws = draws_of(policy, told(played, unknown), batches, cap=2.0)
    for own, as_sampled in zip(draws.logprobs(), sampled_logprobs(played), strict=True):
        torch.testing.assert_close(own, as_sampled, atol=1e-4, rtol=0)
    modes = {m.training for m in policy.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert True in modes


def metrics_of(played, facts):
    return round_metrics(played, Paper().advantages(played), facts, torch.tensor(1.0), {"x": 1.0})


def test_the_distance_of_sampler_and_trainer_is_told(policy, played):
    # every second token is 0.5 nats likelier for the trainer, the others 0.1 less likely
    def change(logprobs):
        even = torch.arange(logprobs.shape[1]) % 2 == 0
        return logprobs - torch.where(even, 0.5, -0.1)

    tokens = [torch.arange(len(row)) % 2 == 0 for row in sampled_logprobs(played)]
    even = float(torch.cat(tokens).float().mean())
    _, facts = gradient(policy, told(played, change), cap=1.5)
    found = metrics_of(played, facts)
    # exp(0.5) = 1.65 is above the cap
    assert found["importance/weight"] == pytest.approx(1.5 * even + 0.904837 * (1 - even), abs=1e-4)
    assert found["importance/capped"] == pytest.approx(even, abs=1e-6)
    assert found["importance/logprob_gap"] == pytest.approx(0.5 * even + 0.1 * (1 - even), abs=1e-4)


@pytest.mark.parametrize(("nats", "warned"), [(0.4, 0), (0.6, 1)])
def test_a_sampler_of_other_weights_is_told_of(nats, warned, policy, played, recwarn):
    gradient(policy, told(played, lambda logprobs: logprobs - nats), cap=2.0)
    said = [str(w.message) for w in recwarn if "model.rollouts" in str(w.message)]
    assert len(said) == warned
    assert all("applies the adapter" in line for line in said)


def test_of_a_sampler_that_tells_nothing_nothing_is_told(policy, played):
    _, facts = gradient(policy, told(played, unknown), cap=2.0)
    assert len(facts.sampler) == 5
    assert all(value != value for value in facts.sampler.values())


# -- below float32 ---------------------------------------------------------------------------------


def in_16_bits(folder, dtype="bfloat16"):
    """An untouched policy and a round that it sampled, told by a sampler that is a bit off."""
    policy = make_policy(folder, dtype=dtype)
    policy.train()
    return policy, told(tiny_round(policy, n=4, g=3), lambda logprobs: apart(logprobs) - 0.01)


def only_kl(played):
    advantages = Paper().advantages(played)
    return replace(
        advantages,
        challenger_C=torch.zeros_like(advantages.challenger_C),
        solver_NG=torch.zeros_like(advantages.solver_NG),
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kl", ["k1_in_reward", "k2_loss"])
@pytest.mark.parametrize("budget", few(1, [60, ALL_AT_ONCE]))
def test_below_float32_an_untouched_policy_has_no_kl_and_no_gradient_of_it(
    brief_folder, dtype, kl, budget
):
    policy, played = in_16_bits(brief_folder, dtype)
    settings = LossSettings(beta=0.3, kl=kl, alpha_ch=0.7)
    found, facts = update(policy, played, settings, only_kl(played), budget)
    assert torch.equal(facts.log_ratio_R, torch.zeros(16))  # the true KL
    assert found.norm() == 0
    assert facts.sampler["sampler/logprob_gap"] > 0.3


def update(policy, played, settings, advantages, budget=ALL_AT_ONCE):
    """The round's gradient by way of RoundUpdate, as one vector, and its facts."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    rounds = RoundUpdate(policy, settings, TokenBudget("key", budget))
    optimizer = torch.optim.SGD(trained, lr=1.0)
    facts, _ = rounds.gradient(played, advantages, optimizer, lambda loss: loss.backward(), seed=0)
    return torch.cat([p.grad.flatten() for p in trained]), facts


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, 1),  # needed for the advantages
        ({"kl": "k2_loss"}, 0),  # the gradient pass tells
        ({"kl": "k2_loss", "alpha_ch": 0.0}, 1),  # it leaves the Challenger's rows out
        ({"beta": 0.0}, 1),  # it leaves out rows with advantage 0
    ],
)
def test_below_float32_the_logprobs_of_all_rows_are_the_trainers(brief_folder, change, passes):
    policy, played = in_16_bits(brief_folder)
    stir(policy, scale=0.05)
    settings = replace(LossSettings(beta=0.3, kl="k1_in_reward", alpha_ch=0.7), **change)
    advantages = Paper().advantages(played)
    advantages.solver_NG[0] = 0
    with counted(sampled, "trainer_logprobs") as before, counted(steps, "trainer_logprobs") as late:
        _, facts = update(policy, played, settings, advantages)
    assert len(before) + len(late) == passes
    own = sampled.trainer_logprobs(policy, pack(played, policy.pad_id, ALL_AT_ONCE, True))
    [batch] = pack(played, policy.pad_id, ALL_AT_ONCE, True)
    reference = by_row([batch], [policy.reference_logprobs(batch)])
    expected = torch.stack([(own[row] - reference[row]).sum() for row in range(16)])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(facts.log_ratio_R, expected, atol=0.05, rtol=0.05)


@contextmanager
def counted(module, name):
    calls, function = [], getattr(module, name)

    def called(*args):
        calls.append(args)
        return function(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, called)
        yield calls


def test_products_of_less_precision_count_as_less_than_float32(policy):
    assert sampled.computes_in_float32(policy)
    torch.set_float32_matmul_precision("high")
    try:
        assert not sampled.computes_in_float32(policy)
    finally:
        torch.set_float32_matmul_precision("highest")


# -- the gap in every run --------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_in_float32_the_gap_is_told_and_the_gradient_stays_the_same(
    tiny_llama_folder, tmp_path, dropout
):
    policy = make_policy(brief(tiny_llama_folder, tmp_path / "model"), dropout=dropout)
    stir(policy)
    policy.train()
    played, settings = tiny_round(policy), replace(PLAIN, beta=0.3)
    advantages = Paper().advantages(played)
    _, facts = update(policy, played, settings, advantages)
    assert 0 < facts.sampler["sampler/logprob_gap"] < 1e-4
    assert 0 < facts.sampler["sampler/logprob_gap_std"] < 1e-3
    # the log-ratio is the sampler's, to the last digit
    batches = pack(played, policy.pad_id, ALL_AT_ONCE, True)
    references = by_row(batches, [policy.reference_logprobs(batch) for batch in batches])
    ratios = [
        sum((own - references[row]).tolist()) for row, own in enumerate(sampled_logprobs(played))
    ]
    assert facts.log_ratio_R.tolist() == pytest.approx(ratios, abs=1e-5)


def test_the_gap_is_a_mean_per_token_and_a_spread_per_completion():
    # differences: 1 and -1 (sum 0), 2 (sum 2); the third row is unknown to the sampler
    told_ = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0]), torch.tensor([float("nan")])]
    own = {0: torch.tensor([0.0, -3.0]), 1: torch.tensor([-1.0]), 2: torch.tensor([-1.0])}
    draws = Draws(told_, own, exact=True, far=9.0)
    assert draws.stats() == pytest.approx(
        {"sampler/logprob_gap": 4 / 3, "sampler/logprob_gap_std": 1.0}
    )


@pytest.mark.parametrize(
    ("dtype", "nats", "warned"),
    [
        ("float32", 1e-2, 1),
        ("float32", 1e-5, 0),
        ("bfloat16", 0.1, 0),
        ("bfloat16", 0.9, 1),
        ("float16", 0.3, 1),
    ],
)
def test_a_gap_that_rounding_cannot_explain_is_told_of(brief_folder, dtype, nats, warned, recwarn):
    policy = make_policy(brief_folder, dtype=dtype)
    played = told(tiny_round(policy), lambda logprobs: logprobs - nats)
    update(policy, played, PLAIN, Paper().advantages(played))
    said = [str(w.message) for w in recwarn if "sampler/logprob_gap" in str(w.message)]
    assert len(said) == warned
    assert all(line.startswith("model.base: ") for line in said)
