"""What was run: the main settings of runs side by side, and the settings that differ."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lsp_lightning.reporting.reading import Run
from lsp_lightning.reporting.texts import shown

#: A config of a run has about 150 settings; aliases in YAML could make any number of them.
_MOST_SETTINGS, _DEEPEST = 3000, 12
_MOST_CHARACTERS = 300
_NULL = "null"
#: Settings that differ between any two runs and say nothing.
_TRIVIAL = ("trainer.default_root_dir", "ckpt_path", "trainer.logger")


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Each setting as text, by its key. Items of a list go by their ``name`` or class, if any.

    An object's class goes by the key of the object.

    >>> flat({"model": {"rewards": [{"class_path": "a.B", "init_args": {"weight": 2}}]}})
    {'model.rewards.B': 'a.B', 'model.rewards.B.weight': '2'}
    """
    return dict(islice(_leaves(config, (), 0), _MOST_SETTINGS))


def _leaves(value: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST or not isinstance(value, dict | list) or not value:
        yield shown(".".join(path), 200), _as_text(value)
        return
    named = (
        value.items() if isinstance(value, dict) else zip(_item_names(value), value, strict=True)
    )
    for name, item in named:
        # every object has these two, so keys are shorter without them
        inner = path if name in ("class_path", "init_args") else (*path, str(name))
        yield from _leaves(item, inner, depth + 1)


def _as_text(value: Any) -> str:
    """A setting as in YAML; what is nested too deep is not told."""
    if isinstance(value, dict | list):
        return "..." if value else "none"
    words = {None: _NULL, True: "true", False: "false"}
    return (
        words[value]
        if value is None or value is True or value is False
        else shown(value, _MOST_CHARACTERS)
    )


def _item_names(items: Sequence[Any]) -> list[str]:
    """A name for each item of a list: of its reward, of its class, or else its number."""
    names = [label(item) if isinstance(item, dict) else "" for item in items]
    return [
        name if name and names.count(name) == 1 else f"{name}[{i}]" for i, name in enumerate(names)
    ]


def label(setting: Any) -> str:
    """The name of a reward, or the class without its module; empty for what is neither."""
    if not isinstance(setting, dict):
        return ""
    name = _get(setting, "init_args", "name")
    return str(name or str(setting.get("class_path") or "").rpartition(".")[2])


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs: the key, and a value for each run.

    "-" stands for a setting that a run does not have. Runs without a config are left out of the
    comparison.
    """
    tables = [flat(run.config) for run in runs]
    known = [table for table in tables if table]
    return [
        (key, [table.get(key, "-") for table in tables])
        for key in dict.fromkeys(key for table in tables for key in table)
        if key not in _TRIVIAL
        and len({table.get(key) for table in known}) > 1
        and all(_has_owner(table, key, tables) for table in known)
    ]


def _has_owner(table: Mapping[str, str], key: str, tables: Sequence[Mapping[str, str]]) -> bool:
    """Whether a table has the object that a setting belongs to, if any has: of a reward that a run
    lacks, its class is told, and not all of its settings."""
    parts = key.split(".")
    owners = {".".join(parts[:end]) for end in range(1, len(parts))}
    present = {owner for owner in owners for t in tables if t.get(owner, _NULL) != _NULL}
    return all(table.get(owner, _NULL) != _NULL for owner in present)


def main_settings(run: Run) -> dict[str, str]:
    """What was run, in about a dozen lines: label -> text, escaped. Unknown ones are left out."""
    config = run.config
    model, data = _get(config, "model"), _get(config, "data")
    found = {
        "model": _model(model),
        "rounds": _rounds(run),
        "queries x answers": _pair(_get(data, "num_queries"), _get(data, "group_size")),
        "time": _duration(run.summary.get("seconds")),
        "GPU peak": _gib(run.summary.get("gpu_peak_gib")),
        "queries from": _with_arguments(_get(data, "queries"), ("task", "path", "file")),
        "objective": label(_get(model, "objective")),
        "rewards": _rewards(_get(model, "rewards")),
        "gate": _present(config, "data", "gate"),
        "pool": _present(config, "data", "pool"),
        "KL": _joined(beta=_get(model, "beta"), form=_get(model, "kl")),
        "learning rate": _get(model, "optimizer", "init_args", "lr"),
        "weight of the Challenger": _get(model, "alpha_ch"),
        "LoRA": _joined(rank=_get(model, "lora", "rank"), alpha=_get(model, "lora", "alpha")),
        "seed": _get(config, "seed_everything"),
    }
    return {name: shown(text, _MOST_CHARACTERS) for name, text in found.items() if _is_told(text)}


def _get(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_told(value: object) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _model(model: Any) -> str:
    kinds = [_get(model, "quantization") or _get(model, "dtype")]
    base = _get(model, "base")
    return ", ".join(str(part) for part in [base, *kinds] if _is_told(part))


def _rounds(run: Run) -> str:
    planned = _get(run.config, "trainer", "max_steps")
    if type(planned) is int and planned > 0 and planned != run.rounds:
        return f"{run.rounds:,} of {planned:,}"
    return f"{run.rounds:,}"


def _pair(first: object, second: object) -> str:
    return f"{first} x {second}" if _is_told(first) and _is_told(second) else ""


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return ""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _gib(value: object) -> str:
    return f"{value:.1f} GiB" if isinstance(value, int | float) else ""


def _with_arguments(setting: Any, names: Sequence[str]) -> str:
    arguments = [_get(setting, "init_args", name) for name in names]
    return ", ".join([label(setting), *(str(a) for a in arguments if _is_told(a))]).strip(", ")


def _rewards(rewards: Any) -> str:
    if not isinstance(rewards, list):
        return ""
    texts = []
    for reward in rewards[:20]:
        weight, enters = (_get(reward, "init_args", key) for key in ("weight", "enters"))
        times = f"{weight:g} x " if isinstance(weight, int | float) and weight != 1 else ""
        texts.append(times + label(reward) + (f" ({enters})" if _is_told(enters) else ""))
    return ", ".join(texts)


def _present(config: Any, *path: str) -> str:
    if path[-1] not in (_get(config, *path[:-1]) or {}):
        return ""
    return "yes" if _get(config, *path) else "no"


def _joined(**parts: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if _is_told(value))
