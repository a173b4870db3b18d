"""What fits into memory: how much goes through a model at once, and what waits on the CPU."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from lsp_lightning.errors import OutOfMemory, require_at_least

Result = TypeVar("Result")

#: What is said where memory ran out by those who raise no error class of their own.
_REFUSALS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its workspace did not fit
)


class TokenBudget:
    """Tokens that go through a model at once, padding included; halved where memory runs out.

    What was found out holds for the rest of the run: a smaller budget is not forgotten.

    Args:
        key: the config key whose value it starts from; named in what is printed.
        tokens: to begin with.
    """

    def __init__(self, key: str, tokens: int) -> None:
        self.key = key
        self.asked = tokens
        self.tokens = tokens

    def run(self, attempt: Callable[[int], Result], longest: int) -> Result:
        """``attempt(tokens)``, again with half of the tokens as often as memory runs out.

        Args:
            attempt: does all of the work from its beginning, in batches of at most so many tokens;
                a longer row is a batch of its own.
            longest: tokens of the longest row, which cannot be parted.

        Raises:
            OutOfMemory: row by row it does not fit either.
        """
        while True:
            try:
                return attempt(self.tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # not inside of the handler: until it ends, the traceback keeps what is to be freed
            self._halve(longest)

    def _halve(self, longest: int) -> None:
        if self.tokens <= longest:
            raise OutOfMemory(self.key, longest)
        fewer = max(self.tokens // 2, longest)
        gc.collect()  # what failed may hold itself in a reference cycle
        _empty_cache()
        print(f"out of memory at {self.key} {self.tokens}: going on with {fewer}", flush=True)
        self.tokens = fewer

    def state_dict(self) -> dict[str, Any]:
        """What was asked for and what was found to fit, plain numbers."""
        return {"asked": self.asked, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was found to fit, unless another size is asked for now."""
        if state["asked"] == self.asked:
            self.tokens = state["tokens"]


class Budgets:
    """What goes through the policy at once in each phase of a round.

    Args:
        micro_batch_tokens: of a forward and backward pass.
        rollout_tokens: of the completions that are sampled together in this process, prompts
            included.
    """

    def __init__(self, micro_batch_tokens: int, rollout_tokens: int) -> None:
        key, rollout_key = "model.micro_batch_tokens", "model.rollouts.tokens"
        require_at_least(micro_batch_tokens, 1, key, "nothing would fit")
        require_at_least(rollout_tokens, 1, rollout_key, "nothing would fit")
        self.micro_batches = TokenBudget(key, micro_batch_tokens)
        # without gradients a token takes less than half of the memory
        self.passes = TokenBudget(f"{key} x 2 (judging)", 2 * micro_batch_tokens)
        self.rollouts = TokenBudget(rollout_key, rollout_tokens)

    def state_dict(self) -> dict[str, Any]:
        """Each budget's state by its name."""
        return {name: budget.state_dict() for name, budget in vars(self).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was found to fit; budgets that ``state`` does not know stay."""
        for name, budget in vars(self).items():
            if name in state:
                budget.load_state_dict(state[name])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _REFUSALS)


def move_frozen(model: nn.Module, device: torch.device) -> None:
    """Move the weights of a model that are not trained, one by one.

    Trained weights stay where they are, and no parameter is replaced: the optimiser knows them.
    The scales of 4-bit weights go with them; buffers, which are small, stay.
    """
    # validate, test and predict run in inference mode; training could not use what is made there
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
    """The frozen weights of a model are on ``device`` for a while; then they go back, always.

    No copy stays behind in CPU memory, though frozen weights would then travel one way only: it
    would save a second or two a round and take as much CPU memory as both models, on machines that
    often have less of it than their GPU. Nor is memory pinned, which not every machine allows.

    Tested with a pretended second device; not yet run on a GPU.
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
    """Give back the blocks of GPU memory that are kept for reuse."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
