"""What a run will take of a device's memory, and roughly of time, before any weights are loaded.

No formulas for each architecture: the phases of a round run over tensors without contents
(:mod:`lsp_lightning.planning.phases`), and what lives at once is counted.
"""

import torch

from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.planning.lengths import check_model
from lsp_lightning.planning.report import line, report
from lsp_lightning.planning.settings import read_settings

__all__ = ["check_model", "memory_line", "print_plan"]


def print_plan(model: PlannedModule, datamodule: PlannedData, gpu_gib: float | None) -> None:
    """Print what a run takes on a GPU, whether it fits, and what to change if not.

    Args:
        model: the module, with nothing loaded.
        datamodule: its data.
        gpu_gib: memory of the GPU in GiB; None is the one that is here, if there is one.

    Raises:
        ConfigError: a model cannot be had, or not be planned for.
    """
    if gpu_gib is None and torch.cuda.is_available():
        gpu_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    print(report(read_settings(model, datamodule, "cuda"), gpu_gib))


def memory_line(model: PlannedModule, datamodule: PlannedData, device: torch.device) -> str:
    """What a run takes on a device, in one line. Never raises: no plan is worth a run.

    Args:
        model: the module.
        datamodule: its data.
        device: where it will run; what is neither a GPU of CUDA nor a CPU is planned as a CPU.
    """
    try:
        return line(read_settings(model, datamodule, "cuda" if device.type == "cuda" else "cpu"))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"memory: not planned ({reason[:120]})"
