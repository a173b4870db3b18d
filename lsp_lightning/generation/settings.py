"""Where rollouts are drawn: in this process, or by a server."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lsp_lightning.errors import ConfigError, require_at_least, require_one_of
from lsp_lightning.generation.base import Engine
from lsp_lightning.generation.local import LocalEngine
from lsp_lightning.generation.served.adapters import AdapterPublisher, TrainedPolicy
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.engine import ServedEngine
from lsp_lightning.generation.served.errors import EngineError
from lsp_lightning.generation.served.fallback import FallbackEngine
from lsp_lightning.runtime.http import check_reachable
from lsp_lightning.runtime.memory import TokenBudget

_KEY = "model.rollouts"
_START = "start the server, or sample in this process"


class RolloutSettings(ABC):
    """Where and within which bounds rollouts are drawn."""

    tokens: int
    """Tokens of the completions sampled at once in this process, prompts included."""

    @property
    def importance_cap(self) -> float | None:
        """The largest importance weight; None where the trainer's own model samples."""
        return None

    @property
    def elsewhere(self) -> bool:
        """Whether this process never draws them."""
        return False

    def check(self, has_adapter: bool) -> None:  # noqa: B027 - nothing is wrong with most
        """Refuse what cannot work, before a model is loaded.

        Args:
            has_adapter: whether adapters are trained, and not all weights.

        Raises:
            ConfigError: it cannot.
        """

    def check_reachable(self) -> None:  # noqa: B027 - this process is there
        """Find out whether what draws is there, before a model is loaded.

        Raises:
            ConfigError: it is not.
        """

    def resume_settings(self) -> dict[str, object]:
        """What a resumed run is compared by: plain values, and no word of memory and speed."""
        return {"class": type(self).__name__}

    @abstractmethod
    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """The engine that draws from ``policy``; one for a run, for it remembers what it has done.

        Args:
            policy: what is sampled from, as it is at each call.
            budget: starts from :attr:`tokens`; bounds what is sampled in this process.

        Raises:
            ConfigError: it cannot draw from this policy.
        """


@dataclass(frozen=True)
class LocalRollouts(RolloutSettings):
    """Rollouts are drawn in this process.

    Args:
        tokens: of the completions sampled at once at most, prompts included, which bounds the KV
            cache; halved where memory runs out.
    """

    tokens: int = 65_536

    def __post_init__(self) -> None:
        require_at_least(self.tokens, 1, f"{_KEY}.tokens", "nothing would fit")

    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """See :meth:`RolloutSettings.build`."""
        return _local(policy, budget)


@dataclass(frozen=True)
class ServedRollouts(RolloutSettings):
    """Rollouts are drawn by a vLLM server, to which each round's adapter is published.

    The server is started by its user, with the same base and in an environment of its own::

        VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank RANK

    and may give processed log-probs (``--logprobs-mode processed_logprobs``) where the sampling
    temperature is not 1. Who can reach such a server can make it load files: keep it on loopback.

    Args:
        url: where its paths begin, such as ``http://127.0.0.1:8000/v1``.
        model: the base's name on the server.
        adapter_folder: where adapters are written for it; this process and the server see it under
            the same path.
        api_key_env: name of the environment variable that holds its key; null where it asks for
            none.
        concurrency: prompts that are asked at once.
        timeout: seconds for one try of one prompt, all of its draws.
        retries: further tries after a failure that may pass.
        on_loss: where the server is lost in the middle of a run, stop ends it with one line, the
            last checkpoint whole; local draws in this process until the server is back.
        importance_cap: tokens are weighted by how likely the trainer finds them against the server,
            at most by so much.
        tokens: as for LocalRollouts, for what is drawn in this process: the judge's words, and
            rollouts where on_loss is local.
    """

    url: str
    model: str
    adapter_folder: str
    api_key_env: str | None = None
    concurrency: int = 64
    timeout: float = 600.0
    retries: int = 2
    on_loss: Literal["stop", "local"] = "stop"
    importance_cap: float = 2.0
    tokens: int = 65_536

    def __post_init__(self) -> None:
        self._client()
        require_at_least(self.tokens, 1, f"{_KEY}.tokens", "nothing would fit")
        require_one_of(self.on_loss, ("stop", "local"), f"{_KEY}.on_loss")
        if not self.model.strip():
            raise ConfigError(f"{_KEY}.model", "is empty", "give the name the server knows")
        if not 1 <= self.importance_cap <= math.inf:
            raise ConfigError(
                f"{_KEY}.importance_cap",
                f"is {self.importance_cap}, but weights of tokens that agree are 1",
                "set 1 or more",
            )

    @property
    def elsewhere(self) -> bool:
        """See :meth:`RolloutSettings.elsewhere`."""
        return self.on_loss == "stop"

    def check(self, has_adapter: bool) -> None:
        """See :meth:`RolloutSettings.check`."""
        if not has_adapter:
            raise ConfigError(
                _KEY,
                "is a server, which can be given a new adapter between rounds but no whole weights",
                "set model.lora, or sample in this process (LocalRollouts)",
            )

    def check_reachable(self) -> None:
        """See :meth:`RolloutSettings.check_reachable`."""
        check_reachable(self.url, f"{_KEY}.url", _START)

    def resume_settings(self) -> dict[str, object]:
        """See :meth:`RolloutSettings.resume_settings`."""
        told = ("url", "model", "on_loss", "importance_cap")
        return {**super().resume_settings(), **{name: getattr(self, name) for name in told}}

    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """See :meth:`RolloutSettings.build`. The server is asked whether it fits.

        Raises:
            ConfigError: the policy has no adapter, or the server is not there or another.
        """
        self.check(policy.has_adapter)
        client = self._client()
        publisher = AdapterPublisher(client, Path(self.adapter_folder).expanduser(), policy)
        served = ServedEngine(client, self.model, policy, publisher)
        try:
            served.check()
        except EngineError as error:
            raise ConfigError(f"{_KEY}.url", error.cause, _START) from error
        if self.on_loss == "stop":
            return served
        return FallbackEngine(served, _local(policy, budget), policy)

    def _client(self) -> ServerClient:
        return ServerClient(
            self.url, self.api_key_env, self.concurrency, self.timeout, self.retries, _KEY
        )


def close_engine(engine: Engine) -> None:
    """Let go of what an engine holds outside of this process; it can draw again afterwards."""
    if isinstance(engine, ServedEngine | FallbackEngine):
        engine.close()


def _local(policy: TrainedPolicy, budget: TokenBudget) -> LocalEngine:
    return LocalEngine(policy.causal_lm, policy.codec.stop_ids, policy.pad_id, budget=budget)
