"""A policy small enough to enumerate: three tokens, completions of two, parameters in tables."""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

VOCABULARY, LENGTH = 3, 2
#: Every completion there is.
COMPLETIONS = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))


def _table(seed: int) -> Tensor:
    """Logits of the first token (row 0) and of the second, one row for each first token."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1 + VOCABULARY, VOCABULARY)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass
class Tabular:
    """pi(y) = softmax(logits[0])[y_1] * softmax(logits[1 + y_1])[y_2], in double precision."""

    logits: Tensor = field(default_factory=lambda: _table(0).requires_grad_())
    ref_logits: Tensor = field(default_factory=lambda: _table(1))

    def logprobs(self) -> Tensor:
        """(9, 2), differentiable: of each token of every completion."""
        return _token_logprobs(self.logits)

    def ref_logprobs(self) -> Tensor:
        """(9, 2): the reference's."""
        return _token_logprobs(self.ref_logits)

    def probs(self) -> Tensor:
        """(9,), detached: how often each completion is sampled."""
        return self.logprobs().sum(dim=1).exp().detach()

    def gradient(self, scalar: Tensor) -> Tensor:
        """Of ``scalar`` with respect to the policy's table."""
        (gradient,) = torch.autograd.grad(scalar, self.logits, retain_graph=True)
        return gradient

    def kl(self) -> Tensor:
        """KL(pi || ref), exactly: the sum over all completions."""
        log_pi, log_ref = self.logprobs().sum(1), self.ref_logprobs().sum(1)
        return (log_pi.exp() * (log_pi - log_ref)).sum()

    def reverse_kl(self) -> Tensor:
        """KL(ref || pi), exactly."""
        log_pi, log_ref = self.logprobs().sum(1), self.ref_logprobs().sum(1)
        return (log_ref.exp() * (log_ref - log_pi)).sum()


def _token_logprobs(logits: Tensor) -> Tensor:
    rows = torch.stack([torch.zeros(len(COMPLETIONS), dtype=torch.long), 1 + COMPLETIONS[:, 0]], 1)
    return logits.log_softmax(dim=1)[rows, COMPLETIONS]
