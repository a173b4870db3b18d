"""Decoding steps as CUDA graphs: recorded once and replayed, so the GPU never waits for Python.

A decoding step of a small batch is about a thousand short kernels, and launching them takes longer
than running them. **Not yet run on a GPU**: tests check on a CPU that a step in this form computes
the same. On a GPU each recording is compared with the step it was made from.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lsp_lightning.errors import warn
from lsp_lightning.runtime.memory import is_out_of_memory

#: Takes token ids and positions, (n, 1) each, and returns logits (n, V).
Step = Callable[[Tensor, Tensor], Tensor]
#: Takes a step and its arguments, and returns a step that does the same for these shapes.
Recorder = Callable[[Step, Tensor, Tensor], Step]

#: Largest relative difference of logits that a different kernel can explain.
_ROUNDING = 0.02


class GraphRecorder:
    """Records steps as CUDA graphs; if that fails, it warns once and returns steps unchanged."""

    def __init__(self) -> None:
        self._works = True

    def __call__(self, step: Step, ids: Tensor, positions: Tensor) -> Step:
        """See :data:`Recorder`. Runs the step several times; each run must write the same."""
        if not self._works:
            return step
        try:
            recorded = _Graph(step, ids, positions)
            expected, found = step(ids, positions).float(), recorded(ids, positions).float()
            same = (found - expected).norm() <= _ROUNDING * expected.norm()
            if bool(same) or bool(expected.isnan().any()):
                return recorded
            why = "the graph's logits differ from those of the plain step"
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            why = (str(error).splitlines() or ["no reason given"])[0]
        self._works = False
        warn(f"rollouts continue without CUDA graphs: {why}")
        return step


class _Graph:
    """A step as a CUDA graph, with the tensors that it reads and writes."""

    def __init__(self, step: Step, ids: Tensor, positions: Tensor) -> None:
        self._ids, self._positions = ids.clone(), positions.clone()
        # warm up on another stream: libraries initialise in their first calls, which cannot be
        # recorded
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                step(self._ids, self._positions)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph):
                self._logits = step(self._ids, self._positions)
        finally:
            torch.cuda.set_stream(stream)  # a failed recording leaves its stream set

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._ids.copy_(ids)
        self._positions.copy_(positions)
        self._graph.replay()
        return self._logits
