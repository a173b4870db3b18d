"""The expected gradient of each KL form, by enumeration, compared with the exact gradient.

"Expected" is over the completions that the policy samples, at ratio 1. Nothing is sampled here:
every completion of a tiny tabular policy is weighted by its probability.
"""

import itertools

import pytest
import torch
from tabular import COMPLETIONS, VOCABULARY, Tabular

from lsp_lightning import functional as F

MASK = torch.ones_like(COMPLETIONS, dtype=torch.bool)


@pytest.fixture
def policy() -> Tabular:
    return Tabular()


def expected_term_gradient(policy: Tabular, form, **kwargs) -> torch.Tensor:
    """sum_y pi(y) grad term(y), the probabilities detached: what the trainer descends."""
    terms = form(policy.logprobs(), policy.ref_logprobs(), MASK, **kwargs)
    return policy.gradient((policy.probs() * terms).sum())


def expected_reward_gradient(policy: Tabular, n: int) -> torch.Tensor:
    """Expected gradient of the loss with ``k1_in_reward`` in the advantage and beta 1.

    The expectation is over all batches of n independent completions.
    """
    logprobs, ref, probs = policy.logprobs(), policy.ref_logprobs(), policy.probs()
    expected_loss = torch.zeros((), dtype=torch.float64)
    for batch in itertools.product(range(len(COMPLETIONS)), repeat=n):
        rows = list(batch)
        chance = probs[rows].prod()
        penalty = F.k1_in_reward(F.sequence_log_ratio(logprobs[rows], ref[rows], MASK[rows]))
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        loss = F.selfplay_loss(
            logprobs[rows], ref[rows], MASK[rows], -penalty, weights, beta=1.0, kl="k1_in_reward"
        )
        expected_loss = expected_loss + chance * loss
    return policy.gradient(expected_loss)


def test_the_exact_gradients_differ_so_that_the_forms_can_be_told_apart(policy):
    kl, reverse = policy.gradient(policy.kl()), policy.gradient(policy.reverse_kl())
    assert kl.norm() > 0.1
    assert (kl - reverse).norm() > 0.1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_k1_in_reward_has_the_gradient_of_kl_from_policy_to_reference(policy, n):
    gradient = expected_reward_gradient(policy, n)
    torch.testing.assert_close(gradient, policy.gradient(policy.kl()))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_against_the_reward_beta_acts_as_beta_times_n_over_n_minus_1(policy, n, beta):
    # the reward's baseline contains the sample itself, that of the KL term does not
    reward = torch.tensor([0.3, 1.0, -2.0, 0.5, 0.0, 4.0, 1.5, -0.2, 0.9], dtype=torch.float64)
    logprobs, ref, probs = policy.logprobs(), policy.ref_logprobs(), policy.probs()
    expected_loss = torch.zeros((), dtype=torch.float64)
    for batch in itertools.product(range(len(COMPLETIONS)), repeat=n):
        rows = list(batch)
        penalty = F.k1_in_reward(F.sequence_log_ratio(logprobs[rows], ref[rows], MASK[rows]))
        advantages = F.solver_advantages(reward[rows][None])[0] - beta * penalty
        weights = torch.full((n,), 1 / n, dtype=torch.float64)
        loss = F.selfplay_loss(logprobs[rows], ref[rows], MASK[rows], advantages, weights, beta)
        expected_loss = expected_loss + probs[rows].prod() * loss
    value = (policy.logprobs().sum(1).exp() * reward).sum()
    acting = beta * n / (n - 1)
    expected = -(n - 1) / n * policy.gradient(value - acting * policy.kl())
    torch.testing.assert_close(policy.gradient(expected_loss), expected)


def test_k1_in_reward_is_twice_plain_centring_for_two_samples(policy):
    # plain centring gives (n - 1) / n of leave-one-out: one half with n = 2
    d = torch.tensor([0.3, 1.1])
    torch.testing.assert_close(0.5 * F.k1_in_reward(d), d - d.mean())


