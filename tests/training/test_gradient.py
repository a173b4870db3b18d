"""The gradient of a round: the same for any micro-batches, and the one that the paper writes."""

import json
import weakref
from dataclasses import fields, replace

import pytest
import torch
from small_game import Checksum, make_policy, stir, tiny_round

from lsp_lightning import (
    ConfigError,
    Learnability,
    Paper,
    PromptFile,
    SelfReward,
    VerifiableReward,
)
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.training.batches import pack, sampled_logprobs
from lsp_lightning.training.gradient import (
    LossSettings,
    accumulate_gradients,
    prepare_round,
    role_rows,
)
from lsp_lightning.training.update import RoundUpdate
from lsp_lightning.types import Refused, Role

ALL_AT_ONCE = 10**6
FORMS = ["k1_in_reward", "k2_loss", "k3_loss", "k1_loss"]


@pytest.fixture(scope="module")
def policy(brief_folder):
    """Far enough from its reference for the KL term to count."""
    policy = make_policy(brief_folder)
    stir(policy, scale=0.05)
    policy.eval()
    return policy


@pytest.fixture(scope="module")
def played(policy):
    """Four queries with three answers each, of many lengths, that differ in what they earn."""
    played = tiny_round(policy, n=4, g=3)
    advantages = Paper().advantages(played)
    assert advantages.challenger_C.abs().max() > 0.1
    assert advantages.solver_NG.abs().max() > 0.1
    assert len({int(n) for n in played.playout.answers.completion_mask.sum(1)}) > 2
    return played


def gradient(policy, played, settings, budget, advantages=None, shared=True):
    """The round's gradient as one vector, and the facts and micro-batches it came with."""
    advantages = advantages or Paper().advantages(played)
    batches = pack(played, policy.pad_id, budget, shared)
    prepared = prepare_round(policy, played, advantages, batches, settings)
    batches = pack(played, policy.pad_id, budget, shared, prepared.contributes_R(settings))
    policy.zero_grad()
    stats = accumulate_gradients(policy, prepared, batches, settings, lambda loss: loss.backward())
    return flat_gradient(policy), stats, batches


def flat_gradient(policy):
    trained = [p for p in policy.parameters() if p.requires_grad]
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
    ).double()


def relative(a, b):
    return float((a - b).norm() / b.norm())


def completions(played):
    """(prompt, completion, temperature) of every row of the round, the queries first."""
    playout = played.playout
    return [
        (r.prompt_ids[i][r.prompt_mask[i]], r.completion_ids[i][r.completion_mask[i]], r)
        for r in playout.rollouts
        for i in range(len(r))
    ]


def plain_logprobs(model, prompt, completion, rollouts):
    """log pi of one completion's tokens from full logits."""
    logits = model(input_ids=torch.cat([prompt, completion]).unsqueeze(0)).logits[0]
    logprobs = (logits[len(prompt) - 1 : -1] / rollouts.temperature).log_softmax(-1)
    return logprobs[torch.arange(len(completion)), completion]


