"""What the game asks of an engine."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lsp_lightning.types import Completions, Sampling

#: Called with a completion's row among all of the call's, and its tokens up to and with the stop.
Finished = Callable[[int, list[int]], None]


class Engine(Protocol):
    """Draws completions from the current policy. Speaks tokens; text lives elsewhere."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: int,
        finished: Finished | None = None,
    ) -> Completions:
        """``draws`` completions of each prompt, n = len(prompts) * draws rows, a prompt's together.

        Each prompt is computed once for all of its draws. The same seed, prompts and weights give
        the same tokens.

        Args:
            prompts: token ids.
            draws: of each prompt.
            sampling: how they are drawn.
            seed: of all that is drawn.
            finished: told of each completion as soon as it has ended, in any order, while others
                go on. Of a call that has to be drawn again, a row's last telling holds.
        """
