"""Read and check config files before any slow import."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsp_lightning.cli.loggers import logger_class
from lsp_lightning.errors import ConfigError

if TYPE_CHECKING:
    import yaml

#: A config has some kilobytes and some hundred values. More would keep the parser busy for minutes.
_MAX_BYTES = 200_000
_MAX_VALUES = 10_000
_MAX_DEPTH = 50
#: The keys of a class.
_CLASS = frozenset(("class_path", "init_args", "dict_kwargs"))
_GROUPS = ("model", "data", "trainer", "checkpoint", "transcripts", "examples")


def flags_of(args: Sequence[str]) -> list[tuple[str, str]]:
    """Flags with their values, written ``--flag value`` or ``--flag=value``."""
    found = []
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        flag, equals, value = arg.partition("=")
        if flag.startswith("-"):
            found.append((flag, value if equals else following))
    return found


def ready_configs(args: Sequence[str]) -> list[str]:
    """The arguments, with some files replaced by their content.

    They are pipes, which can be read only once, and files with the short name of a logger.

    Raises:
        ConfigError: a config is missing, or is not a YAML mapping that the parser accepts.
    """
    args = list(args)
    for flag, value in flags_of(args):
        if flag in ("--config", "-c"):
            if not value:
                raise ConfigError("config", "has no value", "write --config FILE")
            text = _text(value)
            check_config(text, repr(value))
            ready = _with_loggers(text)
            if ready != text or not Path(value).is_file():  # `--config <(...)` or /dev/stdin
                text = ready
                args = [text if arg == value else arg for arg in args]
                args = [f"{flag}={text}" if arg == f"{flag}={value}" else arg for arg in args]
        elif flag.startswith(("--model.rewards.", "--trainer.callbacks.")):
            _check_list(args, flag)
        elif flag == "--data":
            _check_data(value, "by --data")
        if flag.startswith("--") and value[:1] in ("[", "{"):
            check_classes(_typed(value), flag.removeprefix("--").removesuffix("+"))
    return args


def _with_loggers(text: str) -> str:
    """A config with classes in place of the short names of loggers; other configs unchanged."""
    import yaml

    content = yaml.safe_load(text) if "logger" in text else {}
    trainer = content.get("trainer")
    if not isinstance(trainer, dict):
        return text
    spelled = logger_class(trainer.get("logger"))
    if spelled == trainer.get("logger"):
        return text
    content["trainer"] = {**trainer, "logger": spelled}
    return str(yaml.safe_dump(content, sort_keys=False))


def check_config(text: str, name: str) -> None:
    """Check the content of a config file.

    Args:
        text: the content.
        name: the file's name, quoted, for messages.

    Raises:
        ConfigError: it is not YAML, is empty, is too large, sets a key twice, or is not a mapping
            of keys to values.
    """
    content = _content(text, name)
    if content is None:
        raise ConfigError("config", f"{name} is empty", "write lines of the form key: value")
    if not isinstance(content, dict):
        problem = f"{name} is not a mapping of keys to values"
        raise ConfigError("config", problem, "write lines of the form key: value")
    for key, value in content.items():
        if not isinstance(key, str):
            raise ConfigError("config", f"{name} has the key {key!r}", "write keys as words")
        if key not in _GROUPS:
            continue
        if value is None:
            raise ConfigError(key, f"is empty in {name}", "write keys below it, or remove it")
        if not isinstance(value, dict | str):  # a text may be the path of another file
            problem = f"must be a mapping of keys to values, is {value!r}"
            raise ConfigError(key, problem, "write lines of the form key: value below it")
    _check_data(content.get("data"), f"in {name}")
    model = content.get("model")
    if isinstance(model, dict) and "rewards" in model and model["rewards"] is None:
        remedy = "write a list of rewards below it, or remove it"
        raise ConfigError("model.rewards", f"is empty in {name}", remedy)
    check_classes(content, "")


def check_classes(value: Any, key: str) -> None:
    """Check the form of all classes below a key: their path, and their settings under init_args.

    The parser would merge an entry of a list that has no path with the entry before this file.

    Raises:
        ConfigError: an entry of a list of classes has no path, or there is a key beside it.
    """
    if isinstance(value, dict):
        _check_class(value, key)
        for name, inner in value.items():
            check_classes(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        classes = any(isinstance(entry, dict) and _CLASS & set(entry) for entry in value)
        for number, entry in enumerate(value, start=1):
            if classes and isinstance(entry, dict):
                if "class_path" not in entry:
                    remedy = "write it before init_args, with one dash for both"
                    raise ConfigError(key, f"item {number} has no class_path", remedy)
                _check_class(entry, key, f"item {number} ")
            check_classes(entry, key)


def _check_class(entry: Mapping[str, Any], key: str, item: str = "") -> None:
    """Raise ConfigError for a key beside class_path."""
    others = [str(name) for name in entry if name not in _CLASS]
    if "class_path" in entry and others:
        problem = f"{item}has {others[0]} beside class_path"
        raise ConfigError(key, problem, f"put {others[0]} under init_args")


def _check_list(args: Sequence[str], flag: str) -> None:
    """Raise ConfigError for a flag into a list, unless the list was typed before it.

    The parser would change the last entry of the config's list, whichever that is.
    """
    key = "--" + ".".join(flag.removeprefix("--").split(".")[:2])
    before = list(args)[: [arg.partition("=")[0] for arg in args].index(flag)]
    if not {key, f"{key}+"} & {name for name, _ in flags_of(before)}:
        raise ConfigError(
            flag.removeprefix("--"),
            f"does not say which entry of the list {key.removeprefix('--')} is meant",
            "set it in a file that you give by --config",
        )


def _check_data(value: Any, where: str) -> None:
    """Raise ConfigError if ``data`` has a seed: the parser would ignore it."""
    if isinstance(value, str):
        with suppress(OSError, ValueError):
            if Path(value).is_file():
                check_config(f"data:\n  {'  '.join(_text(value).splitlines(True))}", value)
                return
            value = json.loads(value)
    if isinstance(value, dict) and "seed" in value:
        problem = f"is set {where}, but follows seed_everything"
        raise ConfigError("data.seed", problem, "set seed_everything")


def _typed(value: str) -> Any:
    """The list or mapping that was typed as a flag's value; None if the parser will refuse it."""
    import yaml

    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _text(name: str) -> str:
    path, name = Path(name), repr(name)
    if path.is_dir():
        raise ConfigError("config", f"{name} is a folder", "give a YAML file")
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ConfigError("config", f"no file {name}", "give an existing YAML file") from error
    except OSError as error:
        problem = f"{name} cannot be read ({error.strerror})"
        raise ConfigError("config", problem, "give a file that you can read") from error
    if len(content) > _MAX_BYTES:
        problem = f"{name} is larger than {_MAX_BYTES // 1000} kB"
        raise ConfigError("config", problem, "give the config of a run")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("config", f"{name} is not UTF-8", "save it as UTF-8") from error


