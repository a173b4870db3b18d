"""Disarm texts that fill the slots of a prompt: its tags, and the control tokens of chat models."""

import re
import unicodedata
from collections.abc import Iterable

from lsp_lightning.text.prompts import JUDGE_TAGS


def tags_of(template: str) -> set[str]:
    """The names of the tags in a template, such as ``response`` for ``</response>``."""
    return set(re.findall(r"</?(\w+)>", template))


def fence(text: str, tags: Iterable[str] = JUDGE_TAGS) -> str:
    """Disarm the tags of a prompt in a text that fills one of its slots.

    Such a text could otherwise end its section of the prompt, or contain a forged score. The
    opening bracket of each tag, in any case and spacing, becomes a single angle quotation mark. A
    comparison such as ``x <score`` stays, as long as no closing bracket follows. Some tokenizers
    fold full-width characters and drop invisible ones; if that reveals tags, the text is folded
    first (:func:`fold`).
    """
    names = "|".join(map(re.escape, tags))
    if not names:
        return text
    opening = re.compile(rf"<(?=\s*(?:{names})\b)", re.IGNORECASE)
    closing = re.compile(rf"<(?=\s*/\s*(?:{names})\b)", re.IGNORECASE)
    folded = fold(text)
    if any(len(tag.findall(folded)) > len(tag.findall(text)) for tag in (opening, closing)):
        text = folded
    inside, bracket, after = closing.sub("\u2039", text).rpartition(">")
    return opening.sub("\u2039", inside + bracket) + after


def fold(text: str) -> str:
    """The text without invisible format characters, in its compatibility form (NFKC)."""
    if text.isascii():  # has neither
        return text
    visible = (char for char in text if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", "".join(visible))


#: The opening bracket of control tokens of common chat models: <|im_end|>, <|turn>, <turn|>,
#: DeepSeek's with full-width bars, </s>, <end_of_turn>, [INST].
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>]*>|[^\s<>]*[|\uff5c]>|<?/?SYS>"
    r"|/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|unused\d+|\w+_of_\w+)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|gMASK|sop)\])"
)


def without_controls(text: str) -> str:
    """Disarm the control tokens of common chat models in a text for a judge behind a server.

    The server's tokenizer would read a spelled control token as the token itself. The opening
    bracket becomes a single angle quotation mark.
    """
    return _CONTROL.sub("\u2039", text)
