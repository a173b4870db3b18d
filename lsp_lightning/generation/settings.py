"""Where rollouts are sampled: in this process, or by a server."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.generation.base import Engine
from lsp_lightning.generation.local import LocalEngine
from lsp_lightning.generation.served.adapters import AdapterPublisher, TrainedPolicy
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.engine import ServedEngine
from lsp_lightning.generation.served.errors import EngineError
from lsp_lightning.generation.stopping import StopTexts
from lsp_lightning.runtime.http import Client, check_reachable
from lsp_lightning.runtime.memory import TokenBudget

_KEY = "model.rollouts"
_START = "start it or check its log, or sample in this process (LocalRollouts)"


class RolloutSettings(ABC):
    """Where rollouts are sampled, and how many tokens at once."""

    tokens: int
    """Most tokens of the completions sampled together in this process, prompts included."""

    @property
    def importance_cap(self) -> float | None:
        """The largest importance weight; None if the trained model itself samples."""
        return None

    @property
    def served(self) -> bool:
        """Whether a server samples, so that rollouts take no memory of this process."""
        return False

    def check(self, has_adapter: bool) -> None:  # noqa: B027 - optional
        """Raise ConfigError if this cannot work; called before a model is loaded.

        Args:
            has_adapter: whether adapters are trained instead of all weights.
        """

    def check_reachable(self) -> None:  # noqa: B027 - optional
        """Raise ConfigError unless the server answers; called before a model is loaded."""

    def resume_settings(self) -> dict[str, object]:
        """Plain values to compare when a run is resumed; nothing about memory and speed."""
        return {"class": type(self).__name__}

    @abstractmethod
    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """The engine of a run; build one for the whole run, because engines keep state.

        Args:
            policy: sampled with the weights that it has at each call.
            budget: bounds what is sampled together in this process; starts from :attr:`tokens`.

        Raises:
            ConfigError: these settings do not work for this policy.
        """


@dataclass(frozen=True)
class LocalRollouts(RolloutSettings):
    """Rollouts are sampled in this process.

    Args:
        tokens: most tokens of the completions sampled together, prompts included. It bounds the KV
            cache, and is halved when memory runs out.
    """

    tokens: int = 65_536

    def __post_init__(self) -> None:
        require_at_least(self.tokens, 1, f"{_KEY}.tokens", "nothing would fit")

    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """See :meth:`RolloutSettings.build`."""
        return local_engine(policy, policy.causal_lm, budget)


@dataclass(frozen=True)
class ServedRollouts(RolloutSettings):
    """Rollouts are sampled by a vLLM server; the adapter is published there before each round.

    Start the server yourself, with the same base model, in a separate Python environment::

        VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank RANK

    If the sampling temperature is not 1, add ``--logprobs-mode processed_logprobs``. Anyone who can
    reach this server can make it load files, so keep it on the loopback interface.

    If the server stops answering, the run ends with one line. Its last checkpoint is complete:
    start the server again and resume.

    Args:
        url: base URL of the protocol, such as ``http://127.0.0.1:8000/v1``.
        model: the name of the base model on the server.
        adapter_folder: folder for adapters; this process and the server see it under the same path.
        client: the server's key, seconds for one try of one prompt (all its completions), and
            prompts at once.
        importance_cap: largest importance weight of a token: its probability under the trainer
            divided by that under the server.
        tokens: as for LocalRollouts, for what the frozen reference samples in this process: replies
            as a judge, and answers as the opponent.
    """

    url: str
    model: str
    adapter_folder: str
    client: Client = Client(timeout=600.0, concurrency=64)  # noqa: RUF009 - frozen
    importance_cap: float = 2.0
    tokens: int = 65_536

    def __post_init__(self) -> None:
        self._server()
        require_at_least(self.tokens, 1, f"{_KEY}.tokens", "nothing would fit")
        if not self.model.strip():
            raise ConfigError(f"{_KEY}.model", "is empty", "give the model's name on the server")
        if not 1 <= self.importance_cap <= math.inf:
            raise ConfigError(
                f"{_KEY}.importance_cap",
                f"is {self.importance_cap}, which would cap even tokens on which server and "
                "trainer agree (weight 1)",
                "set 1 or more",
            )

    @property
    def served(self) -> bool:
        """See :meth:`RolloutSettings.served`."""
        return True

    def check(self, has_adapter: bool) -> None:
        """See :meth:`RolloutSettings.check`."""
        if not has_adapter:
            raise ConfigError(
                _KEY,
                "a server can load a new adapter between rounds, but not a whole model",
                "set model.lora, or sample in this process (LocalRollouts)",
            )

    def check_reachable(self) -> None:
        """See :meth:`RolloutSettings.check_reachable`."""
        check_reachable(self.url, f"{_KEY}.url", _START)

    def resume_settings(self) -> dict[str, object]:
        """See :meth:`RolloutSettings.resume_settings`."""
        names = ("url", "model", "importance_cap")
        return {**super().resume_settings(), **{name: getattr(self, name) for name in names}}

    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """See :meth:`RolloutSettings.build`. The server is checked first.

        Raises:
            ConfigError: the policy has no adapter, or the server does not answer or has another
                model.
        """
        self.check(policy.has_adapter)
        if any("lora_magnitude_vector" in name for name in policy.trained_state()):
            raise ConfigError(
                "model.init_adapter",
                "is DoRA, which a vLLM server does not load",
                "give a LoRA adapter, or sample in this process (LocalRollouts)",
            )
        server = self._server()
        publisher = AdapterPublisher(server, Path(self.adapter_folder).expanduser(), policy)
        engine = ServedEngine(server, self.model, policy, publisher)
        try:
            engine.check()
        except EngineError as error:
            raise ConfigError(f"{_KEY}.url", error.cause, _START) from error
        return engine

    def _server(self) -> ServerClient:
        return ServerClient(self.url, self.client, _KEY)


def local_engine(policy: TrainedPolicy, model: Any, budget: TokenBudget | None) -> LocalEngine:
    """An engine in this process for the policy or its reference.

    Args:
        policy: says which tokens end a completion, pad it, or are never sampled.
        model: the causal LM to sample from: the policy's or its reference's.
        budget: most tokens sampled at once; None is no limit.
    """
    return LocalEngine(
        model,
        policy.codec.stop_ids,
        policy.pad_id,
        budget=budget,
        never=policy.undecodable_ids,
        stops=StopTexts(policy.codec),
    )


def close_engine(engine: Engine) -> None:
    """Unload a served engine's adapter from the server; a local engine has nothing to release.

    The engine can be used again afterwards.
    """
    if isinstance(engine, ServedEngine):
        engine.close()
