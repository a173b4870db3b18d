"""What a checkpoint holds, and how a resumed run's settings override the saved ones.

Only this file uses Lightning's private checkpoint keys; ``tests/runs/test_resume.py`` fails
if a version of Lightning renames them.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lsp_lightning.errors import ConfigError, in_one_line, warn
from lsp_lightning.models.hub import gguf_sha256

#: Policy settings that give a checkpoint's tensors their meaning; a resumed run must keep them.
FIXED_SETTINGS = ("base", "base_sha256", "lora", "init_adapter", "reference", "quantization")


def run_settings(module: Any, data: Any) -> dict[str, Any]:
    """The settings to compare when a run is resumed, as plain values.

    Args:
        module: a SelfPlayModule.
        data: its SelfPlayDataModule, or None to leave out the settings of the data.
    """
    policy, lora = dict(vars(module.policy_settings)), module.policy_settings.lora
    del policy["activation_checkpointing"]  # does not change results
    policy["base_sha256"] = gguf_sha256(policy["base"])
    if module.policy is not None:  # what auto chose, which may differ on another machine
        policy["dtype"] = str(module.policy.dtype).removeprefix("torch.")
    return {
        **policy,
        "lora": vars(lora) if lora else None,
        **vars(module.loss_settings),
        "objective": plain_settings(module.objective),
        "rewards": [[r.name, r.enters, r.weight, r.scale is not None] for r in module.rewards],
        "optimizer": optimizer_defaults(module.optimizer),
        "rollouts": module.rollouts.resume_settings(),
        **(data.resume_settings() if data else {}),
    }


def plain_settings(settings: object) -> dict[str, Any]:
    """The class of an object, and its constructor's arguments that are plain values.

    They are read from attributes of the same name. Other attributes may change during a run.
    """
    arguments = {
        name
        for cls in type(settings).__mro__
        if "__init__" in vars(cls)
        for name in inspect.signature(vars(cls)["__init__"]).parameters
    }
    plain = {
        name: value
        for name, value in vars(settings).items()
        if name in arguments and isinstance(value, bool | int | float | str | None)
    }
    return {"class": type(settings).__qualname__, **plain}


def keep_trained(checkpoint: dict[str, Any], trained: set[str]) -> None:
    """Drop the policy's tensors that are not trained: the base is loaded from ``model.base``."""
    kept = {f"policy.{name}" for name in trained}
    checkpoint["state_dict"] = {
        name: tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name in kept or not name.startswith("policy.")
    }


def stay_open(checkpoint: dict[str, Any]) -> None:
    """Clear Lightning's last-batch flag in a checkpoint.

    With it set, a resumed run would end at once instead of playing more rounds.
    """
    checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False


def rounds_of(checkpoint: Mapping[str, Any]) -> int:
    """Rounds that a checkpoint's run has played, skipped ones included.

    Raises:
        ConfigError: the checkpoint does not say so.
    """
    try:
        [stream] = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        rounds = int(stream["next_round"])
        if not 0 <= rounds < 2**63:
            raise ValueError(rounds)
        return rounds
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            "ckpt_path",
            "does not say how many rounds were played",
            "use the version of lightning that wrote it",
        ) from error


def require_trained(checkpoint: dict[str, Any], trained: Mapping[str, torch.Tensor]) -> None:
    """Raise ConfigError unless a checkpoint holds all ``trained`` tensors by their names, finite.

    Loading is lenient and would leave a missing tensor unchanged.
    """
    tensors = checkpoint["state_dict"]
    missing = {f"policy.{name}" for name in trained} - set(tensors)
    if missing:
        raise ConfigError(
            "ckpt_path",
            f"lacks {len(missing)} of the trained tensors",
            "give a checkpoint of this run",
        )
    other = [name for name, own in trained.items() if tensors[f"policy.{name}"].shape != own.shape]
    if other:
        raise ConfigError(
            "ckpt_path",
            f"holds {len(other)} tensors of another size than this model's ({other[0]})",
            "give a checkpoint of this run",
        )
    if not all(tensors[f"policy.{name}"].isfinite().all() for name in trained):
        raise ConfigError(
            "ckpt_path",
            "holds weights that are not finite: its run diverged",
            "give a checkpoint of an earlier round",
        )


