"""Reading a run's checkpoint without the module that wrote it."""

import pickle
from typing import Any

import torch

from lsp_lightning.errors import ConfigError

_REMEDY = "give a run's checkpoints/last.ckpt"


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint; its tensors stay on the disk until they are used.

    Raises:
        ConfigError: the file is not a checkpoint of this package.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError("ckpt_path", f"{path!r} is not a checkpoint", _REMEDY) from error
    if not isinstance(found, dict) or not {"state_dict", "lsp_lightning"} <= set(found):
        raise ConfigError("ckpt_path", f"{path!r} is not an lsp-lightning checkpoint", _REMEDY)
    return found
