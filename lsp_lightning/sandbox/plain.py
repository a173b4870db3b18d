"""Plain values, the only ones that enter or leave a sandbox: JSON's types, as exact built-ins."""

import math

#: Nesting of lists and dicts; more than any answer needs, less than the interpreter's stack allows.
MAX_DEPTH = 100
#: About 4,300 digits: Python refuses to print a longer integer.
MAX_INT_BITS = 14_000
#: Least size counted for each item, in bytes; bounds structures that repeat their parts.
NODE_BYTES = 2


class NotPlainError(ValueError):
    """A value is not plain: wrong type, not finite, nested too deeply, or too large."""


def plain(value: object, max_bytes: int) -> object:
    """A copy made of None, bool, int, float, str, list and dict with str keys; tuples become lists.

    Types must be exact, because a subclass could lie about equality. Text must be valid Unicode,
    numbers must be finite and printable. The walk stops at the limit, so a small structure that
    repeats its parts, and would be astronomically large as text, takes no longer than others.

    Args:
        value: an argument for a program, or a value that it returned.
        max_bytes: largest size, about the length of its JSON text in bytes.

    Raises:
        NotPlainError: the value is not plain, or is too large.
    """
    room = max_bytes

    def spend(cost: int) -> None:
        nonlocal room
        room -= cost
        if room < 0:
            raise NotPlainError(f"larger than {max_bytes} bytes")

    def copy(value: object, depth: int) -> object:
        spend(NODE_BYTES)
        if depth > MAX_DEPTH:
            raise NotPlainError(f"nested deeper than {MAX_DEPTH} levels")
        if type(value) is list or type(value) is tuple:
            return [copy(item, depth + 1) for item in value]
        if type(value) is dict:
            return {key_of(key): copy(item, depth + 1) for key, item in value.items()}
        if type(value) is str:
            return text(value)
        if type(value) is int:
            return integer(value)
        if type(value) is float and not math.isfinite(value):
            raise NotPlainError("a number that is not finite")
        if value is None or type(value) is bool or type(value) is float:
            return value
        raise NotPlainError("not None, bool, int, float, str, list, tuple or dict")

    def key_of(key: object) -> str:
        if type(key) is not str:
            raise NotPlainError("a dict with a key that is not str")
        return text(key)

    def text(value: str) -> str:
        spend(len(value))  # check before encoding: it may be far too long
        try:
            spend(len(value.encode()) - len(value))
        except UnicodeEncodeError:
            raise NotPlainError("text with lone surrogates") from None
        return value

    def integer(value: int) -> int:
        if value.bit_length() > MAX_INT_BITS:
            raise NotPlainError(f"an integer of more than {MAX_INT_BITS} bits")
        spend(value.bit_length() // 3)
        return value

    return copy(value, 0)
