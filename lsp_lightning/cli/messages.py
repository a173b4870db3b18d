"""The parser's errors in one line: which key, what is wrong, what to do.

Only this file depends on the wording of jsonargparse's messages. A test provokes each message
(``tests/cli/test_messages.py``), so it fails if a new version changes the wording.
"""

import argparse
import re
from collections.abc import Sequence

from lsp_lightning.cli.synonyms import (
    about_class,
    class_near,
    missing_methods,
    renaming,
    unknown_key,
)
from lsp_lightning.cli.trust import REMEDY
from lsp_lightning.errors import (
    ConfigError,
    WriteError,
    causes,
    storage_failure,
    system_error,
)

_LONGEST = 300
_SEE_VALUES = "see --help for each key's values"

_KEY = re.compile(r"Parser key \"([\w.]+)\"")
_UNKNOWN_FLAG = re.compile(r"unrecognized arguments: --([^\s=]+)")
_UNKNOWN_WORD = re.compile(r"unrecognized arguments: (\S+)")
_UNKNOWN_OPTION = re.compile(r"Option '([\w.]+)' is not accepted")
_UNKNOWN_IN_FILE = re.compile(r"(Group|Subcommand) '([\w.]+)' does not accept option '(.+?)'")
_NOT_SET = re.compile(r"arguments are required: ([\w.]+)|Key '([\w.]+)' is required")
_NO_VALUE = re.compile(r"argument --([\w.]+): expected one argument")
_NO_GROUP = re.compile(r"Unable to load config '(.*?)'")

_VALUE = re.compile(r"(?:Given value|Got value): (.*)")
_WHOLE_VALUE = re.compile(r"Given value: (.*)")  # a part of it may stand before as Got value
_UNION = "Does not validate against any of the Union subtypes"
_WANTED = re.compile(r"Expected an? (?:typing\.Literal\[(.*?)\]|<class '([\w.]+)'>)")
_NAME = re.compile(r"[A-Za-z_][\w.]*(?<!True)(?<!False)(?<!None)")
_ASSIGNED = re.compile(r"([a-z][\w.]*)=(.+)")
_DATA_FILES = (".jsonl", ".json", ".csv", ".txt", ".parquet")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "dict": "a mapping of keys to values",
    "list": "a list",
    "Iterable": "a list",
    "NoneType": "null",
    "tuple": "two numbers",
}
_PAIR = re.compile(r"Expected a tuple with 2 elements|Subtypes: \[tuple\[float, float\], ")
_LIST_OR_NULL = re.compile(r"Subtypes: \[list\[[\w.]+\], <class 'NoneType'>\]")
#: A class or null: the value is neither a path nor a mapping.
_CLASS_OR_NULL = re.compile(r"Subtypes: \[<class '[\w.]*?(\w+)'>, <class 'NoneType'>\]")
_NOT_A_CLASS = re.compile(
    r"Not a valid subclass of \w+ Subclass types|Expected a dot import path|Unexpected import path"
)
#: Keys below which settings stand without class_path and init_args.
_SHORT = ("data.gate", "data.pool")
#: Their classes, and an example.
_MAPPINGS = {"Gate": " such as {redraws: 3}", "Pool": " such as {share: 0.25}"}
_NO_IMPORT = re.compile(r"(No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+')")
_IMPORTED = (
    re.compile(r"(?:given class_path |class_path=)'([\w.]+)'"),
    re.compile(r"(?:Got|Given) value: ([\w.]+)"),
)
_OTHER_CLASS = re.compile(r"Import path (?:([\w.]+) )?does not correspond to a subclass of (\w+)")
_NO_PATH = re.compile(r"Expected a dot import path string: (\S*)")
_ABSTRACT = re.compile(r"Expected an instantiatable class, but (?:([\w.]+) )?is abstract")
_LINKED = re.compile(r"Linked \"([\w.]+)\" must be given via \"([\w.]+)\"")
_DENIED = re.compile(r"Importing '([\w.]+)' is not allowed, denied by")
_NO_CLASS = re.compile(r"Not a valid subclass of (\w+)\. Got value: (.*)")
_TRIED = re.compile(r"Problem with given class_path '([\w.]+)':\s+([\w.]+): (.*); (.*)")
_NO_FUNCTION = re.compile(r"expects a function or a callable class: (.*?)\. Got value: ")