def plain_loss(policy, played, settings, advantages):
    """L_Sol + alpha_Ch L_Ch of eqs. 4 and 5, completion by completion."""
    rows = completions(played)
    logprobs = [plain_logprobs(policy.causal_lm, *row) for row in rows]
    with policy.reference() as model:
        references = [plain_logprobs(model, *row) for row in rows]
    c, g = len(rows) - played.rewards_NG.numel(), played.playout.group_size
    answers = [r for r in range(c, len(rows)) if played.trained_N[(r - c) // g]]
    roles = [("challenger", range(c)), ("solver", answers)]
    given = [] if not c else advantages.challenger_C.tolist()
    given += advantages.solver_NG.flatten().tolist()
    loss = torch.zeros(())
    for role, members in roles:
        if not len(members):
            continue
        ratios = {r: float((logprobs[r] - references[r]).sum().detach()) for r in members}
        total = torch.zeros(())
        for r in members:
            advantage = given[r]
            d = logprobs[r] - references[r]
            if settings.kl == "k1_in_reward":
                others = [ratios[o] for o in members if o != r]
                advantage -= settings.beta * (ratios[r] - sum(others) / len(others))
                penalty = torch.zeros(())
            elif settings.kl == "k1_loss":
                penalty = d.sum()
            elif settings.kl == "k2_loss":
                penalty = d.sum() ** 2 / 2
            else:
                penalty = ((-d).exp() - 1 + d).sum()
            # pi / stopgrad(pi) is 1 with the gradient of log pi
            total = total + advantage * logprobs[r].sum() - settings.beta * penalty
        planned = (played.planned or len(played.trained_N)) * g
        share = -total / (planned if role == "solver" else len(members))
        loss = loss + (settings.alpha_ch * share if role == "challenger" else share)
    return loss


def plain_gradient(policy, played, settings, advantages):
    policy.zero_grad()
    plain_loss(policy, played, settings, advantages).backward()
    return flat_gradient(policy)


# -- the gradient ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kl", "beta", "dtype", "tolerance"),
    [
        *(
            pytest.param(kl, 0.3, torch.float32, 5e-6, marks=pytest.mark.slow)
            for kl in ("k1_in_reward", "k3_loss")
        ),
        # log-probs are compared in single precision, whatever the model's
        *((kl, 0.3, torch.float64, 2e-7) for kl in FORMS[:2]),
        *(pytest.param(kl, 0.3, torch.float64, 2e-7, marks=pytest.mark.slow) for kl in FORMS[2:]),
        ("k1_in_reward", 0.0, torch.float64, 1e-12),
    ],
)
def test_micro_batches_of_any_size_and_layout_give_the_gradient_of_the_whole_round(
    policy, played, kl, beta, dtype, tolerance
):
    """In double precision to the last digits, so what is left in single precision is rounding.

    As a tree, where a prompt is there once for its completions, and with each in its own row.
    """
    settings, wholes = LossSettings(beta=beta, kl=kl, alpha_ch=0.4), []
    policy.to(dtype)
    try:
        lengths = [len(p) + len(c) for p, c, _ in completions(played)]
        for shared, few in ((False, 3 * max(lengths)), (True, max(lengths))):
            call = {"settings": settings, "shared": shared}
            whole, facts, batches = gradient(policy, played, budget=ALL_AT_ONCE, **call)
            assert len(batches) == 1
            assert whole.norm() > 0
            for budget in (few, 1):
                parts, part_facts, batches = gradient(policy, played, budget=budget, **call)
                assert len(batches) >= 2
                # a row's own are the same to the last digit; padded by others in the attention of a
                # tree, norms, which are computed in single precision, differ in theirs
                assert relative(parts, whole) < (max(tolerance, 2e-7) if shared else tolerance)
                assert budget > 1 or len(batches) == len(part_facts.entropy_R.isfinite().nonzero())
                assert part_facts.loss == pytest.approx(facts.loss, rel=1e-5)
                for found, expected in zip(
                    (part_facts.log_ratio_R, part_facts.entropy_R),
                    (facts.log_ratio_R, facts.entropy_R),
                    strict=True,
                ):
                    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0, equal_nan=True)
            wholes.append(whole)
        # norms are computed in single precision whatever the model's
        assert relative(*wholes) < 5e-6
    finally:
        policy.to(torch.float32)


@pytest.mark.parametrize("kl", FORMS)
@pytest.mark.parametrize("shared", [True, False], ids=["tree", "rows"])
def test_the_gradient_is_that_of_the_formula_written_out(policy, played, kl, shared):
    settings = LossSettings(beta=0.3, kl=kl, alpha_ch=0.4)
    advantages = Paper().advantages(played)
    ours, _, _ = gradient(policy, played, settings, 300, advantages, shared)
    plain = plain_gradient(policy, played, settings, advantages)
    # the engine's log-probs of the sampled tokens differ from the trainer's by rounding
    assert relative(ours, plain) < 2e-5


