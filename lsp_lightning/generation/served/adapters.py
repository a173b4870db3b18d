"""Publishes the policy's adapter on a rollout server: write it, load it, unload the old one.

It uses vLLM's hot loading (``--enable-lora`` and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``). It has
**not been run against a real vLLM yet**, which needs a GPU.
"""

import hashlib
import shutil
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.errors import EngineError, Refused
from lsp_lightning.text.chat import ChatCodec


class TrainedPolicy(Protocol):
    """The part of a policy that an engine needs."""

    @property
    def causal_lm(self) -> Any:
        """The model with its adapters."""

    @property
    def codec(self) -> ChatCodec:
        """Turns chat turns into tokens and back."""

    @property
    def pad_id(self) -> int:
        """The token that fills up shorter rows."""

    @property
    def undecodable_ids(self) -> Sequence[int]:
        """Ids for which the tokenizer has no token."""

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained, not all weights."""

    def trained_state(self) -> dict[str, Tensor]:
        """The weights of every adapter, by name."""

    def save(self, folder: Path) -> None:
        """Write the trained adapter to ``folder``, in peft's layout."""


def fingerprint(policy: TrainedPolicy) -> str:
    """A digest of the trained weights: it changes if and only if they do.

    It is computed from the values: some optimisers bypass torch's version counters.
    """
    digest = hashlib.blake2b(digest_size=16)
    for tensor in policy.trained_state().values():  # names and order never change
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class AdapterPublisher:
    """Keeps the adapter on the server equal to the policy's.

    Each version of the weights gets a new name. So an answer shows which weights it comes from, and
    a server that caches prompts by adapter name never uses stale entries. The old version is
    unloaded before the new one is loaded: the server needs room for one adapter only.

    Args:
        client: the server.
        folder: a folder that this process and the server see under the same path; each run creates
            a subfolder and removes it at its end.
        policy: the policy with the adapter.
    """

    def __init__(self, client: ServerClient, folder: Path, policy: TrainedPolicy) -> None:
        self._client = client
        self._policy = policy
        # a random name: a resumed or a second run must not reuse the names of another run
        self._run = f"lsp-{uuid.uuid4().hex[:8]}"
        self._folder = folder.absolute() / self._run
        self._version = 0
        self._loaded: str | None = None
        self._published: str | None = None
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def publish(self, before: Callable[[], None]) -> str:
        """Load the adapter on the server unless this version is loaded. Returns its name there.

        Args:
            before: called before a new version is loaded; its exceptions stop the loading.

        Raises:
            ConfigError: the folder cannot be written.
            EngineError: the server could not load the adapter.
        """
        now = fingerprint(self._policy)
        if self._loaded is not None and now == self._published:
            return self._loaded
        before()
        self.unload()
        self._version += 1
        name = f"{self._run}-{self._version:06d}"
        written = self._write(name)
        try:
            request = {"lora_name": name, "lora_path": str(written)}
            self._client.ask(f"{self._client.base}/load_lora_adapter", request)
        except Refused as error:
            raise self._not_loaded(error, written) from error
        self._loaded, self._published = name, now
        return name

    def unload(self, quick: bool = False) -> None:
        """Unload the adapter from the server and delete its folder.

        Args:
            quick: try once with a short timeout, for the end of a run: the server may hang.
        """
        name, self._loaded = self._loaded, None
        if name is None:
            return
        client = self._client.quick() if quick else self._client
        try:
            client.ask(f"{client.base}/unload_lora_adapter", {"lora_name": name})
        except EngineError as error:
            unloaded = isinstance(error, Refused) and error.status == 404
            if not unloaded:  # it only takes memory there: the name is never used again
                warn(f"adapter {name} stays loaded on the rollout server ({error.cause})")
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def invalidate(self) -> None:
        """Publish again in the next call, because the server may have lost the adapter."""
        self._published = None  # `_loaded` stays, so that the old adapter is still unloaded

    def _write(self, name: str) -> Path:
        """Write the adapter; the final folder name appears only when all files are complete."""
        written, partial = self._folder / name, self._folder / f".{name}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._policy.save(partial)
            partial.rename(written)
        except OSError as error:
            raise ConfigError(
                f"{self._client.key}.adapter_folder",
                f"cannot be written ({error})",
                "give a folder that this process can write and the server can read",
            ) from error
        return written

    def _not_loaded(self, error: Refused, written: Path) -> EngineError:
        if error.status == 404 and written.name not in error.said:  # the server has no such path
            return EngineError(
                f"{self._client.url} cannot load adapters ({error.status}: {error.said})",
                "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            )
        return EngineError(
            f"{self._client.url} could not load the adapter at {written} ({error.status}: "
            f"{error.said})",
            "let the server read that folder, and start it with --max-lora-rank at least "
            "model.lora.rank",
        )
