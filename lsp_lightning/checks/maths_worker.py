"""The worker process of :mod:`lsp_lightning.checks.maths`: compares answers with math-verify.

It is a separate process so that it can be killed when sympy hangs, and it must not import torch:
each worker would then take seconds to start. A request is ``[name, text, ...]``, with the name of a
function below.
"""

import logging
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from lsp_lightning.runtime.workers import serve

# priority 0: a box comes before all other candidates in the text
_EXTRACTION = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
#: Equal to no likely answer, so that comparing with it takes sympy's slowest path.
_UNLIKELY = parse(r"\boxed{\frac{104729}{7919}}", _EXTRACTION, parsing_timeout=None)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """The final answer as (expression, text), as (text,) if sympy cannot read it, or ()."""
    return tuple(parse(text, _EXTRACTION, parsing_timeout=None))


def _equal(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    # the parent process has a time limit; math-verify's would need signals and whole seconds
    return bool(verify(list(first), list(second), timeout_seconds=None))


def form(text: str) -> str:
    """The final answer in a form that shows equality: answers with the same form are equal.

    "value ..." for an answer that can be compared, "text ..." for one that cannot, "" for none. An
    answer that would hang in a comparison hangs here already.
    """
    parsed = _parsed(text)
    if not parsed:
        return ""
    if isinstance(parsed[0], str) or not _equal(parsed[:1], parsed[:1]):  # nan is not equal to nan
        return f"text {parsed[-1]}"
    verify(_UNLIKELY, list(parsed), timeout_seconds=None)
    return f"value {parsed[0]}"


def right(solution: str, text: str) -> bool:
    """Whether the text's answer is right; "x = 3" is right if the solution is "3"."""
    return _equal(_parsed(solution), _parsed(text))


def same(first: str, second: str) -> bool:
    """Whether either text would be right if the other were the solution."""
    return right(first, second) or right(second, first)


def handle(request: list[str]) -> str | bool:
    """The reply to the request ``[name, text, ...]``."""
    name, *texts = request
    if name == "form":
        return form(*texts)
    return right(*texts) if name == "right" else same(*texts)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # the parser builds its grammar at first use: do it now, before the first request's clock runs
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{(1, 2)}")
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{x = 1.5}")
    form(r"\boxed{\sqrt{2}}")
    serve(handle)
