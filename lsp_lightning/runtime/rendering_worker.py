"""Render a chat template and count its steps; run as a module, it is a worker process.

:mod:`lsp_lightning.text.rendering` uses the process where a template may hang, because it can be
killed. This file must not import torch: the process would then take seconds to start.
"""

import contextlib
import logging
import os
import random
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType
from typing import Any

from lsp_lightning.runtime.workers import serve

#: Most lines of a template (and items of its filters) that one rendering may run. The templates of
#: common models need a few hundred.
_MOST_STEPS = 100_000
#: Most memory in KiB that one rendering may add.
_MOST_MEMORY = 2**17
#: Longest template, and longest rendering beside the texts of its messages, in characters.
_LONGEST = 1_000_000
#: Largest number in a template, and in one that multiplies: ``'x' * 10000000`` is one step.
_LARGEST_NUMBER, _LARGEST_FACTOR = 100_000, 1_000
#: Code that Jinja runs for each item of a loop, filter or call.
_JINJA_LOOPS = ("filters.py", "runtime.py", "utils.py", "sandbox.py")
#: Filters, functions, operators and lists that make long texts of short ones.
_GROWS = re.compile(
    r"(?<!\{)%(?!\})|\*|\b(?:center|[lr]just|zfill|expandtabs|format|indent|wordwrap|lipsum|range|replace|"
    r"join|tojson|pprint|xmlattr|urlize|slice|batch|list|cycler)\b|[\[({][^\[\](){}]*,"
)


class TooMuch(Exception):
    """A template exceeds a limit."""


def handle(request: dict[str, Any]) -> dict[str, str]:
    """Render ``request["chat_template"]`` with ``request["messages"]``.

    -> {"text": the rendering}, {"limit": which limit it exceeds} or {"error": how it fails}.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        _check_source(request["chat_template"])
        with _limits(), _same_choices():
            [text], _ = render_jinja_template(
                conversations=[request["messages"]],
                chat_template=request["chat_template"],
                add_generation_prompt=request["reply"],
                **request["arguments"],
            )
        given = sum(len(message["content"]) for message in request["messages"])
        if len(text) > _LONGEST + 4 * given:
            raise TooMuch(f"it writes {len(text)} characters")
    except MemoryError:
        return {"limit": "it takes too much memory"}
    except TooMuch as limit:
        return {"limit": str(limit)}
    except Exception as error:
        # the message is the template's, so it may contain anything
        return {"error": (" ".join(str(error).split()) or type(error).__name__)[:200]}
    return {"text": text}


@lru_cache
def may_explode(template: str) -> bool:
    """Whether one step of a template may write a text of any length, or take very long."""
    return _GROWS.search(template) is not None


@lru_cache
def _check_source(template: str) -> None:
    """Raise TooMuch for arithmetic of which one step can take hours or fill the memory."""
    from jinja2 import Environment

    if len(template) > _LONGEST:
        raise TooMuch(f"it has {len(template)} characters")
    tokens = [(kind, value) for _, kind, value in Environment().lex(template)]
    operators = {value for kind, value in tokens if kind == "operator"}
    if "**" in operators:
        raise TooMuch("it raises numbers to powers")
    most = _LARGEST_FACTOR if "*" in operators else _LARGEST_NUMBER
    for kind, value in tokens:
        digits = value.replace("_", "") if kind == "integer" else ""
        if len(digits) > 9 or (digits.isdecimal() and int(digits) > most):
            raise TooMuch(f"it contains the number {digits[:20]}")


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Raise TooMuch if the template that is rendered inside takes too many steps.

    Steps are counted by tracing the template's lines, so the limit does not depend on the machine.
    """
    steps, first_peak = 0, _peak_memory()

    def count(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > _MOST_STEPS:
            raise TooMuch(f"it runs more than {_MOST_STEPS} steps")
        return line

    def line(frame: FrameType, event: str, arg: object) -> Any:
        if _peak_memory() - first_peak > _MOST_MEMORY:
            raise TooMuch(f"it takes more than {_MOST_MEMORY // 1024} MiB of memory")
        return count(frame, event, arg)

    def enter(frame: FrameType, event: str, arg: object) -> Any:
        file = frame.f_code.co_filename
        if file == "<template>":
            return line
        if "jinja2" in file and file.endswith(_JINJA_LOOPS):
            count(frame, event, arg)
        return None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _same_choices() -> Iterator[None]:
    """The filter "random" depends on the messages alone, and changes no other random choice."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _peak_memory() -> int:
    """The most memory that this process has used, in KiB; 0 if the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # numpy, which transformers imports, reserves memory for each thread
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    hello = {"chat_template": "x", "messages": [], "reply": True, "arguments": {}}
    handle(hello)  # imports what it needs before the first request's clock runs
    serve(handle)
