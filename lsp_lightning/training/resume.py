"""What a checkpoint holds, and what was typed holding over it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lsp_lightning.errors import ConfigError

#: Settings without which a checkpoint's tensors mean something else.
_DECISIVE = ("base", "lora", "init_adapter", "reference", "quantization")


def run_settings(module: Any, data: Any) -> dict[str, Any]:
    """The settings of a module and its data that a resumed run is compared by: plain values."""
    policy, lora = dict(vars(module.policy_settings)), module.policy_settings.lora
    del policy["activation_checkpointing"]  # changes nothing that is computed
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
    """The class of an object and its public attributes that are plain values."""
    plain = {
        name: value
        for name, value in vars(settings).items()
        if not name.startswith("_") and isinstance(value, bool | int | float | str | None)
    }
    return {"class": type(settings).__qualname__, **plain}


def keep_trained(checkpoint: dict[str, Any], trained: set[str]) -> None:
    """Drop the policy's tensors that are not in ``trained``: the base is loaded from its folder."""
    kept = {f"policy.{name}" for name in trained}
    checkpoint["state_dict"] = {
        name: tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name in kept or not name.startswith("policy.")
    }


def stay_open(checkpoint: dict[str, Any]) -> None:
    """Let more rounds follow: Lightning marks the last batch of an epoch and would end there."""
    checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False


def require_trained(checkpoint: dict[str, Any], trained: set[str]) -> None:
    """Whether a checkpoint holds all of ``trained``; loading is lenient and would not say.

    Raises:
        ConfigError: some are missing.
    """
    missing = {f"policy.{name}" for name in trained} - set(checkpoint["state_dict"])
    if missing:
        raise ConfigError(
            "ckpt_path", f"lacks {len(missing)} trained tensors", "give a checkpoint of this run"
        )


def compare_settings(checkpoint: dict[str, Any], now: dict[str, Any]) -> None:
    """Say which settings differ from the checkpoint's; the ones given now hold.

    Raises:
        ConfigError: the checkpoint is of another base, adapter or reference.
    """
    before = checkpoint.get("lsp_lightning", {})
    for key in sorted(k for k, value in before.items() if k in now and now[k] != value):
        was = _difference(before[key], now.get(key))
        if key in _DECISIVE:
            raise ConfigError(f"model.{key}", was, "resume with the setting of the checkpoint")
        if key == "optimizer":
            require_same_class(before[key], now[key])
        rank_zero_only(print)(f"resuming with another {key}: {was}")
        if key == "optimizer":
            retype_optimizer(checkpoint, before[key], now[key])


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        return ", ".join(f"{k}: {_difference(before.get(k), now.get(k))}" for k in names)
    return f"{before!r} in the checkpoint, {now!r} now"


def optimizer_defaults(
    make: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
) -> dict[str, Any]:
    """An optimiser's settings as typed, as plain values, found on a stand-in parameter."""
    optimizer = make([torch.nn.Parameter(torch.zeros(1))])
    defaults = optimizer.defaults
    plain = {k: v for k, v in defaults.items() if isinstance(v, bool | int | float | str)}
    lists = {k: list(v) for k, v in defaults.items() if isinstance(v, tuple | list)}
    return {"class": type(optimizer).__name__} | plain | lists


def require_same_class(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Whether an optimiser can go on with a checkpoint's state: others keep another one.

    Raises:
        ConfigError: it is of another class.
    """
    if before.get("class", now["class"]) != now["class"]:
        was = _difference(before["class"], now["class"])
        raise ConfigError("model.optimizer", was, "resume with the optimiser of the checkpoint")


def retype_optimizer(
    checkpoint: dict[str, Any], before: dict[str, Any], now: dict[str, Any]
) -> None:
    """Put the optimiser settings typed for this run into a checkpoint's optimiser and schedule.

    Restoring an optimiser also restores its learning rate, so that a rate typed anew would be lost
    without a word. A rate that a schedule has moved keeps its place in it: rates are scaled by
    new / old.

    Args:
        checkpoint: as loaded; its ``optimizer_states`` and ``lr_schedulers`` are changed in place.
        before: the settings that the checkpoint's run was typed with.
        now: the settings of this run.
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
