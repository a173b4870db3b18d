"""The interface of an engine."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lsp_lightning.types import Completions, Sampling

#: Called with the row of a completion and its tokens, up to and including the stop token.
Finished = Callable[[int, list[int]], None]
#: The seed of a whole call, or one seed for each prompt.
Seed = int | Sequence[int]


class Engine(Protocol):
    """Samples completions from the current policy. Tokens in, tokens out."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None = None,
    ) -> Completions:
        """Sample ``draws`` completions of each prompt: n = len(prompts) * draws rows, prompt-major.

        Each prompt is computed once for all of its completions. The same seed, prompts and weights
        give the same tokens.

        Args:
            prompts: token ids.
            draws: completions of each prompt.
            sampling: how tokens are sampled. An engine may go on after a stop text, because the
                player cuts there.
            seed: seed of the whole call, or one seed for each prompt. With one for each prompt, the
                completions of a prompt depend on no other prompt of the call, and completion ``j``
                does not depend on ``draws``.
            finished: called for each completion when it ends, in any order, while others continue.
                After running out of memory all rows are sampled again; the last call counts.
        """
