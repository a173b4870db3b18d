"""``lsp-lightning list settings``: every setting of this package with its default and meaning.

Names, defaults and meanings come from the signatures and docstrings of the classes.
"""

import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lsp_lightning.errors import ConfigError

#: The module's default optimiser, written so that a printed config can be read again.
OPTIMIZER: dict[str, Any] = {
    "class_path": "torch.optim.AdamW",
    "init_args": {"lr": 1e-5, "betas": [0.9, 0.95], "weight_decay": 0.0},
}

_TOPICS = ("settings",)
_WIDTH = 96


@dataclass(frozen=True)
class Setting:
    """A setting as the config names it."""

    key: str
    default: str | None
    """None if the setting must be given."""
    meaning: str
    is_group: bool = False
    """Whether it only contains settings that are listed elsewhere."""


@dataclass(frozen=True)
class Section:
    """The settings of one class, or those that several classes share."""

    group: str
    title: str
    settings: tuple[Setting, ...]
    uses: int
    """Number of settings if a shared one counts once for each class that has it."""


@dataclass(frozen=True)
class _Family:
    """Classes that a config names by ``class_path``."""

    group: str
    base: str
    each: str
    """What the list calls one of them, such as "query source"."""
    key: str
    """Where they go in a config, such as ``data.queries``."""


_ROOT = "lsp_lightning"
#: Keys that follow another key, so a config cannot set them.
_LINKED = {"data.seed"}
#: Classes with a fixed position in a config: group, class, prefix of its keys, and a title.
_FIXED = (
    ("model", "module.SelfPlayModule", "model.", ""),
    ("model", "models.settings.Lora", "model.lora.", ""),
    ("data", "datamodule.SelfPlayDataModule", "data.", ""),
    ("gate", "game.gate.Gate", "data.gate.", ""),
    ("pool", "game.pool.Pool", "data.pool.", ""),
    ("sandboxes", "sandbox.Limits", "limits.", "limits of every sandbox"),
    ("sampling", "types.Sampling", "", "data.solver, and every sampling key"),
    ("rollouts", "runtime.http.Client", "client.", "client of ServedRollouts and JudgeReward"),
    ("checkpoint", "callbacks.RoundCheckpoint", "checkpoint.", ""),
    ("transcripts", "callbacks.Transcripts", "transcripts.", ""),
    ("examples", "callbacks.Examples", "examples.", ""),
)
_FAMILIES = (
    _Family("data", "game.queries.QuerySource", "query source", "data.queries"),
    _Family("gate", "game.gate.QueryCheck", "check", "data.gate.checks"),
    _Family("objectives", "game.objectives.Objective", "objective", "model.objective"),
    _Family("rewards", "rewards.Reward", "reward", "model.rewards"),
    _Family("verifiers", "rewards.Verifier", "verifier", "VerifiableReward: verifier"),
    _Family("sandboxes", "sandbox.Sandbox", "sandbox", "CodeVerifier: sandbox"),
    _Family("rollouts", "generation.RolloutSettings", "kind of rollouts", "model.rollouts"),
)
_GROUPS = (
    "model",
    "data",
    "gate",
    "pool",
    "objectives",
    "rewards",
    "verifiers",
    "sandboxes",
    "sampling",
    "rollouts",
    "checkpoint",
    "transcripts",
    "examples",
)


def list_topic(args: Sequence[str]) -> int:
    """Print one topic. -> the exit status.

    Raises:
        ConfigError: there is no such topic.
    """
    usage = f"write lsp-lightning list {' | '.join(_TOPICS)}"
    if list(args) in (["-h"], ["--help"]):
        print(usage.removeprefix("write "))
        return 0
    if not args:
        raise ConfigError("list", "has no topic", usage)
    if len(args) > 1 or args[0] not in _TOPICS:
        raise ConfigError("list", f"{' '.join(args)!r} is not a topic", usage)
    print(settings_text(all_sections()))
    return 0


