"""Whether a text is code: a cheap guess, for a metric. Imports nothing heavy."""

import re

from lsp_lightning.text.compared import beginning

#: A line that opens a fenced block.
_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
#: Lines as programs have them and prose does not. Numbers, equations (x = 5) and tags are no code.
_CODE_LINE = re.compile(
    r"""
    (?:async[ ]+)?(?:def|class|function|func|fn|struct|interface|enum)[ ]+\w+[ ]*[(:<{].*
    | (?:if|elif|for|while|with|except|switch|catch)\b.*[:{]
    | (?:else|try|finally|do)[ ]*[:{]
    | (?:pass|break|continue|return);?
    | import[ ][\w.]+(?:[ ]as[ ]\w+)?(?:,[ ]*[\w.]+)*;?
    | from[ ][\w.]+[ ]import[ ].*
    | \#(?:include|define|!).*
    | (?:return|yield|raise|throw)[ ]+\S+;?
    | (?:self\.)?[\w.\[\]]+[ ]*(?:[-+*/:]?=)[ ]*[^=]*["'\[({].*
    | [\w.]+\(.*\)[;:]?
    | .*[;{}]
    | @\w[\w.]*(?:\(.*\))?
    | [\])}]+[,;]?
    | (?:"{3}|'{3}|//).*
    | SELECT[ ].*\bFROM\b.*
    """,
    re.VERBOSE,
)


def is_code_like(text: str) -> bool:
    """Whether a text has a fenced block, or at least half of its lines look like those of a
    program.

    Only the first 500 characters are looked at.
    """
    shown = beginning(text)
    if _FENCE.search(shown):
        return True
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    found = sum(_CODE_LINE.fullmatch(line) is not None for line in lines)
    return found > 0 and 2 * found >= len(lines)