def _content(text: str, name: str) -> Any:
    import yaml

    try:
        _check_depth(text, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _count(root, name, "", {})
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        what = (error.problem or error.context or "it is broken").replace(r"'\t'", "tab")
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        remedy = "indent with spaces" if "tab" in what else "fix it"
        raise ConfigError("config", f"{name} is not YAML ({line}{what})", remedy) from error
    except (yaml.YAMLError, ValueError) as error:  # an unprintable character, an impossible date
        raise ConfigError("config", f"{name} is not YAML ({error})", "fix it") from error


def _check_depth(text: str, name: str) -> None:
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError("config", f"{name} is nested too deeply", "fix it")


def _count(node: "yaml.Node", name: str, key: str, known: dict[int, int]) -> int:
    """Count the values of a node with aliases written out; ``known`` holds counts of other nodes.

    Raises:
        ConfigError: there are too many, an alias contains itself, or a key is set twice.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise ConfigError("config", f"{name} has an alias of itself", "fix it")
        return known[id(node)]
    known[id(node)] = 0
    total = 1
    for inner_key, inner in _children(node, name, key):
        total += _count(inner, name, inner_key, known)
        if total > _MAX_VALUES:
            problem = f"{name} has more than {_MAX_VALUES:,} values, aliases written out"
            raise ConfigError("config", problem, "give the config of a run")
    known[id(node)] = total
    return total


def _children(node: "yaml.Node", name: str, key: str) -> Iterator[tuple[str, "yaml.Node"]]:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        yield from ((key, inner) for inner in node.value)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name_node, inner in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                raise ConfigError("config", f"{name} has a key that is not a word", "fix it")
            part, line = str(name_node.value), name_node.start_mark.line + 1
            whole = f"{key}.{part}" if key else part
            if part in lines and part != "<<":
                problem = f"is set twice in {name} (lines {lines[part]} and {line})"
                raise ConfigError(whole, problem, "remove one")
            lines[part] = line
            yield whole, inner
