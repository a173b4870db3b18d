"""Loggers of other services (W&B): one run there for each run folder, with all settings."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text

_KEY = "--trainer.logger"
_SHORT = {
    "wandb": "lightning.pytorch.loggers.WandbLogger",
    "mlflow": "lightning.pytorch.loggers.MLFlowLogger",
    "comet": "lightning.pytorch.loggers.CometLogger",
}
#: Names of what a run writes without a logger of Lightning's: why, and what to do.
_WRITTEN = {
    "csv": ("every run writes metrics.csv", "leave it out"),
    "tensorboard": (
        "its events are written if no logger is named",
        "leave it out, or name TensorBoardLogger by its class_path, with a save_dir",
    ),
}
#: The package that each of Lightning's loggers needs.
_NEEDS = {
    "WandbLogger": "wandb",
    "TensorBoardLogger": "tensorboard",
    "CometLogger": "comet_ml",
    "MLFlowLogger": "mlflow",
}
_PROJECT = "lsp-lightning"


def with_logger_class(args: Sequence[str]) -> list[str]:
    """The arguments, with a logger's short name replaced by its class."""
    spelled, before = [], ""
    for arg in args:
        flag, equals, value = arg.partition("=")
        if flag == _KEY and equals:
            arg = f"{flag}={_typed_class(value)}"
        elif before == _KEY:
            arg = _typed_class(arg)
        spelled.append(arg)
        before = arg
    return spelled


def logger_class(value: Any) -> Any:
    """The value of ``trainer.logger``, with short names replaced by classes, in a list too.

    Raises:
        ConfigError: it names what a run writes anyway.
    """
    if isinstance(value, list):
        return [logger_class(entry) for entry in value]
    if isinstance(value, str) and value in _WRITTEN:
        why, remedy = _WRITTEN[value]
        raise ConfigError("trainer.logger", f"names {value}, but {why}", remedy)
    return _SHORT.get(value, value) if isinstance(value, str) else value


def _typed_class(value: str) -> str:
    """The same for what was typed."""
    if not value.startswith("["):
        return str(logger_class(value))
    import yaml

    with suppress(yaml.YAMLError, ValueError):  # the parser reports it
        return json.dumps(logger_class(yaml.safe_load(value)))
    return value


def check_loggers(logger: Any) -> None:
    """Raise ConfigError unless the packages are installed that the config's loggers need."""
    for entry in _entries(logger):
        name = entry.class_path.rpartition(".")[2]
        package = _NEEDS.get(name)
        if package and find_spec(package) is None:
            raise ConfigError(
                "trainer.logger",
                f"{name} needs the package {package}, which is not installed",
                f"pip install {package}, or leave the logger out",
            )


def prepare_loggers(logger: Any, folder: Path) -> None:
    """Fill in what the config leaves open: files in the run's folder, one id for all resumes.

    Args:
        logger: ``trainer.logger`` of the parsed config; changed in place.
        folder: the run's folder.
    """
    for entry in _entries(logger):
        if entry.class_path.rpartition(".")[2] == "WandbLogger":
            _prepare_wandb(entry, folder)


def _prepare_wandb(entry: Any, folder: Path) -> None:
    settings = entry.init_args
    if settings.get("save_dir") in (None, ".") and settings.get("dir") is None:
        settings["save_dir"] = str(folder)
    if settings.get("id") is None and settings.get("version") is None:
        settings["id"] = _stored_id(folder) or secrets.token_hex(4)
    settings["project"] = settings.get("project") or _PROJECT
    settings["name"] = settings.get("name") or folder.name


def keep_id(loggers: Sequence[Any], folder: Path) -> None:
    """Store the id of a run at W&B in the run's folder, for its resumes."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger" and logger.version:
            write_text(RunFolder(folder).wandb_id_path, f"{logger.version}\n")


def _stored_id(folder: Path) -> str | None:
    path = RunFolder(folder).wandb_id_path
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _entries(logger: Any) -> Iterator[Any]:
    """The loggers that the config names by their class."""
    for entry in logger if isinstance(logger, list) else [logger]:
        if hasattr(entry, "class_path"):
            yield entry
