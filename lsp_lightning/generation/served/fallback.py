"""A server's rollouts, and this process's where the server is lost."""

from collections.abc import Sequence

from lsp_lightning.generation.base import Engine, Finished
from lsp_lightning.generation.served.adapters import TrainedPolicy, fingerprint
from lsp_lightning.generation.served.engine import ServedEngine
from lsp_lightning.generation.served.errors import EngineLost
from lsp_lightning.types import Completions, Sampling


class FallbackEngine:
    """The server as long as it is there; this process where it is lost.

    A loss is said once. The server is asked again when the weights have changed, which is the next
    round: a server that hangs costs its time-out once a round, not once a call. A call that breaks
    off is drawn again as a whole: keeping what came before would prefer short completions.

    Args:
        served: the engine on the server.
        local: the engine in this process.
        policy: what both sample from.
    """

    def __init__(self, served: ServedEngine, local: Engine, policy: TrainedPolicy) -> None:
        self._served = served
        self._local = local
        self._policy = policy
        self._lost_with: str | None = None

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: int,
        finished: Finished | None = None,
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`.

        Raises:
            EngineError: the server is there and of no use.
            ConfigError: it came back as another one.
        """
        call = (prompts, draws, sampling, seed, finished)
        lost_before = self._lost_with is not None
        if lost_before and self._lost_with == fingerprint(self._policy):
            return self._local.generate(*call)
        try:
            drawn = self._served.generate(*call)
        except EngineLost as error:
            if not lost_before:
                print(
                    f"rollouts: {error.cause}; drawn in this process until it is back", flush=True
                )
            self._lost_with = fingerprint(self._policy)
            return self._local.generate(*call)
        if lost_before:
            print("rollouts: the server is back", flush=True)
        self._lost_with = None
        return drawn

    def close(self) -> None:
        """Take the adapter off the server."""
        self._served.close()
