"""The worker process of :mod:`lsp_lightning.checks.maths`: compares answers with math-verify.

It is a separate process so that it can be killed when sympy hangs, and it must not import torch:
each worker would then take seconds to start. A request is ``[name, text, ...]``, with the name of a
function below.
"""

import logging

from lsp_lightning.checks.equality import answer, equal
from lsp_lightning.checks.equality import right as is_right
from lsp_lightning.runtime.workers import serve

#: Equal to no likely answer, so that comparing with it takes sympy's slowest path.
_UNLIKELY = answer(r"\boxed{\frac{104729}{7919}+0}")


def form(text: str, solution: bool = False) -> str:
    """The final answer in a form that shows equality: answers with the same form are equal.

    "value ..." for an answer that can be compared, "text ..." for one that cannot be read,
    "undefined ..." for one that is not equal to itself (0/0), "" for none. An
    answer that would hang in a comparison hangs here already. With ``solution``, a text that cannot
    be read as a whole is read as its last number.
    """
    read = answer(text, solution)
    if not read.parsed:
        return ""
    unit = f" [{read.quantity.unit}]" if read.quantity.unit else ""
    if not read.readable:
        return f"text {read.parsed[-1]}{unit}"
    if not equal(read, read):  # nan is not equal to nan
        return f"undefined {read.parsed[-1]}{unit}"
    equal(_UNLIKELY, read)
    return f"value {read.parsed[0]}{unit}"


def right(solution: str, text: str) -> bool:
    """Whether the text's answer is right; "x = 3" is right if the solution is "3"."""
    return is_right(answer(solution, True), answer(text))


def same(first: str, second: str) -> bool:
    """Whether either text would be right if the other were the solution."""
    a, b = answer(first), answer(second)
    return equal(a, b) or equal(b, a)


def handle(request: list[str]) -> str | bool:
    """The reply to the request ``[name, text, ...]``."""
    name, *texts = request
    if name in ("form", "solution"):
        [text] = texts
        return form(text, name == "solution")
    return right(*texts) if name == "right" else same(*texts)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    # the parser builds its grammar at first use, and pint its units: do it now, before the first
    # request's clock runs
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{(1, 2)}")
    same(r"\boxed{\frac{1}{\sqrt{2}} + x^2}", r"\boxed{x = 1.5}")
    form(r"\boxed{\sqrt{2}\text{ cm}}")
    serve(handle)