def test_k1_in_reward_is_each_value_minus_the_mean_of_the_others():
    # (1, 2, 6): 1 - 4, 2 - 3.5, 6 - 1.5
    penalty = F.k1_in_reward(torch.tensor([1.0, 2.0, 6.0]))
    torch.testing.assert_close(penalty, torch.tensor([-3.0, -1.5, 4.5]))


def test_k1_in_reward_carries_no_gradient_itself():
    assert not F.k1_in_reward(torch.ones(3, requires_grad=True)).requires_grad


def test_k2_on_the_sequence_has_the_gradient_of_kl_from_policy_to_reference(policy):
    gradient = expected_term_gradient(policy, F.k2_loss)
    torch.testing.assert_close(gradient, policy.gradient(policy.kl()))


def test_k3_on_the_sequence_has_the_gradient_of_the_other_direction(policy):
    gradient = expected_term_gradient(policy, F.k3_loss, per_token=False)
    torch.testing.assert_close(gradient, policy.gradient(policy.reverse_kl()))


def test_k3_per_token_has_the_gradient_of_the_other_direction_at_each_sampled_prefix(policy):
    log_pi, log_ref = policy.logits.log_softmax(1), policy.ref_logits.log_softmax(1)
    # KL(ref(.|prefix) || pi(.|prefix)): row 0 the empty prefix, row 1 + y_1 after the token y_1
    conditional = (log_ref.exp() * (log_ref - log_pi)).sum(1)
    prefix_chance = torch.cat([torch.ones(1, dtype=torch.float64), log_pi[0].exp()]).detach()
    assert conditional.shape == prefix_chance.shape == (1 + VOCABULARY,)
    expected = policy.gradient((prefix_chance * conditional).sum())
    torch.testing.assert_close(expected_term_gradient(policy, F.k3_loss), expected)


def test_k3_times_the_ratio_has_the_gradient_from_policy_to_reference_at_each_prefix(policy):
    """The form of trainers with ``use_bias_correction_kl``; the package has none like it."""

    def with_ratio(logprobs, ref, mask):
        d = logprobs - ref
        return ((logprobs - logprobs.detach()).exp() * (torch.exp(-d) - 1 + d)).sum(1)

    log_pi, log_ref = policy.logits.log_softmax(1), policy.ref_logits.log_softmax(1)
    conditional = (log_pi.exp() * (log_pi - log_ref)).sum(1)
    prefix_chance = torch.cat([torch.ones(1, dtype=torch.float64), log_pi[0].exp()]).detach()
    expected = policy.gradient((prefix_chance * conditional).sum())
    torch.testing.assert_close(expected_term_gradient(policy, with_ratio), expected)


def test_k3_per_token_and_on_the_sequence_differ(policy):
    per_token = expected_term_gradient(policy, F.k3_loss)
    on_sequence = expected_term_gradient(policy, F.k3_loss, per_token=False)
    assert (per_token - on_sequence).norm() > 0.01


def test_k1_as_printed_has_expected_gradient_0_but_moves_every_sample(policy):
    gradient = expected_term_gradient(policy, F.k1_loss)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    one = F.k1_loss(policy.logprobs()[:1], policy.ref_logprobs()[:1], MASK[:1]).sum()
    assert policy.gradient(one).norm() > 0.1


def test_terms_by_hand():
    logprobs, ref = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.5]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    # d = (1, -1/2), on the sequence 1/2
    assert F.sequence_log_ratio(logprobs, ref, mask).item() == pytest.approx(0.5)
    assert F.k1_loss(logprobs, ref, mask).item() == pytest.approx(0.5)
    assert F.k2_loss(logprobs, ref, mask).item() == pytest.approx(0.125)
    e = torch.e
    per_token = (e**-1 - 1 + 1) + (e**0.5 - 1 - 0.5)
    assert F.k3_loss(logprobs, ref, mask).item() == pytest.approx(per_token)
    on_sequence = e**-0.5 - 1 + 0.5
    assert F.k3_loss(logprobs, ref, mask, per_token=False).item() == pytest.approx(on_sequence)


