"""The loss: its policy gradient, the weights of the two roles, and the KL term."""

import itertools

import pytest
import torch
from tabular import COMPLETIONS, Tabular

from lsp_lightning import functional as F

COUNT = len(COMPLETIONS)
MASK = torch.ones_like(COMPLETIONS, dtype=torch.bool)
REWARDS = torch.linspace(-1, 2, COUNT, dtype=torch.float64)  # any reward for each completion


@pytest.fixture
def policy() -> Tabular:
    return Tabular()


def exact_gradient(policy: Tabular) -> torch.Tensor:
    """grad sum_y pi(y) R(y)."""
    return policy.gradient((policy.logprobs().sum(1).exp() * REWARDS).sum())


def test_expected_gradient_is_minus_the_policy_gradient(policy):
    loss = F.selfplay_loss(
        policy.logprobs(), policy.ref_logprobs(), MASK, REWARDS, policy.probs(), beta=0.0
    )
    torch.testing.assert_close(policy.gradient(loss), -exact_gradient(policy))


@pytest.mark.parametrize("group_size", [2, 3])
def test_group_advantages_give_that_gradient_times_g_minus_1_over_g(policy, group_size):
    # the group's mean includes the sample itself, as in the paper
    logprobs, probs = policy.logprobs(), policy.probs()
    expected = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(COUNT), repeat=group_size):
        rows = list(group)
        advantages = F.solver_advantages(REWARDS[rows].unsqueeze(0)).squeeze(0)
        weights = torch.full_like(advantages, F.row_weights(1, group_size, 1.0)[1])
        loss = F.selfplay_loss(
            logprobs[rows], logprobs[rows].detach(), MASK[rows], advantages, weights, beta=0.0
        )
        expected = expected + probs[rows].prod() * loss
    share = (group_size - 1) / group_size
    torch.testing.assert_close(policy.gradient(expected), -share * exact_gradient(policy))


def test_at_ratio_one_the_value_is_minus_the_weighted_advantage_of_each_token():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logprobs = -torch.rand(2, 3)
    loss = F.selfplay_loss(
        logprobs, logprobs, mask, torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]), beta=0.3
    )
    # 3 tokens * 2 * 0.5 = 3 and 1 token * -1 * 3 = -3
    assert loss.item() == pytest.approx(0.0)
    loss = F.selfplay_loss(
        logprobs, logprobs, mask, torch.tensor([2.0, 1.0]), torch.tensor([0.5, 3.0]), beta=0.3
    )
    assert loss.item() == pytest.approx(-6.0)


def test_the_gradient_of_each_token_is_minus_weight_times_advantage():
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    F.selfplay_loss(
        logprobs, logprobs.detach(), mask, torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]), 0.0
    ).backward()
    # d/dlogprob of -w * ratio * A at ratio 1: -w A on the mask, nothing on padding
    expected = torch.tensor([[-1.0, -1.0, -1.0], [3.0, 0.0, 0.0]])
    torch.testing.assert_close(logprobs.grad, expected)


@pytest.mark.parametrize("alpha_ch", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("num_queries", "group_size"), [(1, 1), (3, 4), (8, 8)])
def test_row_weights_sum_to_one_for_the_solver_and_alpha_for_the_challenger(
    num_queries, group_size, alpha_ch
):
    challenger, solver = F.row_weights(num_queries, num_queries * group_size, alpha_ch)
    assert num_queries * challenger == pytest.approx(alpha_ch)
    assert num_queries * group_size * solver == pytest.approx(1.0)


def test_without_written_queries_the_solver_keeps_its_weight():
    assert F.row_weights(0, 4, 1.0)[1] == 0.25


def test_the_loss_of_a_round_is_the_solvers_mean_plus_alpha_times_the_challengers(policy):
    # N = 2 queries, G = 2 answers: rows 0, 1 are queries and 2 to 5 answers
    n, g, alpha = 2, 2, 0.25
    logprobs, rows = policy.logprobs(), torch.tensor([0, 4, 1, 2, 7, 8])
    advantages = torch.tensor([0.5, -0.5, 1.0, -1.0, 0.25, -0.25], dtype=torch.float64)
    challenger, solver = F.row_weights(n, n * g, alpha)
    weights = torch.tensor([challenger] * n + [solver] * n * g, dtype=torch.float64)
    loss = F.selfplay_loss(
        logprobs[rows], logprobs[rows].detach(), MASK[rows], advantages, weights, beta=0.0
    )
    surrogate = -(advantages * logprobs[rows].sum(1))
    by_hand = surrogate[2:].mean() + alpha * surrogate[:2].mean()
    torch.testing.assert_close(policy.gradient(loss), policy.gradient(by_hand))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("kl", ["k1_in_reward", "k2_loss", "k3_loss", "k1_loss"])
