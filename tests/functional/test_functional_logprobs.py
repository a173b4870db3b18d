"""Log-probs in chunks equal the plain ones, and the logits of all tokens never exist at once."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lsp_lightning.functional import LOGITS_AT_ONCE, token_logprobs

M, H, V = 23, 6, 11
#: From less than one token to more than all, and a number that V does not divide.
AT_ONCE = [1, V, 4 * V, 5 * V - 1, 22 * V, 23 * V, LOGITS_AT_ONCE]


class CountingHead(nn.Module):
    """A linear head that records the number of rows of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, V, bias=False)
        self.rows: list[int] = []

    def forward(self, hidden):
        self.rows.append(hidden.shape[0])
        return self.linear(hidden)


class LogitShapes(TorchDispatchMode):
    """Records the shape of every matrix with ``width`` columns that any operation creates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.shapes: list[tuple[int, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            shape = tuple(made.shape) if isinstance(made, torch.Tensor) else ()
            if len(shape) == 2 and shape[1] == self.width and shape[0] != H:  # H: the weight's
                self.shapes.append(shape)
        return result


@pytest.fixture(params=[True, False], ids=["trained head", "frozen head"])
def inputs(request):
    torch.manual_seed(0)
    hidden = torch.randn(M, H, requires_grad=True)
    targets = torch.randint(V, (M,))
    temperature = torch.linspace(0.3, 1.7, M)  # two roles may be sampled at two temperatures
    return hidden, CountingHead().requires_grad_(request.param), targets, temperature


def learns(head):
    """Whether the head is trained."""
    return head.linear.weight.requires_grad


def plain(hidden, head, targets, temperature):
    """log_softmax of all logits at once, then the targets' entries and -sum p log p."""
    logprobs = (head(hidden) / temperature[:, None]).log_softmax(dim=1)
    entropies = -(logprobs.exp() * logprobs).sum(dim=1)
    return logprobs[torch.arange(len(targets)), targets], entropies


def gradients(logprobs, *wanted):
    """Gradients of the log-probs, weighted as advantages would weigh them."""
    weights = torch.linspace(-1, 2, len(logprobs), dtype=logprobs.dtype)
    return torch.autograd.grad((weights * logprobs).sum(), wanted, retain_graph=True)


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_values_are_those_of_log_softmax_and_gather(inputs, at_once):
    logprobs, entropies = token_logprobs(*inputs, at_once)
    expected_logprobs, expected_entropies = plain(*inputs)
    torch.testing.assert_close(logprobs, expected_logprobs)
    torch.testing.assert_close(entropies, expected_entropies.detach())


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_gradients_of_hidden_states_and_head_are_those_of_the_plain_form(inputs, at_once):
    hidden, head, *_ = inputs
    wanted = (hidden, head.linear.weight) if learns(head) else (hidden,)
    expected = gradients(plain(*inputs)[0], *wanted)
    torch.testing.assert_close(gradients(token_logprobs(*inputs, at_once)[0], *wanted), expected)


HEADS = {
    "linear": lambda logits: logits,
    "soft-capped": lambda logits: torch.tanh(logits / 1.5) * 1.5,
    "scaled": lambda logits: logits * 3.0 / 0.7,
    "scaled and soft-capped": lambda logits: torch.tanh(logits * 3.0 / 1.5) * 1.5,
}


