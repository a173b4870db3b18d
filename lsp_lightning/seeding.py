"""A seed for each purpose, so that a round does not depend on what was sampled before it."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(run_seed: int, *purpose: int | str) -> int:
    """A seed below 2**63 for one purpose of one run, such as ``(round, "answers")``."""
    text = "/".join(map(str, (run_seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def permutation(size: int, seed: int) -> list[int]:
    """The numbers below ``size`` in an order that depends only on the seed."""
    return random.Random(seed).sample(range(size), size)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators (for dropout) inside the block, and restore them after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
