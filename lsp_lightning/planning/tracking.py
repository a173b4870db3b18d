"""Measure a computation while it runs: bytes alive at once, and floating-point operations."""

import functools
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors and remembers the peak.

    Tensors made before it was entered do not count. Inside a :class:`FakeTensorMode`, operations on
    fake tensors compute nothing. Operations on real tensors (masks and indices, whose values decide
    shapes) are computed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self.flops = 0
        self._known: set[int] = set()

    def reset_peak(self) -> None:
        """Start a new peak from the bytes that are alive now."""
        self.peak = self.live

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operation and count its outputs."""
        if func is torch.ops.prim.device.default:  # half of all calls; makes no tensor
            return func(*args)
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in given:
            self._note(tensor, new=False)
        if given and all(_is_real(tensor) for tensor in given):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += int(count(*args, **kwargs, out_val=out))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor, new=True)
        self.peak = max(self.peak, self.live)
        return out

    def _note(self, tensor: Tensor, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if new else 0
        self.live += size
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _is_real(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and tensor.device.type != "meta"


@functools.cache
def _mode() -> FakeTensorMode:
    """One mode for all dry runs, so that a model made in one run can be used in the next."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def dry_run() -> Iterator[LiveBytes]:
    """Tensors made inside have shapes but no data; the bytes they would take are counted."""
    with _mode(), LiveBytes() as tracker:
        yield tracker
