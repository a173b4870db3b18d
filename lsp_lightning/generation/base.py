"""What the game asks of an engine."""

from collections.abc import Sequence
from typing import Protocol

from lsp_lightning.types import Completions, Sampling


class Engine(Protocol):
    """Draws completions from the current policy. Speaks tokens; text lives elsewhere."""

    def generate(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Completions:
        """``draws`` completions of each prompt, n = len(prompts) * draws rows, a prompt's together.

        Each prompt is computed once for all of its draws. The same seed, prompts and weights give
        the same tokens.
        """
