"""The only values that pass a sandbox's wall: what JSON holds, of exact builtin types."""

import math

#: Levels of lists and dicts; far more than an answer needs, far less than the interpreter's stack.
MAX_DEPTH = 100
#: About 4,300 digits, the most that Python prints: a longer integer would raise wherever shown.
MAX_INT_BITS = 14_000
#: Bytes that one node costs at least, so that a small but much shared structure is bounded too.
NODE_BYTES = 2


class NotPlainError(ValueError):
    """A value that may not pass: of another type, not finite, too deep, too long or too large."""


def plain(value: object, most_bytes: int) -> object:
    """A copy made of None, bool, int, float, str, list and dict with str keys; tuples become lists.

    Types must be exact: a subclass could lie about equality. Text must be valid Unicode, numbers
    finite and printable. The walk stops at the limit, so a structure that shares its parts (and is
    astronomical when written out) costs no more than an honest one.

    Args:
        value: what a program gave back, or gets.
        most_bytes: about the length of its JSON text, in bytes.

    Raises:
        NotPlainError: the value is not plain, or is larger than that.
    """
    room = most_bytes

    def spend(cost: int) -> None:
        nonlocal room
        room -= cost
        if room < 0:
            raise NotPlainError(f"larger than {most_bytes} bytes")

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
        spend(len(value))  # before encoding: it may be far too long
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
