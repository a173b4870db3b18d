"""The command line's parser: an error is one line instead of a listing of all flags."""

import dataclasses
import inspect
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lsp_lightning.cli.messages import ClassError, one_line


class Parser(LightningArgumentParser):
    """A parser whose errors name the whole key, what is wrong, and the nearest valid key.

    jsonargparse makes another parser of this class for each class that the config names.
    """

    _for_class: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_abbrev = False  # an abbreviated key is a mistake, inside classes too

    def add_class_arguments(self, class_type: Any, *args: Any, **kwargs: Any) -> Any:
        """Add a class's arguments, and note the class if the parser has no other arguments."""
        if not args and "nested_key" not in kwargs:
            self._for_class = class_type
        added = super().add_class_arguments(class_type, *args, **kwargs)
        # jsonargparse would give None to an argument that has neither type nor default
        for action in self._actions:
            if action.dest in added and _untyped(class_type, action.dest):
                action.required = True
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ClassError in the parser of a class, else ConfigError."""
        if isinstance(ex, ClassError):  # this parser's error, caught and reported again
            raise ex
        # the parser above may report an unknown key of a command
        below = getattr(self._subcommands_action, "choices", None) or {}
        keys = [action.dest for parser in (self, *below.values()) for action in parser._actions]
        if "config" in keys:  # a command's
            raise one_line(message, keys, ex) from ex
        bases = getattr(self._for_class, "__bases__", ())
        plain = dataclasses.is_dataclass(self._for_class) and bases == (object,)
        found = one_line(message, keys, ex, of_class=True)
        raise ClassError(found, "" if plain else "init_args.") from ex


def _untyped(cls: type, key: str) -> bool:
    """Whether a class's argument has neither type nor default."""
    name = key.rpartition(".")[2]
    for owner in cls.__mro__ if inspect.isclass(cls) else ():
        init = vars(owner).get("__init__")
        found = inspect.signature(init).parameters.get(name) if inspect.isfunction(init) else None
        if found:
            return found.annotation is found.empty and found.default is found.empty
    return False