def test_both_roles_have_their_part_and_alpha_ch_weighs_the_challengers(policy, played):
    def of(alpha):
        return gradient(policy, played, LossSettings(0.3, "k1_in_reward", alpha), ALL_AT_ONCE)[0]

    solver, both = of(0.0), of(1.0)
    challenger = both - solver
    assert challenger.norm() > 0.01 * solver.norm()
    assert relative(of(0.25), solver + 0.25 * challenger) < 1e-5


def test_with_alpha_ch_zero_the_solver_alone_is_trained(policy, played):
    settings = LossSettings(0.3, "k2_loss", 0.0)
    advantages = Paper().advantages(played)
    ours, _, _ = gradient(policy, played, settings, 300, advantages)
    # the same answers, as if the queries had come from a file
    answers_only = replace(played, playout=replace(played.playout, written=None))
    alone = plain_gradient(
        policy,
        answers_only,
        LossSettings(0.3, "k2_loss", 1.0),
        Advantages(advantages.solver_NG, None),
    )
    assert relative(ours, alone) < 2e-5


def test_constant_rewards_without_a_kl_term_give_no_gradient(policy, played):
    for constant in (0.0, 1.0):
        flat = replace(played, rewards_NG=torch.full_like(played.rewards_NG, constant))
        vector, facts, _ = gradient(policy, flat, LossSettings(0.0, "k1_in_reward", 1.0), 300)
        assert float(vector.norm()) == 0
        assert facts.loss == 0


def test_at_beta_zero_the_form_of_the_kl_term_does_not_matter(policy, played):
    gradients = [
        gradient(policy, played, LossSettings(0.0, kl, 1.0), ALL_AT_ONCE)[0] for kl in FORMS
    ]
    assert all(torch.equal(g, gradients[0]) for g in gradients)


def test_constant_rewards_with_a_kl_term_pull_towards_the_reference(policy, played):
    flat = replace(played, rewards_NG=torch.zeros_like(played.rewards_NG))
    settings = LossSettings(0.3, "k2_loss", 1.0)
    vector, facts, _ = gradient(policy, flat, settings, ALL_AT_ONCE)
    trained = [p for p in policy.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(trained) - 1e-4 * vector.float() / vector.norm(),
            trained,
        )
    batches = pack(flat, policy.pad_id, ALL_AT_ONCE)
    with torch.no_grad():
        moved = sum(
            (policy.completion_logprobs(b)[0].sum(1) - policy.reference_logprobs(b).sum(1))
            .square()
            .sum()
            for b in batches
        )
        for parameter, old in zip(trained, before, strict=True):
            parameter.copy_(old)
    assert moved < facts.log_ratio_R.square().sum()


def test_the_kl_estimate_is_the_log_ratio_of_what_was_sampled(policy, played):
    _, facts, _ = gradient(policy, played, LossSettings(0.3, "k1_in_reward", 1.0), 300)
    with policy.reference() as model:
        references = [plain_logprobs(model, *row).sum() for row in completions(played)]
    sampled = torch.stack([row.sum() for row in sampled_logprobs(played)])
    torch.testing.assert_close(
        facts.log_ratio_R, sampled - torch.stack(references), atol=1e-3, rtol=1e-4
    )
    assert facts.log_ratio_R.abs().max() > 0.1


def test_at_the_start_of_training_the_log_ratio_is_zero(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder)
    _, facts, _ = gradient(
        policy, tiny_round(policy), LossSettings(0.1, "k1_in_reward", 1.0), ALL_AT_ONCE
    )
    assert facts.log_ratio_R.abs().max() < 1e-3


def test_a_round_from_a_file_trains_the_solver_alone(policy, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps({"query": f"question {i}"}) + "\n" for i in range(5)))
    played = tiny_round(policy, n=3, g=4, source=PromptFile(str(path)))
    assert not played.trains_challenger
    assert role_rows(played) == {Role.SOLVER: slice(0, 12)}
    settings = LossSettings(0.3, "k1_in_reward", 0.4)
    advantages = Paper().advantages(played)
    assert advantages.challenger_C is None
    ours, facts, _ = gradient(policy, played, settings, 200, advantages)
    assert set(facts.roles) == {Role.SOLVER}
    assert relative(ours, plain_gradient(policy, played, settings, advantages)) < 2e-5