def settings_text(sections: Sequence[Section]) -> str:
    """The list as text; its last line has both counts."""
    lines: list[str] = []
    group = ""
    for section in sections:
        if section.group != group:
            group = section.group
            lines += ["", group] if lines else [group]
        if section.title:
            lines.append(f"  [{section.title}]")
        for setting in section.settings:
            lines.append(f"  {setting.key} {_value(setting)}")
            indent = " " * 6
            lines += textwrap.wrap(
                setting.meaning, _WIDTH, initial_indent=indent, subsequent_indent=indent
            )
    once, uses = counts(sections)
    lines += ["", f"{once} settings ({uses} if shared settings count once for each class)"]
    return "\n".join(lines)


def counts(sections: Sequence[Section]) -> tuple[int, int]:
    """The number of settings, and the number if shared ones count once per class."""
    once = sum(_count(section.settings) for section in sections)
    return once, sum(section.uses for section in sections)


def _count(settings: Sequence[Setting]) -> int:
    return sum(not setting.is_group for setting in settings)


def _value(setting: Setting) -> str:
    if setting.default is None:
        return "(required)"
    return f"(group) {setting.default}" if setting.is_group else f"= {setting.default}"


def all_sections() -> list[Section]:
    """Every setting of this package, once, in the order of the groups."""
    found = []
    for group, path, before, title in _FIXED:
        settings = _settings_of(_load(path), before)
        found.append(Section(group, title, tuple(settings), _count(settings)))
    for family in _FAMILIES:
        found += _of_family(family)
    return sorted(found, key=lambda section: _GROUPS.index(section.group))


def _of_family(family: _Family) -> list[Section]:
    """The settings that all classes of a family take from its base, then those of each class."""
    base = _load(family.base)
    classes = [cls for cls in _exported() if issubclass(cls, base) and cls is not base]
    # a field that the base only annotates must be defined by each of its classes
    fields = {name for name in inspect.get_annotations(base) if not hasattr(base, name)}
    names = set(_parameters(base)) | fields
    shared: dict[str, Setting] = {}
    uses = 0
    rest = []
    for cls in classes:
        settings = _settings_of(cls, "init_args.")
        common = [s for s in settings if s.key.removeprefix("init_args.") in names]
        uses += _count(common)
        shared |= {s.key: s for s in common if s.key not in shared}
        more = tuple(s for s in settings if s not in common)
        if more:
            rest.append(
                Section(family.group, f"{cls.__name__} of {family.key}", more, _count(more))
            )
    of_base = {s.key: s for s in _settings_of(base, "init_args.")}
    every = tuple(of_base.get(key, setting) for key, setting in shared.items())
    if not every:
        return rest
    return [Section(family.group, f"every {family.each} of {family.key}", every, uses), *rest]


def _load(path: str) -> Any:
    module, _, name = f"{_ROOT}.{path}".rpartition(".")
    return getattr(import_module(module), name)


def _exported() -> list[type]:
    """The classes that ``from lsp_lightning import ...`` offers."""
    package = import_module(_ROOT)
    values = (getattr(package, name) for name in package.__all__)
    return [value for value in values if inspect.isclass(value)]


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class; none if it has no ``__init__``."""
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    return dict(inspect.signature(cls).parameters)


def _settings_of(cls: type, before: str) -> list[Setting]:
    meanings = _meanings(cls)
    groups = tuple(_load(path) for _, path, _, _ in _FIXED)
    return [
        Setting(
            f"{before}{name}",
            _default(parameter),
            meanings.get(name, ""),
            type(parameter.default) in groups and parameter.annotation is type(parameter.default),
        )
        for name, parameter in _parameters(cls).items()
        if f"{before}{name}" not in _LINKED
    ]


def _meanings(cls: type) -> dict[str, str]:
    """The meaning of each setting, from the docstrings of the class and its bases."""
    from docstring_parser import parse_from_object

    found = {}
    for owner in reversed(cls.__mro__[:-1]):
        if owner.__doc__:
            for parameter in parse_from_object(owner).params:
                found[parameter.arg_name] = " ".join((parameter.description or "").split())
    return found


def _default(parameter: inspect.Parameter) -> str | None:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return None
    if parameter.name == "optimizer":
        return f"{OPTIMIZER['class_path']} {OPTIMIZER['init_args']}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
