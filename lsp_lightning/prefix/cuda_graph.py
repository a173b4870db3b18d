"""A step of decoding recorded once and done again: a GPU then waits for no Python.

A decoding step of a small batch is some thousand short kernels, and launching them takes longer
than computing them. **Not yet run on a GPU**: what is tested is that a step in this form computes
the same, on a CPU; on a GPU each recording is compared with the step it was made of.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lsp_lightning.runtime.memory import is_out_of_memory

#: Token ids and positions (n, 1) to logits (n, V).
Step = Callable[[Tensor, Tensor], Tensor]
#: Makes of a step, and of what it is called with now, one of the same effect for these shapes.
Recorder = Callable[[Step, Tensor, Tensor], Step]

#: Relative difference of logits that other kernels explain.
_ROUNDING = 0.02


class GraphRecorder:
    """Records steps as CUDA graphs; where that fails, says so once and leaves steps as they are."""

    def __init__(self) -> None:
        self._works = True

    def __call__(self, step: Step, ids: Tensor, positions: Tensor) -> Step:
        """See :data:`Recorder`. The step is done some times: it must write what it wrote before."""
        if not self._works:
            return step
        try:
            recorded = _Graph(step, ids, positions)
            expected, found = step(ids, positions).float(), recorded(ids, positions).float()
            same = (found - expected).norm() <= _ROUNDING * expected.norm()
            if bool(same) or bool(expected.isnan().any()):
                return recorded
            why = "it computes something else"
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            why = (str(error).splitlines() or ["no reason given"])[0]
        self._works = False
        warnings.warn(f"rollouts go on without a CUDA graph: {why}", stacklevel=2)
        return step


class _Graph:
    """A step in a CUDA graph, with the memory it reads from and writes to."""

    def __init__(self, step: Step, ids: Tensor, positions: Tensor) -> None:
        self._ids, self._positions = ids.clone(), positions.clone()
        # libraries set themselves up in their first calls, which cannot be recorded
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                step(self._ids, self._positions)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph):
                self._logits = step(self._ids, self._positions)
        finally:
            torch.cuda.set_stream(stream)  # a recording that fails leaves its own behind

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._ids.copy_(ids)
        self._positions.copy_(positions)
        self._graph.replay()
        return self._logits