class ClassError(argparse.ArgumentError):
    """An error in the arguments of a class, on its way up to the command's parser.

    jsonargparse has one parser for each class that a config names. Each of them raises this error,
    and each parser above puts its key in front.

    Args:
        found: the error, with its key as seen from the class.
        below: the text between the key of the class and ``found.key``: ``init_args.`` or nothing.
    """

    def __init__(self, found: ConfigError, below: str) -> None:
        self.found = ConfigError(f"{below}{found.key}", found.problem, found.remedy)
        super().__init__(None, str(self.found))


def one_line(
    message: str, keys: Sequence[str], cause: BaseException | None = None, of_class: bool = False
) -> ConfigError:
    """The error that a user reads.

    Args:
        message: the parser's message, of any number of lines.
        keys: all keys of the parser, to suggest the nearest.
        cause: the exception with this message; it may carry the error of a parser below this one.
        of_class: whether the parser is that of a class, and not of a command.
    """
    key = _KEY.search(message)
    below = next((e.found for e in causes(cause) if isinstance(e, ClassError)), None)
    if below and key:
        return ConfigError(_path(key[1], below.key, message), below.problem, below.remedy)
    tried = _TRIED.search(message)
    if tried and key:  # a list was tried before the class, so the error is in the text alone
        return ConfigError(_path(key[1], tried[2], message), tried[3], tried[4])
    denied = _DENIED.search(message)
    if denied:
        problem = f"the run's config names code from outside this package ({denied[1]})"
        return ConfigError(key[1] if key else "config", problem, REMEDY)
    unknown = _unknown(message)
    if unknown:
        return unknown_key(unknown, keys, of_class)
    linked = _LINKED.search(message)
    if linked:
        return ConfigError(linked[1], f"follows {linked[2]}", f"set --{linked[2]}")
    not_set = _NOT_SET.search(message)
    if not_set:
        name = not_set[1] or not_set[2]
        name = name if name in keys else name.partition(".")[2]  # remove the command in front
        config = "set it in the config" if of_class else "give --config FILE"
        return ConfigError(name, "not set", config)
    no_value = _NO_VALUE.search(message)
    if no_value:
        return ConfigError(no_value[1], "has no value", f"write --{no_value[1]} VALUE")
    word = _UNKNOWN_WORD.search(message)
    if word:
        return _not_a_flag(word[1])
    found = key[1] if key else "config"
    problem = _problem(message)
    if found == "seed_everything":  # true and false are for Lightning
        problem = problem.replace("true or false or ", "")
    if found == "trainer.precision":  # none of Lightning's values is one to choose
        problem = f"is {problem.rpartition(', is ')[2]}"
    return ConfigError(found, problem, _remedy(found, message))


def hidden_config_error(error: BaseException) -> ConfigError | None:
    """The ConfigError that a parser wrapped while it tried one type after another, if any."""
    return next((e for e in causes(error) if isinstance(e, ConfigError)), None)


def storage_line(error: BaseException) -> str | None:
    """The line about a full or broken disk, whichever library met it; None for another error."""
    written = next((e for e in causes(error) if isinstance(e, WriteError)), None)
    reason = storage_failure(error)
    if written is None and reason is not None:
        found = system_error(error)
        written = WriteError(str((found and found.filename) or "a file of the run"), reason)
    return None if written is None else str(written)


def _not_a_flag(word: str) -> ConfigError:
    """The error for a word that follows no flag."""
    remedy = "write flags as --key value"
    if word.endswith((".yaml", ".yml")):
        remedy = f"write --config {word}"
    elif _ASSIGNED.fullmatch(word):
        remedy = f"write --{word}"
    return ConfigError("command", f"{word!r} is not a flag", remedy)


def _unknown(message: str) -> str | None:
    """The whole key that the parser does not know; None for another message."""
    flag, option = _UNKNOWN_FLAG.search(message), _UNKNOWN_OPTION.search(message)
    in_file = _UNKNOWN_IN_FILE.search(message)
    if in_file:
        return f"{in_file[2]}.{in_file[3]}" if in_file[1] == "Group" else in_file[3]
    found = flag or option
    return found[1] if found else None


def _path(key: str, below: str, message: str) -> str:
    """The key of a setting of a class, as its error messages and the user's file have it."""
    value = _WHOLE_VALUE.search(message)
    named = value is not None and value[1].startswith("{'class_path'")
    if key in _SHORT and not named:
        below = below.removeprefix("init_args.")
    tried = _TRIED.search(message)
    if tried and _LIST_OR_NULL.search(message):  # which item
        below = f"{tried[1].rpartition('.')[2]}.{below.removeprefix('init_args.')}"
    return f"{key}.{below}"