@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_through_every_kind_of_head_are_the_plain_ones(shape, trained, tied):
    # a tied embedding gets a gradient as input embedding and as head
    torch.manual_seed(0)
    embedding = torch.randn(V, H, dtype=torch.float64, requires_grad=trained)
    adapter = torch.randn(H, H, dtype=torch.float64, requires_grad=True)
    weight = embedding if tied else torch.randn_like(embedding, requires_grad=trained)
    hidden = (embedding[torch.randint(V, (M,))] @ adapter).tanh()
    given = (
        hidden,
        lambda h: HEADS[shape](h @ weight.T),
        torch.randint(V, (M,)),
        torch.linspace(0.3, 1.7, M),
    )
    wanted = (adapter, *({embedding, weight} if trained else ()))
    expected, expected_entropies = plain(*given)
    logprobs, entropies = token_logprobs(*given, 5 * V)
    torch.testing.assert_close(logprobs, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(entropies, expected_entropies.detach(), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(
        gradients(logprobs, *wanted),
        gradients(expected, *wanted),
        atol=1e-10,
        rtol=1e-10,
    )


def test_a_head_is_trained_even_below_frozen_hidden_states(inputs):
    hidden, head, targets, temperature = inputs
    head.requires_grad_(True)
    given = (hidden.detach(), head, targets, temperature)
    (expected,) = gradients(plain(*given)[0], head.linear.weight)
    (got,) = gradients(token_logprobs(*given, 4 * V)[0], head.linear.weight)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("vocabulary", [1024, 4096, 65536])
@pytest.mark.parametrize("trained", [True, False])
def test_logits_at_once_bounds_the_logits_for_any_vocabulary(vocabulary, trained):
    at_once, places = 2**17, 200
    weight = torch.randn(vocabulary, H, requires_grad=trained)
    hidden = torch.randn(places, H, requires_grad=True)
    targets = torch.randint(vocabulary, (places,))
    with LogitShapes(vocabulary) as seen:
        logprobs, _ = token_logprobs(
            hidden, lambda h: h @ weight.T, targets, torch.ones(places), at_once
        )
        forward = len(seen.shapes)
        logprobs.sum().backward()
    assert forward
    assert (len(seen.shapes) > forward) == trained  # a frozen head has no work left here
    most = max(rows for rows, _ in seen.shapes)
    assert most == min(places, at_once // vocabulary)


@pytest.mark.parametrize("rows", [1, 4, 22])
def test_a_trained_head_runs_twice_for_each_token_and_a_frozen_one_once(inputs, rows):
    head = inputs[1]
    logprobs, _ = token_logprobs(*inputs, rows * V)
    assert sum(head.rows) == M + 1  # one more, to find out the head's width
    logprobs.sum().backward()
    assert sum(head.rows) == (2 if learns(head) else 1) * M + 1
    assert max(head.rows) <= rows


@pytest.mark.parametrize("rows", [4, 22])
def test_no_logits_are_kept_for_the_backward_pass(inputs, rows):
    kept: list[tuple[int, ...]] = []

    def remember(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        logprobs, _ = token_logprobs(*inputs, rows * V)
    if not learns(inputs[1]):  # in the forward pass a chunk keeps its logits for a moment
        kept = [tuple(tensor.shape) for tensor in logprobs.grad_fn.saved_tensors]
    assert kept  # the hidden states or their gradients, at least
    assert all(V not in shape for shape in kept)


def test_without_gradients_the_values_are_the_same_and_nothing_is_computed_twice(inputs):
    with torch.no_grad():
        logprobs, entropies = token_logprobs(*inputs, 4 * V)
    assert sum(inputs[1].rows) == M + 1
    torch.testing.assert_close((logprobs, entropies), token_logprobs(*inputs, 4 * V))
    assert not logprobs.requires_grad


def test_only_the_logprobs_carry_a_gradient(inputs):
    logprobs, entropies = token_logprobs(*inputs, 4 * V)
    assert logprobs.requires_grad
    assert not entropies.requires_grad


def test_a_second_backward_pass_gives_the_same(inputs):
    hidden = inputs[0]
    logprobs, _ = token_logprobs(*inputs, 4 * V)
    first, second = (
        torch.autograd.grad(logprobs.sum(), hidden, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_entropy_is_log_v_for_equal_logits_and_0_for_a_certain_token():
    # with the identity as head: in row 0 all logits are equal, in row 1 one is far above the rest
    logits = torch.zeros(2, V)
    logits[1, 3] = 1e4
    _, entropies = token_logprobs(
        logits, nn.Identity(), torch.tensor([0, 3]), torch.tensor([1.0, 1.0])
    )
    torch.testing.assert_close(entropies, torch.tensor([V, 1.0]).log())


def test_the_heads_logits_are_not_changed():
    logits = torch.randn(5, V)
    before = logits.clone()
    token_logprobs(logits, nn.Identity(), torch.zeros(5, dtype=torch.long), torch.ones(5))
    assert torch.equal(logits, before)


def test_impossible_tokens_give_no_nan():
    # a head that forbids a token: p = (1/2, 1/2, 0), so entropy ln 2 and logprob -ln 2
    logits = torch.tensor([[0.0, 0.0, float("-inf")]], requires_grad=True)
    logprobs, entropies = token_logprobs(
        logits, nn.Identity(), torch.tensor([0]), torch.tensor([1.0])
    )
    assert logprobs.item() == pytest.approx(-torch.tensor(2.0).log().item())
    assert entropies.item() == pytest.approx(torch.tensor(2.0).log().item())
    logprobs.sum().backward()  # 1[j = target] - p
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5, 0.0]]))


def test_half_precision_inputs_give_fp32_results(inputs):
    hidden, head, targets, temperature = inputs
    logprobs, entropies = token_logprobs(
        hidden.bfloat16(), head.bfloat16(), targets, temperature, 4 * V
    )
    assert logprobs.dtype == entropies.dtype == torch.float32
    # the softmax is not rounded: probabilities add up to 1 far better than bfloat16's 3 digits
    with torch.no_grad():
        every = [
            token_logprobs(hidden.bfloat16(), head, torch.full((M,), v), temperature)[0]
            for v in range(V)
        ]
    torch.testing.assert_close(torch.stack(every).exp().sum(0), torch.ones(M))


@pytest.mark.parametrize("body", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("top", [torch.float32, torch.bfloat16])
def test_the_head_may_have_another_dtype_than_the_hidden_states(inputs, body, top):
    hidden, head, targets, temperature = inputs
    (expected,) = gradients(plain(*inputs)[0], hidden)
    linear = head.linear.to(top)
    leaf = hidden.detach().to(body).requires_grad_()
    logprobs, _ = token_logprobs(
        leaf, lambda h: linear(h.to(linear.weight.dtype)), targets, temperature, 4 * V
    )
    assert logprobs.dtype == torch.float32
    (got,) = gradients(logprobs, leaf)
    assert got.dtype == body
    # bfloat16 has 8 bits: each rounding is off by up to 2^-8
    exact = body == top == torch.float32
    assert (got.float() - expected).norm() / expected.norm() < (1e-6 if exact else 2e-2)


def test_without_tokens_the_results_are_empty_and_differentiable(inputs):
    _, head, *_ = inputs
    hidden = torch.zeros(0, H, requires_grad=True)
    empty = torch.zeros(0)
    logprobs, entropies = token_logprobs(hidden, head, empty.long(), empty)
    assert logprobs.shape == entropies.shape == (0,)
    assert head.rows == []
    logprobs.sum().backward()
    assert hidden.grad.shape == (0, H)


def test_wrong_shapes_are_refused(inputs):
    hidden, head, targets, temperature = inputs
    with pytest.raises(ValueError, match=r"hidden \(M, H\) and targets \(M,\)"):
        token_logprobs(hidden, head, targets[:-1], temperature)
    with pytest.raises(ValueError, match=r"hidden \(M, H\)"):
        token_logprobs(hidden.unsqueeze(0), head, targets, temperature)
    with pytest.raises(ValueError, match=r"temperature \(M,\), got \(1,\)"):
        token_logprobs(hidden, head, targets, temperature[:1])
