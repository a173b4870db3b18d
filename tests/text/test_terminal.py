"""A model's text does nothing to a terminal but stand there, on one line, within its width."""

import unicodedata

import pytest

from lsp_lightning.text.terminal import columns, cut, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 100%", "plain text, 100%"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),  # direction
        ("a\u200bb\u200dc\ufeffd\u2060e", r"a\u200bb\u200dc\ufeffd\u2060e"),  # zero width
        ("a\u3164b\u2800c\ufe0fd\U000e0041", r"a\u3164b\u2800c\ufe0fd\U000e0041"),  # invisible
        ("\x9b31m", r"\x9b31m"),  # an eight-bit control sequence
        ("\ud800", r"\ud800"),
        ("a\r\nb\nc\td", "a\u23ceb\u23cec d"),
        ("a\rb\x0b\x0c\u2028\u2029\x85", r"a\rb\x0b\x0c\u2028\u2029\x85"),
        ("10\u00a0000\u3000x", "10 000 x"),
        ("\u00fc\u4e2d\u0645\u0301", "\u00fc\u4e2d\u0645\u0301"),
    ],
)
def test_what_a_terminal_might_obey_is_spelled_out(text, shown):
    assert escaped(text) == shown


def test_every_character_is_harmless_after_that():
    shown = escaped("".join(map(chr, (*range(0x3000), *range(0xD000, 0x11000), 0xE0001, 0x10FFFF))))
    assert shown.isprintable()
    assert {unicodedata.category(char) for char in shown}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn"})


def test_marks_that_would_paint_over_other_lines_are_spelled_out():
    shown = escaped("a" + "\u0301" * 100)
    assert shown.startswith("a\u0301\u0301\\u0301")
    assert columns(shown) > 90  # so that cutting to a width cuts them


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 10, 39])
def test_a_cut_text_fits(width):
    for text in ("x" * 100, "\u4e2d" * 100, "ab" + "\u0301" * 2 + "\u4e2d" * 50, "words and words"):
        assert columns(cut(text, width)) <= width
    assert cut("short", 39) == "short"
    assert cut("abcdefgh", 6) == "abc..."
    assert cut("\u4e2d\u4e2d\u4e2d\u4e2d", 6) == "\u4e2d..."
