"""Importance weights: values by hand, and their effect on a gradient by enumeration."""

import itertools
import math

import pytest
import torch

from lsp_lightning.functional.importance import truncated_importance_weights as weights

ALL = torch.ones(1, 4, dtype=torch.bool)


def test_weights_by_hand():
    trainer = torch.tensor([[0.5, 0.2, 0.9, 0.1]]).log()
    sampler = torch.tensor([[0.5, 0.4, 0.3, 0.4]]).log()
    # ratios 1, 1/2, 3, 1/4; the third is capped
    found = weights(trainer, sampler, ALL, cap=2.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.5, 2.0, 0.25]]))
    found = weights(trainer, sampler, ALL, cap=math.inf)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.5, 3.0, 0.25]]))


def test_weights_are_1_where_both_agree():
    logprobs = torch.randn(3, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(weights(logprobs, logprobs, mask, 1.0), torch.ones(3, 5))


def test_padding_has_weight_0_whatever_it_holds():
    trainer = torch.tensor([[-1.0, math.nan, math.inf, 0.0]])
    sampler = torch.tensor([[-1.0, 0.0, -math.inf, math.nan]])
    mask = torch.tensor([[True, False, False, False]])
    assert weights(trainer, sampler, mask, 2.0).tolist() == [[1, 0, 0, 0]]


def test_tokens_without_sampled_logprobs_have_weight_1():
    sampler = torch.tensor([[math.nan, -2.0, math.nan, -1.0]])
    found = weights(torch.full((1, 4), -1.0), sampler, ALL, cap=8.0)
    torch.testing.assert_close(found, torch.tensor([[1.0, math.e, 1.0, 1.0]]))


def test_a_ratio_that_overflows_is_capped():
    sampler = torch.full((1, 4), -9000.0)
    assert weights(torch.zeros(1, 4), sampler, ALL, cap=5.0).tolist() == [[5.0] * 4]


def test_no_gradient_flows_through_a_weight():
    trainer = torch.zeros(1, 4, requires_grad=True)
    assert not weights(trainer, torch.ones(1, 4), ALL, 2.0).requires_grad


@pytest.mark.parametrize("cap", [0.5, -1.0, math.nan])
def test_a_cap_below_one_is_refused(cap):
    with pytest.raises(ValueError, match="cap"):
        weights(torch.zeros(1, 4), torch.zeros(1, 4), ALL, cap)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        weights(torch.zeros(1, 4), torch.zeros(1, 3), ALL, 2.0)


POLICY = torch.tensor([0.3, -0.8, 1.1, 0.2], dtype=torch.float64)
SAMPLER = torch.tensor([-0.4, 0.9, 0.1, -1.2], dtype=torch.float64).log_softmax(0)
REWARDS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


def expected_gradient(cap):
    """The gradient of the weighted reward, over all tokens that the sampler could draw."""
    logits = POLICY.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    tokens = torch.arange(4)
    mask = torch.ones(4, 1, dtype=torch.bool)
    w = weights(logprobs[tokens, None], SAMPLER[tokens, None], mask, cap)[:, 0]
    (SAMPLER.exp() * w * REWARDS * logprobs).sum().backward()
    return logits.grad


def true_gradient():
    """The gradient of the policy's expected reward."""
    logits = POLICY.clone().requires_grad_()
    (logits.softmax(0) * REWARDS).sum().backward()
    return logits.grad


def test_untruncated_weights_give_the_policys_gradient():
    torch.testing.assert_close(expected_gradient(math.inf), true_gradient(), atol=1e-6, rtol=1e-6)
    # with all weights at most 1, it is another gradient
    assert not torch.allclose(expected_gradient(1.0), true_gradient(), atol=0.1)


def test_the_bias_of_a_cap_is_exactly_what_it_cuts_off():
    logits = POLICY.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    ratio = (logprobs.detach() - SAMPLER).exp()
    assert (ratio > 2).any(), "no ratio exceeds the cap, so this tests nothing"
    cut = (ratio - 2.0).clamp_min(0)
    (SAMPLER.exp() * cut * REWARDS * logprobs).sum().backward()
    bias = true_gradient() - expected_gradient(2.0)
    torch.testing.assert_close(bias, logits.grad, atol=1e-6, rtol=1e-6)


def test_for_two_tokens_only_the_product_of_both_weights_is_exact():
    """As the docstring says of longer completions. The policy is the same at both tokens."""
    pairs = torch.tensor(list(itertools.product(range(4), repeat=2)))
    rewards = (REWARDS[pairs[:, 0]] - 1) * REWARDS[pairs[:, 1]]
    drawn = SAMPLER[pairs].sum(1).exp()

    def gradient(weigh):
        logits = POLICY.clone().requires_grad_()
        logprobs = logits.log_softmax(0)[pairs]
        w = weights(logprobs, SAMPLER[pairs], torch.ones(16, 2, dtype=torch.bool), math.inf)
        (drawn[:, None] * weigh(w) * rewards[:, None] * logprobs).sum().backward()
        return logits.grad

    logits = POLICY.clone().requires_grad_()
    (logits.log_softmax(0)[pairs].sum(1).exp() * rewards).sum().backward()
    whole = gradient(lambda w: w.prod(dim=1, keepdim=True).expand_as(w))
    torch.testing.assert_close(whole, logits.grad, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(gradient(lambda w: w), logits.grad, atol=0.05)