def compare_settings(checkpoint: dict[str, Any], now: dict[str, Any]) -> None:
    """Print the settings that differ from the checkpoint's. This run uses the new values.

    Raises:
        ConfigError: one of :data:`FIXED_SETTINGS` or the optimiser's class differs.
    """
    before = checkpoint.get("lsp_lightning", {})
    if before.get("base_sha256") and before["base_sha256"] == now.get("base_sha256"):
        before = {**before, "base": now["base"]}  # the same file, moved
    for key in sorted(k for k, value in before.items() if k in now and now[k] != value):
        changes = list(_changes(key, before[key], now[key]))
        if key == "base_sha256":
            problem = f"{now['base']!r} has another content than in the checkpoint"
            remedy = f"give the file with SHA-256 {_plain(before[key])}"
            raise ConfigError("model.base", problem, remedy)
        if key in FIXED_SETTINGS:
            name, old, new = changes[0]
            raise ConfigError(
                f"model.{name}",
                f"is {_plain(new)}, but {_plain(old)} in the checkpoint",
                "resume with the checkpoint's value",
            )
        if key == "optimizer":
            require_same_class(before[key], now[key])
            override_optimizer(checkpoint, before[key], now[key])
        for name, old, new in changes:
            line = f"{name} changed: {_plain(old)} in the checkpoint, {_plain(new)} now"
            rank_zero_only(print)(in_one_line(line))  # the checkpoint may be a stranger's


def _changes(name: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Full names of the values that differ, each with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                yield from _changes(f"{name}.{key}", before.get(key), now.get(key))
    else:
        yield name, before, now


def _plain(value: Any) -> str:
    return "null" if value is None else repr(value)


def optimizer_defaults(
    make: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
) -> dict[str, Any]:
    """The settings that the config gives an optimiser, as plain values.

    To read them, an optimiser is built once for an unused parameter.
    """
    optimizer = make([torch.nn.Parameter(torch.zeros(1, 1))])
    defaults = optimizer.defaults
    plain = {k: v for k, v in defaults.items() if isinstance(v, bool | int | float | str)}
    lists = {k: list(v) for k, v in defaults.items() if isinstance(v, tuple | list)}
    return {"class": type(optimizer).__name__} | plain | lists


def check_optimizer(
    make: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    """Raise ConfigError if the optimiser refuses its settings, or one of them is NaN.

    Warn of a learning rate of 0, which is allowed: it makes a run to compare with.
    """
    key = "model.optimizer"
    try:
        settings = optimizer_defaults(make)
    except ValueError as error:
        raise ConfigError(key, f"refuses its settings ({error})", "change them") from error
    for name, value in settings.items():
        numbers = [x for x in (value if isinstance(value, list) else [value]) if x != x]
        if numbers or (name == "lr" and not math.isfinite(value)):
            raise ConfigError(f"{key}.init_args.{name}", f"is {value}", "set a finite number")
    if settings.get("lr") == 0:
        warn(f"{key}.init_args.lr: is 0, so nothing will be learned; set a rate above 0 to train")


def require_same_class(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError unless the optimiser is of the checkpoint's class.

    Another class cannot use the state that the checkpoint holds.
    """
    if before.get("class", now["class"]) != now["class"]:
        problem = f"is {now['class']}, but the checkpoint's is {before['class']}"
        raise ConfigError("model.optimizer", problem, "resume with the checkpoint's optimiser")


def override_optimizer(
    checkpoint: dict[str, Any], before: dict[str, Any], now: dict[str, Any]
) -> None:
    """Put this run's optimiser settings into a checkpoint's optimiser and schedule.

    Restoring an optimiser restores its learning rate too, so a new rate would be ignored silently.
    A schedule keeps its position: its rates are scaled by new / old.

    Args:
        checkpoint: the loaded checkpoint; its ``optimizer_states`` and ``lr_schedulers`` are
            changed in place.
        before: the optimiser settings of the checkpoint's run.
        now: the optimiser settings of this run.
    """
    groups = [g for state in checkpoint.get("optimizer_states", []) for g in state["param_groups"]]
    others = {k for k, value in now.items() if before.get(k) != value} - {"lr", "class"}
    for key in sorted(others):
        for group in groups:
            group[key] = tuple(now[key]) if isinstance(now[key], list) else now[key]
    old, new = before.get("lr"), now.get("lr")
    if old == new or new is None:
        return
    for place in (*groups, *checkpoint.get("lr_schedulers", [])):
        for key in ("lr", "initial_lr", "base_lrs", "_last_lr"):
            if key in place:
                place[key] = _rescaled(place[key], old, new)


def _rescaled(rate: Any, old: float | None, new: float) -> Any:
    if isinstance(rate, list):
        return [_rescaled(r, old, new) for r in rate]
    return rate * new / old if old else new
