"""Chunked log-probs are the plain ones, and the whole matrix of logits never exists."""

import pytest
import torch
from torch import nn

from lsp_lightning.functional import token_logprobs

M, H, V = 23, 6, 11
CHUNKS = [1, 4, 22, 23, 1000]


class CountingHead(nn.Module):
    """A linear head that remembers how many rows it was ever given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, V, bias=False)
        self.rows: list[int] = []

    def forward(self, hidden):
        self.rows.append(hidden.shape[0])
        return self.linear(hidden)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    hidden = torch.randn(M, H, requires_grad=True)
    targets = torch.randint(V, (M,))
    temperature = torch.linspace(0.3, 1.7, M)  # two roles may be sampled at two temperatures
    return hidden, CountingHead(), targets, temperature


def plain(hidden, head, targets, temperature):
    """log_softmax of all logits at once, then the targets' entries and -sum p log p."""
    logprobs = (head.linear(hidden) / temperature[:, None]).log_softmax(dim=1)
    entropies = -(logprobs.exp() * logprobs).sum(dim=1)
    return logprobs[torch.arange(len(targets)), targets], entropies


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_values_are_those_of_log_softmax_and_gather(inputs, chunk_size):
    logprobs, entropies = token_logprobs(*inputs, chunk_size)
    expected_logprobs, expected_entropies = plain(*inputs)
    torch.testing.assert_close(logprobs, expected_logprobs)
    torch.testing.assert_close(entropies, expected_entropies.detach())


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_gradients_of_hidden_states_and_head_are_those_of_the_plain_form(inputs, chunk_size):
    hidden, head, *_ = inputs
    weights = torch.linspace(-1, 2, M)  # as advantages would weigh them
    wanted = torch.autograd.grad((weights * plain(*inputs)[0]).sum(), (hidden, head.linear.weight))
    got = torch.autograd.grad(
        (weights * token_logprobs(*inputs, chunk_size)[0]).sum(), (hidden, head.linear.weight)
    )
    torch.testing.assert_close(got, wanted)


def test_a_head_is_trained_even_below_frozen_hidden_states(inputs):
    hidden, head, targets, temperature = inputs
    frozen = hidden.detach()
    (wanted,) = torch.autograd.grad(
        plain(frozen, head, targets, temperature)[0].sum(), head.linear.weight
    )
    (got,) = torch.autograd.grad(
        token_logprobs(frozen, head, targets, temperature, 4)[0].sum(), head.linear.weight
    )
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("chunk_size", [1, 4, 22])
def test_no_more_than_a_chunk_of_logits_exists_at_a_time(inputs, chunk_size):
    head = inputs[1]
    logprobs, _ = token_logprobs(*inputs, chunk_size)
    assert max(head.rows) <= chunk_size
    assert sum(head.rows) == M  # forward: every place once
    logprobs.sum().backward()
    assert max(head.rows) <= chunk_size
    assert sum(head.rows) == 2 * M  # backward: every place once more


@pytest.mark.parametrize("chunk_size", [4, 22])
def test_no_logits_are_kept_for_the_backward_pass(inputs, chunk_size):
    kept: list[tuple[int, ...]] = []

    def remember(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        token_logprobs(*inputs, chunk_size)
    assert kept  # the hidden states, at least
    assert all(V not in shape for shape in kept)


def test_without_gradients_the_values_are_the_same_and_nothing_is_computed_twice(inputs):
    with torch.no_grad():
        logprobs, entropies = token_logprobs(*inputs, 4)
    assert sum(inputs[1].rows) == M
    torch.testing.assert_close((logprobs, entropies), token_logprobs(*inputs, 4))
    assert not logprobs.requires_grad


def test_only_the_logprobs_carry_a_gradient(inputs):
    logprobs, entropies = token_logprobs(*inputs, 4)
    assert logprobs.requires_grad
    assert not entropies.requires_grad


def test_entropy_is_log_v_where_all_tokens_are_alike_and_0_where_one_is_certain():
    # logits as they are, through the identity: row 0 all equal, row 1 with one far above the rest
    logits = torch.zeros(2, V)
    logits[1, 3] = 1e4
    _, entropies = token_logprobs(
        logits, nn.Identity(), torch.tensor([0, 3]), torch.tensor([1.0, 1.0])
    )
    torch.testing.assert_close(entropies, torch.tensor([V, 1.0]).log())


def test_impossible_tokens_make_no_nan():
    # a head that forbids a token: p = (1/2, 1/2, 0), so entropy ln 2 and logprob -ln 2
    logits = torch.tensor([[0.0, 0.0, float("-inf")]])
    logprobs, entropies = token_logprobs(
        logits, nn.Identity(), torch.tensor([0]), torch.tensor([1.0])
    )
    assert logprobs.item() == pytest.approx(-torch.tensor(2.0).log().item())
    assert entropies.item() == pytest.approx(torch.tensor(2.0).log().item())


def test_half_precision_comes_back_in_fp32(inputs):
    hidden, head, targets, temperature = inputs
    logprobs, entropies = token_logprobs(
        hidden.bfloat16(), head.bfloat16(), targets, temperature, 4
    )
    assert logprobs.dtype == entropies.dtype == torch.float32
    # the softmax itself is not rounded: chances sum to 1 far better than bfloat16's 3 digits
    with torch.no_grad():
        every = [
            token_logprobs(hidden.bfloat16(), head, torch.full((M,), v), temperature)[0]
            for v in range(V)
        ]
    torch.testing.assert_close(torch.stack(every).exp().sum(0), torch.ones(M))


def test_nothing_to_predict_gives_nothing_and_lets_a_gradient_through(inputs):
    _, head, *_ = inputs
    hidden = torch.zeros(0, H, requires_grad=True)
    empty = torch.zeros(0)
    logprobs, entropies = token_logprobs(hidden, head, empty.long(), empty)
    assert logprobs.shape == entropies.shape == (0,)
    assert head.rows == []
    logprobs.sum().backward()
    assert hidden.grad.shape == (0, H)


def test_shapes_that_do_not_fit_are_refused(inputs):
    hidden, head, targets, temperature = inputs
    with pytest.raises(ValueError, match=r"hidden \(M, H\) and targets \(M,\)"):
        token_logprobs(hidden, head, targets[:-1], temperature)
    with pytest.raises(ValueError, match=r"hidden \(M, H\)"):
        token_logprobs(hidden.unsqueeze(0), head, targets, temperature)
    with pytest.raises(ValueError, match=r"temperature \(M,\), got \(1,\)"):
        token_logprobs(hidden, head, targets, temperature[:1])
