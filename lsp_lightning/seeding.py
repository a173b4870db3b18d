"""One seed for each thing that is drawn, so that a round never depends on what came before it."""

import hashlib
import random


def derive_seed(run_seed: int, *purpose: int | str) -> int:
    """A seed below 2**63 for one purpose of one run, such as ``(round, "answers")``."""
    text = "/".join(map(str, (run_seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def permutation(size: int, seed: int) -> list[int]:
    """The numbers below ``size`` in an order that depends on the seed alone."""
    return random.Random(seed).sample(range(size), size)
