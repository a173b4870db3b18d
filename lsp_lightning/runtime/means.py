"""Means of metrics by name, over processes."""

import warnings
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric


class Means(nn.Module):
    """Means by name, made when a name is first seen; NaN does not count."""

    def __init__(self) -> None:
        super().__init__()
        self._means = nn.ModuleDict()
        # moves with the module, so that new metrics are made where processes can exchange them
        self.register_buffer("_place", torch.zeros(()), persistent=False)
        self._place: Tensor

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        """Take in one value, or a tensor of values, for each name."""
        for name, value in values.items():
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if not tensor.isnan().all():
                self._mean(name).update(tensor.to(self._place.device))

    def compute(self) -> dict[str, Tensor]:
        """The means over all processes of what was taken in since the last call."""
        result = {}
        for name in self._names():
            metric = self._mean(name)
            with warnings.catch_warnings():  # a name that only other processes have seen
                warnings.filterwarnings("ignore", message=".*before the ``update`` method.*")
                result[name] = metric.compute()
            metric.reset()
        return result

    def _mean(self, name: str) -> MeanMetric:
        name = name.replace(".", "_")  # no module may have a dot in its name
        if name not in self._means:
            self._means[name] = MeanMetric(nan_strategy="ignore").to(self._place.device)
        metric = self._means[name]
        assert isinstance(metric, MeanMetric)
        return metric

    def _names(self) -> list[str]:
        """Names that any process has seen since the last call, in one order for all of them."""
        own = [name for name in self._means if self._mean(name).update_called]
        if not dist.is_available() or not dist.is_initialized():
            return own
        everybodys: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everybodys, own)
        return sorted({name for names in everybodys for name in names})