def test_the_quality_reward_reaches_both_roles(policy, played):
    """Q alone: with R constant, what is left of either role's advantage comes from Q."""
    judge = SelfReward()
    judge.connect(FrozenPlayer(policy))
    judged = tiny_round(policy, rewards=[VerifiableReward(Checksum(), weight=0.0), judge])
    assert judged.playout.query_texts == played.playout.query_texts
    advantages = Paper().advantages(judged)
    assert advantages.solver_NG.abs().max() > 0
    assert advantages.challenger_C.abs().max() > 0
    torch.testing.assert_close(advantages.solver_NG.sum(1), torch.zeros(4), atol=1e-6, rtol=0)


def test_a_group_that_nobody_could_judge_moves_neither_role(policy, played):
    judged_NG = torch.tensor([True, False, True, True]).unsqueeze(1).expand_as(played.rewards_NG)
    advantages = Paper().advantages(replace(played, judged_NG=judged_NG))
    assert (advantages.solver_NG[1] == 0).all()
    assert advantages.challenger_C[1] == 0
    assert float(advantages.challenger_C.sum()) == pytest.approx(0, abs=1e-6)


# -- a gate ----------------------------------------------------------------------------------------


def gated(played):
    """The round as a gate would leave it: one query refused, one outside of the range, a replay.

    Rows of the Challenger: query 0, a refused one, query 1, and query 3, which was not answered.
    The third query answered comes from a pool.
    """
    playout, g = played.playout, played.playout.group_size
    kept = torch.tensor([i * g + j for i in (0, 2, 1) for j in range(g)])
    answers = playout.answers
    changes = {
        f.name: getattr(answers, f.name)[kept]
        for f in fields(answers)
        if isinstance(getattr(answers, f.name), torch.Tensor)
    }
    texts = tuple(answers.texts[i] for i in kept.tolist())
    readings = tuple(answers.readings[i] for i in kept.tolist())
    return replace(
        played,
        playout=replace(
            playout,
            query_texts=tuple(playout.query_texts[i] for i in (0, 2, 1)),
            answers=replace(answers, texts=texts, readings=readings, **changes),
            written=replace(
                playout.written,
                answered_C=torch.tensor([0, -1, 1, -1]),
                valid_C=torch.ones(4, dtype=torch.bool),
                refused={1: Refused("x", "malformed"), 3: Refused("y", "malformed")},
            ),
        ),
        rewards_NG=torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]),
        judged_NG=torch.ones((3, 3), dtype=torch.bool),
        admitted_N=torch.tensor([True, False, True]),
        binary=True,
    )


@pytest.mark.parametrize("kl", FORMS)
def test_the_gradient_of_a_gated_round_is_that_of_the_admitted_answers(policy, played, kl):
    """Divided by the planned N G, and for the Challenger by all rows that it wrote.

    The KL term is centred over the admitted answers.
    """
    settings, left = LossSettings(beta=0.3, kl=kl, alpha_ch=0.4), gated(played)
    advantages = Learnability().advantages(left)
    # 4 V (1 - V) of V = 1/3 is 8/9; the others earn the least, 0: around 2/9
    torch.testing.assert_close(advantages.challenger_C * 9, torch.tensor([6.0, -2.0, -2.0, -2.0]))
    policy.to(torch.float64)
    try:
        plain = plain_gradient(policy, left, settings, advantages)
        for shared in (True, False):
            found, _, _ = gradient(policy, left, settings, 300, advantages, shared)
            assert relative(found, plain) < 2e-6  # log-probs are compared in single precision
    finally:
        policy.to(torch.float32)


