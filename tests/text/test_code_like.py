"""Code is told from prose, numbers and equations."""

import time

import pytest

from lsp_lightning.text.code_like import is_code_like


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x",
        "```python\nx\n```",
        "Here is the program:\n~~~\nrun\n~~~",
        "class Answer:\n    pass",
        "class Answer(object):\n    '''Says it.'''\n    def answer(self):\n        return 'Paris'",
        "for (int i = 0; i < 3; i++) {\n  sum += i;\n}",
        "import numpy as np\nx = np.zeros(3)",
        "print(3)",
        "SELECT name FROM towns",
    ],
)
def test_programs_are_code(text):
    assert is_code_like(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "7+5=?",
        "x = 3",
        "f(x) = x^2 + 1",
        "return the book to me.",
        "I like dogs; they bark.",
        "if you want: do it",
        "import duties are high",
        "- one\n- two",
        "<answer>5</answer>",
        "Use it (now).",
        "The word `len` is a function. It takes a list.\nprint(len([1]))\nThat prints 1.",
    ],
)
def test_other_texts_are_not(text):
    assert not is_code_like(text)


@pytest.mark.parametrize(
    "part", ["a", "(", "f(", "import a,", "@a(", " = ", "a.b=", "if ", "if:", "\"'"]
)
def test_a_hostile_text_takes_no_time(part):
    start = time.perf_counter()
    for _ in range(100):
        is_code_like(part * 500)
    assert time.perf_counter() - start < 2
