"""Where the CPU time of a round goes at SmolLM2-135M's size, by pass and kind of operation.

In one round every operation is timed. What plain rounds take beyond that is Python's time, with
torch's dispatcher. All times are CPU time, so other programs on the machine hardly count.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import Game, Size
from benchmarks.speed_ours import MICRO_BATCH
from benchmarks.speed_peer import PROMPTS, SMOLLM2
from benchmarks.speed_work import RANK, WARM_UP
from lsp_lightning import Policy
from lsp_lightning.generation import local
from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.cache import PrefixCache
from lsp_lightning.prefix.decoders import TreeDecoder

QUICK: dict[str, Any] = {"shape": Shape(64, 1, 130), "prompts": (16,), "size": Size(2, 3, 4)}
FIXED = {"warm_up": WARM_UP, "micro_batch_tokens": MICRO_BATCH, "clock": "cpu"}
PASSES = ("prompts", "decoding", "reference", "policy")
KINDS = ("frozen weights", "LoRA", "head", "attention", "sampling", "log-probs", "other", "Python")
#: Functions that are a pass or a kind. What runs outside of them is decoding or policy.
_SCOPES: tuple[tuple[Any, str, str], ...] = (
    (TreeDecoder, "begin", "prompts"),
    (Policy, "reference_logprobs", "reference"),
    (TreeAttention, "attend", "attention"),
    (PrefixCache, "attend", "attention"),
    (local, "sample", "sampling"),
)


def breakdown(
    shape: Shape = SMOLLM2,
    prompts: tuple[int, ...] = PROMPTS,
    size: Size = Size(4, 4),  # noqa: B008 - frozen
    repeats: int = 2,
) -> list[dict[str, Any]]:
    """For each prompt length the speed of plain products, and :func:`profiled`."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        make_random_model(Path(folder), shape)
        game = Game(Path(folder), "cpu", MICRO_BATCH)
        for prompt in prompts:
            case = profiled(game, shape, replace(size, prompt=prompt), repeats)
            answers = size.queries * size.answers
            products = {
                "large": product_a_second(2048, weights=4),
                "decoding": product_a_second(answers, weights=120),
            }
            found.append({"prompt": prompt, "answers": answers, "products": products, **case})
            print(table(found[-1]), flush=True)
    return found


def product_a_second(rows: int, weights: int, repeats: int = 10) -> float:
    """Floating-point operations a second in float32 products with matrices of 576 x 1536.

    Args:
        rows: rows of the left side.
        weights: number of matrices, taken in turn. Many do not fit in the cache, as in a model.
        repeats: how often all are multiplied; the median counts.
    """
    left = torch.randn(rows, 576)
    right = [torch.randn(1536, 576) for _ in range(weights)]
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        for weight in right:
            torch.nn.functional.linear(left, weight)
        seconds.append(time.thread_time() - start)
    return 2 * rows * sum(weight.numel() for weight in right) / statistics.median(seconds)


def profiled(game: Game, shape: Shape, size: Size, repeats: int) -> dict[str, Any]:
    """Seconds of plain rounds; seconds and floating-point operations as ``{pass: {kind: ...}}``.

    Python's seconds of the passes over prompts and of the reference count with the pass after it.
    """
    rounds = [game.seconds(size) for _ in range(WARM_UP + repeats)][WARM_UP:]
    timer = Timer(shape)
    with scopes(timer.scope), timer:
        played = game.play(size)
        timer.scope[0] = "policy"
        game.learn(played)
    seconds = {name: {kind: timer.seconds[name, kind] for kind in KINDS} for name in PASSES}
    for phase, passes in (("rollouts", PASSES[:2]), ("update", PASSES[2:])):
        plain = statistics.median(took[phase] for took in rounds)
        seconds[passes[1]]["Python"] = plain - sum(sum(seconds[x].values()) for x in passes)
    flops = {name: {kind: timer.flops[name, kind] for kind in KINDS} for name in PASSES}
    return {"rounds": rounds, "seconds": seconds, "flops": flops}


@contextmanager
def scopes(scope: list[str]) -> Iterator[None]:
    """Keep the names of the running passes and kinds at the end of ``scope``."""

    def noted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            scope.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                scope.pop()

        return wrapper

    with ExitStack() as stack:
        for owner, name, label in _SCOPES:
            stack.enter_context(patch.object(owner, name, noted(getattr(owner, name), label)))
        yield


class Timer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up CPU seconds and floating-point operations by pass and kind while it is active."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._vocabulary = shape.vocabulary
        self.scope = ["decoding"]
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.flops: dict[tuple[str, str], int] = defaultdict(int)
        self._cost = 0.0  # that timing adds to an operation: the seconds of one that does nothing
        nothing, seconds = torch.zeros(1), []
        with self:
            for _ in range(1000):
                self.seconds.clear()
                nothing.view(1)
                seconds.append(sum(self.seconds.values()))
        self._cost = statistics.median(seconds)  # a mean would count pauses of the process
        self.seconds.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        start = time.thread_time()
        out = func(*args, **(kwargs or {}))
        took = time.thread_time() - start - self._cost
        kind, flops = self._kind(func.overloadpacket.__name__, args, out)
        key = next(name for name in reversed(self.scope) if name in PASSES), kind
        self.seconds[key] += took
        self.flops[key] += flops
        return out

    def _kind(self, name: str, args: Sequence[Any], out: Any) -> tuple[str, int]:
        """The kind of an operation, and its floating-point operations if it is a product."""
        if self.scope[-1] in KINDS:
            return self.scope[-1], 0
        if "scaled_dot_product" in name:  # its backward pass is outside of the scopes
            return "attention", 0
        tensors = [x for x in args if isinstance(x, Tensor)]
        vocabulary = any(self._vocabulary in x.shape for x in tensors)
        if name not in ("mm", "addmm", "addmm_"):
            return ("log-probs" if vocabulary and name != "embedding" else "other"), 0
        left, right = tensors[-2:]
        # while sampling, RANK can also be the number of rows, so the left side does not tell
        sides = (right,) if self.scope[-1] in PASSES[:2] else (left, right)
        lora = any(RANK in x.shape for x in sides)
        kind = "head" if vocabulary else "LoRA" if lora else "frozen weights"
        return kind, 2 * out.numel() * left.shape[-1]


def table(case: dict[str, Any]) -> str:
    """A Markdown table: seconds by kind and pass, share of the round, and speed in each pass."""
    total = sum(sum(kinds.values()) for kinds in case["seconds"].values())
    lines = [
        f"\nprompts of {case['prompt']} tokens: {total:.1f} s; plain products with 576 x 1536: "
        f"2048 rows {case['products']['large'] / 1e9:.0f} GF/s, "
        f"{case['answers']} rows {case['products']['decoding'] / 1e9:.0f} GF/s",
        f"| kind | {' | '.join(f'{name}, s' for name in PASSES)} | share | GF/s |",
        f"|---|{'---:|' * (len(PASSES) + 2)}",
    ]
    for kind in KINDS:
        seconds = [case["seconds"][name][kind] for name in PASSES]
        flops = [case["flops"][name][kind] for name in PASSES]
        speeds = [f"{f / s / 1e9:.0f}" for f, s in zip(flops, seconds, strict=True) if f]
        cells = " | ".join(f"{s:.2f}" for s in seconds)
        lines.append(f"| {kind} | {cells} | {sum(seconds) / total:.0%} | {', '.join(speeds)} |")
    return "\n".join(lines)
