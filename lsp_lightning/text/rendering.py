"""Render chat templates within limits on time and memory.

A chat template is a program that comes with a model. Its errors are reported in one line.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import FrameType
from typing import Any

from lsp_lightning.errors import ConfigError

#: The chat template for models that have none: each turn's text, then a line break.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
)

#: The date that templates get instead of today's; it is the default of Llama 3's template. With
#: the real date, a run with the same seed would differ from day to day.
FIXED_DATE = datetime(2024, 7, 26)

# A macro, because a function cannot be passed to a template as an argument. Jinja removes the line
# break after the macro, so that the template's first line still starts a line.
_DIRECTIVES = ("-d", "-m", *"aAbBdHIjmMpSuUwWyY")
_FIXED_STRFTIME = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{d}', '{FIXED_DATE.strftime('%' + d)}')" for d in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)

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


def with_fixed_date(chat_template: str) -> str:
    """The chat template with ``strftime_now`` fixed to :data:`FIXED_DATE`."""
    if "strftime_now" not in chat_template:
        return chat_template
    return _FIXED_STRFTIME + chat_template


class ChatTemplateError(ConfigError):
    """A chat template fails, or exceeds a limit; the model cannot be used with it."""


class TooMuch(Exception):
    """A template exceeds a limit."""


class ChatTemplate:
    """A tokenizer's chat template with fixed arguments.

    Args:
        tokenizer: any Hugging Face tokenizer; :data:`PLAIN_TEMPLATE` is used if it has no template.
        template_kwargs: fixed arguments of the template.
        key: the config key of the model, for error messages.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any], key: str) -> None:
        self._tokenizer = tokenizer
        self._kwargs = dict(template_kwargs)
        self._key = key
        self._checked = False
        with self._one_line():
            given = tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        #: The template's source.
        self.text: str = with_fixed_date(given)

    def render(self, messages: Sequence[Mapping[str, str]], reply: bool) -> str:
        """Render messages, and the header of the assistant's turn if ``reply``.

        Raises:
            ChatTemplateError: the template fails, or it exceeds a limit.
        """
        with self._one_line():
            if not self._checked:
                _check_source(self.text)
                self._checked = True
            with _limits():
                rendered = str(
                    self._tokenizer.apply_chat_template(
                        [dict(message) for message in messages],
                        chat_template=self.text,
                        tokenize=False,
                        add_generation_prompt=reply,
                        **self._kwargs,
                    )
                )
            given = sum(len(message["content"]) for message in messages)
            if len(rendered) > _LONGEST + 4 * given:
                raise TooMuch(f"it writes {len(rendered)} characters")
        return rendered

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # the message is the template's, so it may contain anything
            said = " ".join(str(error).split()) or type(error).__name__
            cause = str(error) if isinstance(error, TooMuch) else f"it fails with {said[:200]!r}"
            raise ChatTemplateError(
                self._key,
                f"the chat template of this model cannot be used: {cause}",
                "fix chat_template in the model's folder, or use another model",
            ) from error


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


def _peak_memory() -> int:
    """The most memory that this process has used, in KiB; 0 if the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