@pytest.mark.parametrize("kl", FORMS)
def test_what_the_gate_shut_out_is_no_part_of_the_solvers_loss(policy, played, kl):
    """As if the query had never been answered."""
    settings, left = LossSettings(beta=0.3, kl=kl, alpha_ch=0.0), gated(played)
    found, _, batches = gradient(policy, left, settings, ALL_AT_ONCE, shared=False)
    rows = sorted(row for batch in batches for row in batch.rows.tolist())
    assert rows == [4, 5, 6, 10, 11, 12]
    answers, kept = left.playout.answers, [0, 1, 2, 6, 7, 8]
    changes = {
        f.name: getattr(answers, f.name)[kept]
        for f in fields(answers)
        if isinstance(getattr(answers, f.name), torch.Tensor)
    }
    texts, readings = (tuple(x[i] for i in kept) for x in (answers.texts, answers.readings))
    without = replace(
        left,
        playout=replace(
            left.playout,
            query_texts=left.playout.query_texts[::2],
            answers=replace(answers, texts=texts, readings=readings, **changes),
            written=replace(left.playout.written, answered_C=torch.tensor([0, -1, -1, -1])),
        ),
        rewards_NG=left.rewards_NG[::2],
        judged_NG=left.judged_NG[::2],
        admitted_N=None,
    )
    alone, _, _ = gradient(policy, without, settings, ALL_AT_ONCE, shared=False)
    assert relative(found, alone) < 1e-6


def test_rewards_of_a_query_outside_of_the_range_leave_no_trace(policy, played):
    settings, left = LossSettings(beta=0.3, kl="k1_in_reward", alpha_ch=0.4), gated(played)

    def of(row, objective=Learnability):
        rewards_NG = left.rewards_NG.clone()
        rewards_NG[1] = torch.tensor(row)
        found = replace(left, rewards_NG=rewards_NG)
        return gradient(policy, found, settings, 300, objective().advantages(found))[0]

    expected = of([0.0, 0.0, 0.0])
    # the same if all answers are right, where 4 V (1 - V) is 0 as well
    assert torch.equal(of([1.0, 1.0, 1.0]), expected)
    for objective in (Learnability, Paper):
        one = of([1.0, 0.0, 0.0], objective)
        assert torch.equal(of([0.0, 0.0, 1.0], objective), one)
    solver_alone = replace(settings, alpha_ch=0.0)
    for row in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]):
        rewards_NG = left.rewards_NG.clone()
        rewards_NG[1] = torch.tensor(row)
        found = gradient(policy, replace(left, rewards_NG=rewards_NG), solver_alone, 300)[0]
        assert torch.equal(found, gradient(policy, left, solver_alone, 300)[0])


@pytest.mark.parametrize("kl", FORMS)
def test_a_round_that_admits_nothing_trains_the_challenger_alone(policy, played, kl):
    nothing = replace(gated(played), admitted_N=torch.zeros(3, dtype=torch.bool))
    settings = LossSettings(beta=0.3, kl=kl, alpha_ch=0.4)
    advantages = Learnability().advantages(nothing)
    assert not advantages.rows().any()
    found, facts, _ = gradient(policy, nothing, settings, 300, advantages)
    assert facts.loss == facts.loss
    # what is left is the KL term of the written rows
    assert relative(found, plain_gradient(policy, nothing, settings, advantages)) < 2e-5
    without, _, _ = gradient(policy, nothing, replace(settings, alpha_ch=0.0), 300, advantages)
    assert not without.any()


@pytest.mark.parametrize("kl", ["k1_in_reward", "k2_loss"])
def test_a_gate_that_admits_all_changes_no_bit_of_the_gradient(policy, played, kl):
    settings = LossSettings(beta=0.3, kl=kl, alpha_ch=0.4)
    within = replace(played, admitted_N=torch.ones(4, dtype=torch.bool))
    assert torch.equal(
        gradient(policy, within, settings, 300)[0], gradient(policy, played, settings, 300)[0]
    )


