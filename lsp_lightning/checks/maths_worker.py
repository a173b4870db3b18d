"""Mathematics by the math-verify package, in a process that can be killed.

Run as ``python -m lsp_lightning.checks.maths_worker`` by :mod:`lsp_lightning.checks.maths`. A
request is the name of a function below and its texts.
"""

import logging
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from lsp_lightning.runtime.workers import serve

# the box first: everything before it is the way to the answer, not the answer
_EXTRACTION = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
#: Equal to no likely answer; a comparison with it takes the long way through sympy.
_UNLIKELY = parse(r"\boxed{\frac{104729}{7919}}", _EXTRACTION, parsing_timeout=None)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """The final answer as expression and as text; only the text if sympy cannot read it; or ()."""
    return tuple(parse(text, _EXTRACTION, parsing_timeout=None))


def _equal(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    # the library's own limits need signals and whole seconds; here the parent keeps the time
    return bool(verify(list(first), list(second), timeout_seconds=None))


def form(text: str) -> str:
    """``value ...`` for an answer that can be compared, ``text ...`` for another, "" for none.

    Answers of the same form are equal. An answer that hangs in comparisons hangs here.
    """
    parsed = _parsed(text)
    if not parsed:
        return ""
    if isinstance(parsed[0], str) or not _equal(parsed[:1], parsed[:1]):  # nan is not itself
        return f"text {parsed[-1]}"
    verify(_UNLIKELY, list(parsed), timeout_seconds=None)
    return f"value {parsed[0]}"


def right(gold: str, text: str) -> bool:
    """Whether the text's answer is the gold one: x = 3 is also right for 3."""
    return _equal(_parsed(gold), _parsed(text))


def same(first: str, second: str) -> bool:
    """Whether one would be right if the other were gold."""
    return right(first, second) or right(second, first)


def handle(request: list[str]) -> str | bool:
    """The reply to ``[function, text, ...]``."""
    name, *texts = request
    if name == "form":
        return form(*texts)
    return right(*texts) if name == "right" else same(*texts)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # the parser learns its grammar at first use: that is start-up, no request should pay for it
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{(1, 2)}")
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{x = 1.5}")
    form(r"\boxed{\sqrt{2}}")
    serve(handle)
