"""Running means of logged metrics, over all processes, for names that are not known in advance.

A reward may report any metric, and in distributed runs perhaps in one process only. Lightning's
``log(sync_dist=True)`` would hang then: it needs every process to log the same names.
"""

import warnings
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric


class Means(nn.Module):
    """A mean for each metric name. A name is added at its first value; NaN values are ignored.

    Args:
        keep_nan: if all values of a name are NaN, its mean is NaN. Otherwise the name is left out,
            and a progress bar keeps showing the older value.
    """

    def __init__(self, keep_nan: bool = False) -> None:
        super().__init__()
        self._given: dict[str, None] | None = {} if keep_nan else None
        self._means = nn.ModuleDict()
        # a buffer moves with the module: its device is where new means must be
        self.register_buffer("_marker", torch.zeros(()), persistent=False)
        self._marker: Tensor

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value, or a tensor of values, for each name."""
        if self._given is not None:
            self._given |= dict.fromkeys(name.replace(".", "_") for name in values)
        for name, value in values.items():
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if not tensor.isnan().all():
                self._mean(name).update(tensor.to(self._marker.device))

    def compute(self) -> dict[str, Tensor]:
        """The means, over all processes, of the values added since the last call."""
        result = {name: torch.tensor(torch.nan) for name in self._given or ()}
        if self._given is not None:
            self._given = {}
        for name in self._names():
            metric = self._mean(name)
            with (
                warnings.catch_warnings()
            ):  # torchmetrics warns if only other processes have values
                warnings.filterwarnings("ignore", message=".*before the ``update`` method.*")
                result[name] = metric.compute()
            metric.reset()
        return result

    def _mean(self, name: str) -> MeanMetric:
        name = name.replace(".", "_")  # torch allows no dot in the name of a submodule
        if name not in self._means:
            self._means[name] = MeanMetric(nan_strategy="ignore").to(self._marker.device)
        metric = self._means[name]
        assert isinstance(metric, MeanMetric)
        return metric

    def _names(self) -> list[str]:
        """Names with a value in any process since the last call, in the same order everywhere."""
        local = [name for name in self._means if self._mean(name).update_called]
        if not dist.is_available() or not dist.is_initialized():
            return local
        gathered: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, local)
        return sorted({name for names in gathered for name in names})