# -- packing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["tree", "rows"])
@pytest.mark.parametrize("budget", [1, 40, 150, 400, ALL_AT_ONCE])
def test_packing_holds_every_completion_once_within_the_budget(policy, played, budget, shared):
    rows = completions(played)
    batches = pack(played, policy.pad_id, budget, shared)
    packed = [row for batch in batches for row in batch.rows.tolist()]
    assert sorted(packed) == list(range(len(rows)))
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.rows) == 1
        flat = batch.input_ids.flatten()
        for c, row in enumerate(batch.rows.tolist()):
            prompt, completion, rollouts = rows[row]
            sources = batch.sources[c][batch.mask[c]]
            assert batch.targets[c][batch.mask[c]].tolist() == completion.tolist()
            # the last token predicts nothing, and the first is predicted by the prompt's last
            assert flat[sources[0]] == prompt[-1]
            assert flat[sources[1:]].tolist() == completion[:-1].tolist()
            assert float(batch.temperature[c]) == pytest.approx(rollouts.temperature)


def test_as_a_tree_each_prompt_is_there_once(policy, played):
    (batch,) = pack(played, policy.pad_id, ALL_AT_ONCE, shared=True)
    rows = [[*p.tolist(), *c.tolist()[:-1]] for p, c, _ in completions(played)]
    beginnings = {tuple(row[:k]) for row in rows for k in range(1, len(row) + 1)}
    apart = sum(map(len, rows))
    # at least a node for each different beginning; pieces too short to be shared are there twice
    assert len(beginnings) <= batch.input_ids.numel() < len(beginnings) + 3 * len(rows) < apart


def test_chosen_completions_alone_are_packed(policy, played):
    chosen = torch.zeros(16, dtype=torch.bool)
    chosen[[1, 4, 9]] = True
    for shared in (True, False):
        batches = pack(played, policy.pad_id, 400, shared, chosen)
        assert sorted(row for batch in batches for row in batch.rows.tolist()) == [1, 4, 9]


def trained_rows(policy, monkeypatch):
    """Completions that go through the policy's gradient pass from now on."""
    seen, whole = [], policy.completion_logprobs

    def look(batch):
        seen.extend(batch.rows.tolist())
        return whole(batch)

    monkeypatch.setattr(policy, "completion_logprobs", look)
    return seen


def test_completions_without_a_signal_are_skipped_and_change_nothing(policy, played, monkeypatch):
    """Without a KL term, what was as good as its group teaches nothing."""
    rewards_NG = played.rewards_NG.clone()
    rewards_NG[1] = 1.0
    flat = replace(played, rewards_NG=rewards_NG)
    advantages = Paper().advantages(flat)
    settings = LossSettings(0.0, "k1_in_reward", 1.0)
    expected = plain_gradient(policy, flat, settings, advantages)
    seen = trained_rows(policy, monkeypatch)
    found, facts, _ = gradient(policy, flat, settings, 300, advantages)
    without = set((advantages.rows() == 0).nonzero().squeeze(1).tolist())
    assert {4 + 3, 4 + 4, 4 + 5} <= without
    assert set(seen) == set(range(16)) - without
    assert relative(found, expected) < 2e-5
    # what was not looked at has no entropy; its KL is known from sampling
    assert set(facts.entropy_R.isnan().nonzero().squeeze(1).tolist()) == without
    assert facts.log_ratio_R.isfinite().all()


@pytest.mark.parametrize("kl", FORMS)
def test_with_a_kl_term_every_completion_has_a_signal(policy, played, kl, monkeypatch):
    flat = replace(played, rewards_NG=torch.zeros_like(played.rewards_NG))
    seen = trained_rows(policy, monkeypatch)
    gradient(policy, flat, LossSettings(0.1, kl, 1.0), ALL_AT_ONCE)
    assert sorted(seen) == list(range(16))


def test_an_advantage_that_is_not_a_number_is_not_skipped(policy, played):
    advantages = Paper().advantages(played)
    advantages.solver_NG[0, 0] = torch.nan
    found, _, _ = gradient(policy, played, LossSettings(0.0, "k1_in_reward", 1.0), 300, advantages)
    assert found.isnan().any()


