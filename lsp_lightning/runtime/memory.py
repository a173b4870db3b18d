"""Fit work into memory: halve batches after out-of-memory errors, move idle weights to the CPU."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from lsp_lightning.errors import OutOfMemory, require_at_least

Result = TypeVar("Result")

#: Out-of-memory messages of libraries that raise a plain RuntimeError.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # raised if its workspace does not fit
)


class TokenBudget:
    """Largest number of tokens in one batch, padding included; halved when memory runs out.

    A smaller budget stays for the rest of the run, and is saved in checkpoints.

    Args:
        key: the config key that sets the budget, for messages.
        tokens: the budget to start with.
    """

    def __init__(self, key: str, tokens: int) -> None:
        self.key = key
        self.asked = tokens
        self.tokens = tokens

    def run(self, attempt: Callable[[int], Result], longest: int) -> Result:
        """Return ``attempt(tokens)``; each time memory runs out, halve the budget and try again.

        Args:
            attempt: does all of the work from the start, in batches of at most this many tokens; a
                longer row gets a separate batch.
            longest: tokens of the longest row, the smallest possible batch.

        Raises:
            OutOfMemory: a batch of a single row does not fit.
        """
        while True:
            try:
                return attempt(self.tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside of the except block, where the traceback would keep the tensors alive
            self._halve(longest)

    def _halve(self, longest: int) -> None:
        if self.tokens <= longest:
            raise OutOfMemory(self.key, longest)
        fewer = max(self.tokens // 2, longest)
        gc.collect()  # the failed attempt may be part of a reference cycle
        _empty_cache()
        print(f"out of memory at {self.key} {self.tokens}: trying again with {fewer}", flush=True)
        self.tokens = fewer

    def state_dict(self) -> dict[str, Any]:
        """The budget at the start (``asked``) and now (``tokens``), as plain numbers."""
        return {"asked": self.asked, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the budget, unless the config has changed its start value."""
        if state["asked"] == self.asked:
            self.tokens = state["tokens"]


class Budgets:
    """The policy's token budget in each phase of a round.

    Args:
        micro_batch_tokens: tokens of a forward and backward pass.
        rollout_tokens: tokens of the completions that are sampled together in this process,
            prompts included.
    """

    def __init__(self, micro_batch_tokens: int, rollout_tokens: int) -> None:
        key, rollout_key = "model.micro_batch_tokens", "model.rollouts.tokens"
        require_at_least(micro_batch_tokens, 1, key, "a batch holds at least one token")
        require_at_least(rollout_tokens, 1, rollout_key, "a batch holds at least one token")
        self.micro_batches = TokenBudget(key, micro_batch_tokens)
        # twice as many: without gradients a token takes less than half of the memory
        self.passes = TokenBudget(f"{key} x 2 (judging)", 2 * micro_batch_tokens)
        self.rollouts = TokenBudget(rollout_key, rollout_tokens)

    def state_dict(self) -> dict[str, Any]:
        """The state of each budget, by name."""
        return {name: budget.state_dict() for name, budget in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the budgets; one without an entry in ``state`` keeps its value."""
        for name, budget in vars(self).items():
            if name in state:
                budget.load_state_dict(state[name])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or CPU memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and any(text in message for text in _OUT_OF_MEMORY)


def move_frozen(model: nn.Module, device: torch.device) -> None:
    """Move the frozen weights of a model to a device, one by one.

    Trained weights stay, and no parameter object is replaced, because the optimiser refers to
    them. The scales of 4-bit weights move too. Buffers are small and stay.
    """
    # training cannot use tensors made in inference mode, in which validate, test and predict run
    with torch.inference_mode(False), torch.no_grad():
        for parameter in _frozen(model):
            if parameter.device != device:
                parameter.data = parameter.data.to(device)
                quant_state = getattr(parameter, "quant_state", None)
                if quant_state is not None:
                    quant_state.to(device)
    _empty_cache()


@contextmanager
def moved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the frozen weights of a model to ``device``; on leaving the context, move them back.

    No copy stays in CPU memory. A copy would save the transfer to the CPU, a second or two a round,
    but needs as much CPU memory as the models' weights, which many machines do not have. Memory is
    not pinned, which not every machine allows.

    Tested with a simulated second device, not yet on a GPU.
    """
    home = next((p.device for p in _frozen(model)), device)
    try:
        move_frozen(model, device)
        yield
    finally:
        move_frozen(model, home)


def _frozen(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if not p.requires_grad]


def _empty_cache() -> None:
    """Release the GPU memory that torch keeps for reuse."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