def test_micro_batches_of_any_size_add_up_to_the_full_batch(policy, size, kl):
    logprobs, ref = policy.logprobs(), policy.ref_logprobs()
    weights = torch.full((COUNT,), 1 / COUNT)

    def of(rows):
        return F.selfplay_loss(
            logprobs[rows], ref[rows], MASK[rows], REWARDS[rows], weights[rows], beta=0.7, kl=kl
        )

    parts = sum(of(rows) for rows in torch.arange(COUNT).split(size))
    torch.testing.assert_close(parts, of(torch.arange(COUNT)))
    torch.testing.assert_close(policy.gradient(parts), policy.gradient(of(torch.arange(COUNT))))


@pytest.mark.parametrize(
    ("kl", "term"), [("k1_loss", F.k1_loss), ("k2_loss", F.k2_loss), ("k3_loss", F.k3_loss)]
)
def test_a_loss_form_is_multiplied_by_row_weight_and_beta(policy, kl, term):
    logprobs, ref = policy.logprobs(), policy.ref_logprobs()
    weights = torch.linspace(0.1, 1, COUNT, dtype=torch.float64)
    without = F.selfplay_loss(logprobs, ref, MASK, REWARDS, weights, beta=0.0, kl=kl)
    loss = F.selfplay_loss(logprobs, ref, MASK, REWARDS, weights, beta=0.7, kl=kl)
    penalty = 0.7 * (weights * term(logprobs, ref, MASK)).sum()
    torch.testing.assert_close(loss, without + penalty)
    torch.testing.assert_close(policy.gradient(loss), policy.gradient(without + penalty))


def test_k1_in_reward_is_not_subtracted_a_second_time(policy):
    # the advantages already contain it
    logprobs, weights = policy.logprobs(), policy.probs()
    losses = [
        F.selfplay_loss(logprobs, policy.ref_logprobs(), MASK, REWARDS, weights, beta=beta)
        for beta in (0.0, 5.0)
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_expected_gradient_with_k2_is_that_of_reward_minus_beta_kl(policy):
    loss = F.selfplay_loss(
        policy.logprobs(),
        policy.ref_logprobs(),
        MASK,
        REWARDS,
        policy.probs(),
        beta=0.3,
        kl="k2_loss",
    )
    expected = -exact_gradient(policy) + 0.3 * policy.gradient(policy.kl())
    torch.testing.assert_close(policy.gradient(loss), expected)


@pytest.mark.parametrize("kl", ["k1_in_reward", "k3_loss"])
@pytest.mark.parametrize("rubbish", [float("-inf"), float("nan")])
def test_padding_changes_nothing_whatever_it_holds(kl, rubbish):
    logprobs = torch.tensor([[-1.0, rubbish]], requires_grad=True)
    ref = torch.tensor([[-1.5, rubbish]])
    one = torch.ones(1)
    loss = F.selfplay_loss(logprobs, ref, torch.tensor([[True, False]]), one, one, beta=0.5, kl=kl)
    plain = F.selfplay_loss(
        logprobs[:, :1], ref[:, :1], torch.tensor([[True]]), one, one, beta=0.5, kl=kl
    )
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert logprobs.grad[0, 1] == 0


def test_wrong_shapes_are_refused():
    x, one = torch.zeros(2, 3), torch.ones(2)
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        F.selfplay_loss(x, x[:, :2], x.bool(), one, one, 0.0)
    with pytest.raises(ValueError, match=r"shape \(B,\)"):
        F.selfplay_loss(x, x, x.bool(), one[:1], one, 0.0)
    with pytest.raises(ValueError, match=r"shape \(B,\)"):
        F.selfplay_loss(x, x, x.bool(), one, one.unsqueeze(1), 0.0)
