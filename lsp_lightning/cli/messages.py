"""A parser's many-lined errors as one line: the key, what is wrong, what to do."""

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from types import TracebackType

from lsp_lightning.errors import ConfigError

_UNKNOWN = (
    r"(?:Key|key|option|Option) ['\"]([\w.]+)['\"] is not (?:expected|accepted)",
    r"does not accept option ['\"]([\w.]+)['\"]",
    r"[Uu]nrecognized arguments: --([\w.]+)",
)
_LONGEST = 300

#: Keys of earlier versions, and what they are now.
RENAMED = {"model.rollout_tokens": "model.rollouts.tokens"}


def one_line(message: str, keys: Sequence[str]) -> ConfigError:
    """The error that a user reads.

    Args:
        message: the parser's own, of any number of lines.
        keys: the keys there are, to suggest the nearest.
    """
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip(" -"))
    inside = re.findall(r"Parser key \"([\w.]+)\":", text)
    for pattern in _UNKNOWN:
        unknown = re.search(pattern, text)
        if unknown:
            return _unknown_key(unknown.group(1), inside[:1], keys)
    required = re.search(r"arguments are required: (.*)", text)
    if required:
        missing = re.sub(r"\b(fit|validate|test|predict|plan|export|chat)\.", "", required.group(1))
        if _of_a_class(keys):
            return ConfigError(f"init_args.{missing}", "not set", "set it in the config")
        return ConfigError(missing, "not set", "give --config FILE, such as configs/tiny_lsp.yaml")
    nested = re.search(r"(\w+): there is no such key; (did you mean '\w+'\?)?", text)
    if nested and inside:
        remedy = nested.group(2) or "see --help for the keys"
        return ConfigError(f"{inside[0]}.{nested.group(1)}", "there is no such key", remedy)
    key = inside[0] if inside else "config"
    if inside and _of_a_class(keys):
        key = f"init_args.{key}"
    problem = _plain(re.sub(r"^(config: )?(Parser key \"[\w.]+\":\s*)+", "", text))
    return ConfigError(key, problem, "see --help for each key's values")


def renamed(key: str, where: str = "") -> ConfigError:
    """What is said of a key of an earlier version, found in a file or on the command line."""
    return ConfigError(key, f"is {RENAMED[key]} now", f"rename it{where}")


def located(error: ConfigError) -> ConfigError:
    """The error of a class's parser, which does not know where it stands, with its whole key.

    The keys that lead there are those whose values were being looked at when it was raised.
    """
    above = list(_keys_on_the_way(error.__traceback__))
    if not above or not error.key.startswith("init_args."):
        return error
    key = ".init_args.".join([*above, error.key.removeprefix("init_args.")])
    return ConfigError(key, error.problem, error.remedy)


def _keys_on_the_way(trace: TracebackType | None) -> Iterator[str]:
    last = None
    while trace is not None:
        action = trace.tb_frame.f_locals.get("self")
        if isinstance(action, argparse.Action) and hasattr(action, "_typehint"):
            if action is not last:
                yield action.dest
            last = action
        trace = trace.tb_next


def _of_a_class(keys: Sequence[str]) -> bool:
    """Whether a parser with these keys is that of a class, and not of a command."""
    return "config" not in keys


def hidden_config_error(error: BaseException) -> ConfigError | None:
    """The ConfigError that a parser wrapped while it tried one type after another, if any."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConfigError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _unknown_key(key: str, inside: Sequence[str], keys: Sequence[str]) -> ConfigError:
    full = key if not inside or key.startswith(inside[0]) else f"{inside[0]}.{key}"
    if full in RENAMED:
        return renamed(full)
    near = difflib.get_close_matches(full, keys, n=1, cutoff=0.6)
    remedy = f"did you mean {near[0]!r}?" if near else "see --help for the keys"
    if _of_a_class(keys):
        full = f"init_args.{full}"
        if not near:
            remedy = f"the keys here are {', '.join(key for key in keys if key != 'help')}"
    return ConfigError(full, "there is no such key", remedy)


def _plain(text: str) -> str:
    """A parser's way of naming types and values in words."""
    text = re.sub(r"Does not validate against any of the Union subtypes.*?Errors:\s*", "", text)
    text = re.sub(r"Expected a <class 'NoneType'>\.?", "", text)
    text = re.sub(r"Expected a path but .*? either not accessible or invalid\s*", "", text)
    text = re.sub(r"Given value type: .*", "", text)
    text = re.sub(r"Namespace\(class_path='([\w.]+)'[^)]*\)", r"\1", text)
    text = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"must be one of \1", text)
    text = re.sub(r"Expected an? <class '(\w+)'>", r"must be \1", text)
    text = re.sub(
        r"Type \S*Callable\[.*?\] expects a function or a callable class: (.*?)\. Got value: (\S+)",
        r"cannot import \2 (\1)",
        text,
    )
    text = re.sub(r"Problem with given class_path (\S+):\s*", r"cannot use \1: ", text)
    text = re.sub(r"\. Got value: (\S+)", r", is \1", text)
    text = re.sub(r"\s+", " ", text).strip(" ;")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
