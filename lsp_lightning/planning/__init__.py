"""How much memory a run takes, and roughly how much time, before any weights are loaded.

There are no formulas per architecture. The phases of a round run over tensors without data
(:mod:`lsp_lightning.planning.phases`), and the bytes that are alive at once are counted.
"""

import torch

from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.planning.lengths import check_model
from lsp_lightning.planning.report import line, report
from lsp_lightning.planning.settings import read_settings

__all__ = ["check_model", "memory_line", "print_plan"]


def print_plan(model: PlannedModule, datamodule: PlannedData, gpu_gib: float | None) -> None:
    """Print the memory that a run takes on a GPU, whether it fits, and what to change if not.

    Args:
        model: the module; its policy need not be loaded.
        datamodule: its data.
        gpu_gib: memory of the GPU in GiB; None is the GPU of this machine, if there is one.

    Raises:
        ConfigError: a model's config could not be loaded, or the model cannot be planned.
    """
    if gpu_gib is None and torch.cuda.is_available():
        gpu_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    print(report(read_settings(model, datamodule, "cuda"), gpu_gib))


def memory_line(model: PlannedModule, datamodule: PlannedData, device: torch.device) -> str:
    """A run's memory on a device, in one line. Never raises: a failed plan must not end a run.

    Args:
        model: the module.
        datamodule: its data.
        device: where it will run; everything except CUDA is planned as a CPU.
    """
    try:
        return line(read_settings(model, datamodule, "cuda" if device.type == "cuda" else "cpu"))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"memory: not planned ({reason[:120]})"