def test_a_round_of_nothing_but_nan_is_not_taken_for_one_without_a_signal(
    policy, played, monkeypatch
):
    whole = policy.completion_logprobs

    def spoiled(batch):
        logprobs, entropies = whole(batch)
        return logprobs * torch.nan, entropies * torch.nan

    monkeypatch.setattr(policy, "completion_logprobs", spoiled)
    trained = [p for p in policy.parameters() if p.requires_grad]
    update = RoundUpdate(policy, LossSettings(0.1, "k1_in_reward", 1.0), TokenBudget("m", 10**6))
    facts, norm = update.gradient(
        played,
        Paper().advantages(played),
        torch.optim.SGD(trained, lr=1.0),
        lambda loss: loss.backward(),
        seed=0,
    )
    assert not torch.isfinite(norm)  # so the module skips it, and says so
    assert facts.loss != facts.loss


def test_masks_are_held_for_one_micro_batch_at_a_time(policy, played, monkeypatch):
    """Those of a whole round can take more than its largest micro-batch."""
    held, made = [], []
    whole = policy.completion_logprobs

    def counting(batch):
        made.append(weakref.ref(batch.attention))
        held.append(sum(attention() is not None for attention in made))
        return whole(batch)

    monkeypatch.setattr(policy, "completion_logprobs", counting)
    gradient(policy, played, LossSettings(0.1, "k3_loss", 1.0), 1)
    assert len(held) > 2
    assert max(held) <= 2  # the last one has its name until the next one has it


def test_a_round_without_any_signal_has_a_gradient_of_zero_and_not_none(policy, played):
    """Momentum goes on as if the pass had been made."""
    flat = replace(played, rewards_NG=torch.zeros_like(played.rewards_NG))
    trained = [p for p in policy.parameters() if p.requires_grad]
    update = RoundUpdate(policy, LossSettings(0.0, "k1_in_reward", 1.0), TokenBudget("m", 10**6))
    optimizer = torch.optim.SGD(trained, lr=1.0)
    facts, norm = update.gradient(
        flat, Paper().advantages(flat), optimizer, lambda loss: loss.backward(), seed=0
    )
    assert norm == 0
    assert all(p.grad is not None and not p.grad.any() for p in trained)
    assert facts.loss == 0


def test_the_sampled_logprobs_come_in_the_order_of_the_rows(played):
    playout, written = played.playout, played.playout.written.rollouts
    rows = sampled_logprobs(played)
    assert len(rows) == 4 + 12
    first_answer = playout.answers.logprobs[0][playout.answers.completion_mask[0]]
    assert torch.equal(rows[4], first_answer)
    first_query = written.logprobs[0][written.completion_mask[0]]
    assert torch.equal(rows[0], first_query)


# -- adapters that nothing goes through ------------------------------------------------------------


@pytest.mark.parametrize("bypassed", [True, False])
def test_adapters_that_training_goes_round_are_named_once(tiny_llama_folder, bypassed, recwarn):
    policy = make_policy(tiny_llama_folder)
    played = tiny_round(policy, n=2, g=2)
    if bypassed:  # some architectures read a layer's weight in training and do not call the layer
        layer = policy.causal_lm.model.layers[1].mlp.up_proj
        layer.forward = layer.base_layer.forward
    trained = [p for p in policy.parameters() if p.requires_grad]
    update = RoundUpdate(policy, LossSettings(0.1, "k1_in_reward", 1.0), TokenBudget("m", 10**6))
    for _ in range(2):
        update.gradient(
            played,
            Paper().advantages(played),
            torch.optim.SGD(trained, lr=1.0),
            lambda loss: loss.backward(),
            seed=0,
        )
    told = [str(w.message) for w in recwarn if "receive no gradient" in str(w.message)]
    assert len(told) == int(bypassed)
    assert all("layers.1.mlp.up_proj and 0 more" in line for line in told)


@pytest.mark.parametrize("name", ["beta", "alpha_ch", "max_grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "1", None])
def test_a_setting_of_the_loss_that_is_no_number_in_range_is_refused(name, value):
    settings = {"beta": 0.1, "kl": "k2_loss", "alpha_ch": 1.0, name: value}
    if (name, value) == ("max_grad_norm", None):
        assert LossSettings(**settings).max_grad_norm is None
        return
    with pytest.raises(ConfigError, match=rf"^model\.{name}: is .*; set a finite number"):
        LossSettings(**settings)