def _problem(message: str) -> str:
    """What is wrong with a value, in words that do not name Python's types."""
    text = " ".join(line.strip(" -") for line in message.splitlines() if line.strip(" -"))
    value = _VALUE.search(message)
    other, no_class = _OTHER_CLASS.search(text), _NO_CLASS.search(message)
    if _NO_IMPORT.search(text):
        paths = [path for pattern in _IMPORTED for path in pattern.findall(text)]
        name = paths[0] if paths else "it"
        return _short(f"cannot import {name} ({_NO_IMPORT.findall(text)[-1]})")
    given = other and (other[1] or (value and value[1]))
    if other and given:
        return _short(f"{given} is not {_a(other[2])}")
    abstract = _abstract(message)
    if abstract:
        missing = " and ".join(missing_methods(abstract)) or "a method that it must define"
        return _short(f"{abstract.rpartition('.')[2]} does not define {missing}")
    kind = _kind(message, text)
    if kind:
        return kind
    wanted = _WANTED.findall(text)
    no_path = _NO_PATH.search(text)
    if no_path and not {kind for _, kind in wanted} & {"int", "float"}:
        what = value[1] if value else no_path[1]
        if not _NAME.fullmatch(what):
            return _short(f"must be a mapping of keys to values, is {what}")
        return _short(f"must name a class by its path, as in module.Class, is {what}")
    if no_class:
        return _short(f"must name {_a(no_class[1])} by its class_path, is {no_class[2]}")
    if _NO_FUNCTION.search(text):
        return _short(f"cannot be called ({_NO_FUNCTION.findall(text)[-1]})")
    if wanted and value:
        words = [f"one of {literal}" if literal else _word(kind) for literal, kind in wanted]
        return _short(f"must be {' or '.join(dict.fromkeys(words))}, is {value[1]}")
    group = _NO_GROUP.search(text)
    if group:
        return _short(f"must be a mapping of keys to values, is {group[1]}")
    return _short(re.sub(rf"^(config: )?({_KEY.pattern}:\s*)+", "", text).replace(_UNION, ""))


def _abstract(message: str) -> str | None:
    """The path of the class that lacks a method; None for another message."""
    found, value = _ABSTRACT.search(message), _VALUE.search(message)
    return found and (found[1] or (value and value[1]))


def _kind(message: str, text: str) -> str | None:
    """What a value must be that may be null, if null is not all that the message names."""
    whole = _WHOLE_VALUE.search(message)
    if not whole:
        return None
    if _PAIR.search(text):
        null = ", or null" if "'NoneType'" in text else ""
        return _short(f"must be two numbers{null}, is {whole[1]}")
    owner = _CLASS_OR_NULL.search(text)
    if not owner or not _NOT_A_CLASS.search(text) or _NAME.fullmatch(whole[1]):
        return None
    example = _MAPPINGS.get(owner[1], " of keys to values")
    return _short(f"must be a mapping{example}, or null, is {whole[1] or 'empty'}")


def _remedy(key: str, message: str) -> str:
    """What to do about a value of a known key."""
    value = _VALUE.search(message) or _NO_PATH.search(message) or _NO_GROUP.search(message)
    given = value[1] if value else ""
    last = key.rpartition(".")[2]
    assigned = _ASSIGNED.fullmatch(given)
    if assigned and "." not in key:  # --model beta=0.1
        return f"did you mean --{key}.{_short(given)}?"
    if given.lower() in ("none", "nil") and "'NoneType'" in message:
        return "did you mean null?"
    if key == "model" and given and not given.startswith("lsp_lightning"):
        return f"did you mean --model.base {_short(given)}?"
    abstract = _abstract(message)
    if abstract:
        return renaming(abstract) or "use a class that does"
    if key == "data.gate" and given.startswith("["):
        return "write the list under data.gate.checks"
    if key == "trainer.precision":
        return "leave it out and set model.dtype"
    if key == "model.rewards" and _NAME.fullmatch(given):
        return f"write a list: [{{class_path: {class_near(last, given) or 'module.Class'}}}]"
    imported = [path for pattern in _IMPORTED for path in pattern.findall(message)]
    if _NO_PATH.search(message) or _NO_IMPORT.search(message):
        name = imported[0] if imported and _NO_IMPORT.search(message) else given
        if last == "queries" and name.endswith(_DATA_FILES):
            return f"write {{class_path: lsp_lightning.PromptFile, init_args: {{path: {name}}}}}"
        near = class_near(last, name)
        if near:
            return f"did you mean {near!r}?"
        return about_class(last, name) or _SEE_VALUES
    return _SEE_VALUES


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOU' else 'a'} {noun}"


def _word(kind: str) -> str:
    name = kind.rpartition(".")[2]
    return _WORDS.get(name, f"a {name}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