class TwoRoles:
    """A round of two queries (one bit each) with one answer each (one bit), enumerated.

    The policy's tables are logits of "1": one for the query, one for the answer to each query. The
    answers' log-ratios depend on the query, and therefore a shared baseline is wrong.
    """

    def __init__(self) -> None:
        self.query = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
        self.answer = torch.tensor([1.5, -0.3], dtype=torch.float64, requires_grad=True)
        self.ref_query = torch.tensor([-0.2], dtype=torch.float64)
        self.ref_answer = torch.tensor([-1.0, 0.1], dtype=torch.float64)

    @staticmethod
    def logprob(logit, bit):
        return torch.nn.functional.logsigmoid(logit if bit else -logit)

    def expected_gradients(self, per_role: bool):
        """Expected gradients (query table, answer table) of the two roles' mean losses, beta 1."""
        expected = torch.zeros((), dtype=torch.float64)
        for q1, q2, a1, a2 in itertools.product((0, 1), repeat=4):
            queries = [(self.query[0], self.ref_query[0], q) for q in (q1, q2)]
            answers = [(self.answer[q], self.ref_answer[q], a) for q, a in ((q1, a1), (q2, a2))]
            logprobs = torch.stack([self.logprob(x, bit) for x, _, bit in queries + answers])
            ref = torch.stack([self.logprob(x, bit) for _, x, bit in queries + answers])
            d = logprobs - ref
            if per_role:
                penalty = torch.cat([F.k1_in_reward(d[:2]), F.k1_in_reward(d[2:])])
            else:
                penalty = F.k1_in_reward(d)
            chance = logprobs.sum().exp().detach()
            expected = expected + chance * (penalty * logprobs).sum() / 2
        return torch.autograd.grad(expected, (self.query, self.answer))

    def exact_gradients(self):
        """grad KL of the query, and of the answer with queries drawn from the policy."""

        def kl(logit, ref):
            return sum(
                self.logprob(logit, b).exp() * (self.logprob(logit, b) - self.logprob(ref, b))
                for b in (0, 1)
            )

        asked = [self.logprob(self.query[0], q).exp().detach() for q in (0, 1)]
        of_query = kl(self.query[0], self.ref_query[0])
        of_answer = sum(asked[q] * kl(self.answer[q], self.ref_answer[q]) for q in (0, 1))
        (query,) = torch.autograd.grad(of_query, self.query)
        (answer,) = torch.autograd.grad(of_answer, self.answer)
        return query, answer


def test_centred_per_role_each_role_gets_its_kl_gradient():
    game = TwoRoles()
    query, answer = game.expected_gradients(per_role=True)
    exact_query, exact_answer = game.exact_gradients()
    torch.testing.assert_close(query, exact_query)
    torch.testing.assert_close(answer, exact_answer)


def test_centred_together_the_challenger_is_biased():
    # a query's baseline would contain the log-ratio of the answer to this query
    game = TwoRoles()
    query, _ = game.expected_gradients(per_role=False)
    assert (query - game.exact_gradients()[0]).abs().item() > 0.01


@pytest.mark.parametrize("form", [F.k1_loss, F.k2_loss, F.k3_loss, F.sequence_log_ratio])
@pytest.mark.parametrize("rubbish", [float("inf"), float("-inf"), float("nan")])
def test_padding_changes_nothing_whatever_it_holds(form, rubbish):
    logprobs, ref = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    padded = torch.cat([logprobs, torch.full((1, 2), rubbish)], 1).requires_grad_()
    padded_ref = torch.cat([ref, torch.full((1, 2), rubbish)], 1)
    mask = torch.tensor([[True, True, False, False]])
    plain = form(logprobs, ref, mask[:, :2])
    term = form(padded, padded_ref, mask)
    torch.testing.assert_close(term, plain)
    term.sum().backward()
    assert padded.grad[0, 2:].tolist() == [0.0, 0.0]
    assert padded.grad.isfinite().all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(n, T\), got \(2, 3\), \(2, 2\), \(2, 3\)"):
        F.sequence_log_ratio(torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(n,\), got \(2, 3\)"):
        F.k1_in_reward(torch.zeros(2, 3))
