"""Render chat templates within limits on time and memory.

A chat template is a program that comes with a model. All steps of a rendering are counted. Where
one step may be endless, the check at load and the first rendering are made in a worker process,
which can be ended. Errors are reported in one line.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.runtime.rendering_worker import handle, may_explode
from lsp_lightning.runtime.workers import LineWorkers

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

#: Seconds after which a rendering is ended. Common templates take milliseconds; a step limit, which
#: does not depend on the machine, ends most others. One step may take hours, though.
_SECONDS = 10.0
#: What a template must show.
_TRIALS = ("What is two plus three?", "Name a river. " * 300)
#: One process for all templates; it starts with the first rendering.
_WORKERS = LineWorkers("lsp_lightning.runtime.rendering_worker", processes=1)


def with_fixed_date(chat_template: str) -> str:
    """The chat template with ``strftime_now`` fixed to :data:`FIXED_DATE`."""
    if "strftime_now" not in chat_template:
        return chat_template
    return _FIXED_STRFTIME + chat_template


class ChatTemplateError(ConfigError):
    """A chat template fails, or exceeds a limit; the model cannot be used with it."""


class ChatTemplate:
    """A tokenizer's chat template with fixed arguments.

    Args:
        tokenizer: any Hugging Face tokenizer; :data:`PLAIN_TEMPLATE` is used if it has no template.
        template_kwargs: fixed arguments of the template.
        key: the config key of the model, for error messages.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any], key: str) -> None:
        self._key = key
        self._ends = False  # whether a rendering has come to its end
        try:
            given = tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE
        except Exception as error:  # several templates without a default
            raise self._unusable(f"it fails with {' '.join(str(error).split())[:200]!r}") from error
        #: The template's source.
        self.text: str = with_fixed_date(given)
        arguments = {**tokenizer.special_tokens_map, **template_kwargs}
        # the worker gets JSON; a date (which YAML reads from 2024-07-26) is text for a template
        self._arguments = json.loads(json.dumps(arguments, default=str))

    def render(self, messages: Sequence[Mapping[str, str]], reply: bool) -> str:
        """Render messages, and the header of the assistant's turn if ``reply``.

        Raises:
            ChatTemplateError: the template fails, or it exceeds a limit.
        """
        apart = not self._ends and may_explode(self.text)
        rendered = self._rendered(messages, reply, apart)
        self._ends = True
        return rendered

    def _rendered(self, messages: Sequence[Mapping[str, str]], reply: bool, apart: bool) -> str:
        """Render messages; ``apart`` does so in the worker process, which takes 1 ms longer."""
        request = {
            "chat_template": self.text,
            "messages": [dict(message) for message in messages],
            "reply": reply,
            "arguments": self._arguments,
        }
        [rendered] = _WORKERS.map([request], _SECONDS) if apart else [handle(request)]
        if rendered is None:
            raise self._unusable(f"it takes more than {_SECONDS:g} seconds, or too much memory")
        if "text" in rendered:
            return str(rendered["text"])
        limit = rendered.get("limit")
        raise self._unusable(limit or f"it fails with {rendered['error']!r}")

    def check(self) -> None:
        """Raise ChatTemplateError if a rendering does not contain the text of the user's turn.

        One text is long, because a template may need more time and memory the longer a text is.
        """
        for text in _TRIALS:
            turn = {"role": "user", "content": text}
            shown = self._rendered([turn], True, apart=may_explode(self.text))
            # templates may change case and white space
            if "".join(text.split()).lower() not in "".join(shown.split()).lower():
                raise self._unusable("it does not show the text of the user's turn")

    def _unusable(self, cause: str) -> ChatTemplateError:
        return ChatTemplateError(
            self._key,
            f"the chat template of this model cannot be used: {cause}",
            "fix chat_template in the model's folder, or use another model",
        )
