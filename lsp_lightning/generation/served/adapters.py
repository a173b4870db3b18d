"""The policy's adapter on a rollout server: written, loaded under its version's name, taken away.

Written for vLLM's hot loading (``--enable-lora`` and ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``);
**not yet run against a real vLLM**, which needs a GPU.
"""

import hashlib
import shutil
import uuid
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.errors import EngineError, Refused
from lsp_lightning.text.chat import ChatCodec


class TrainedPolicy(Protocol):
    """What engines need to know of a policy."""

    @property
    def causal_lm(self) -> Any:
        """The model with its adapters in place."""

    @property
    def codec(self) -> ChatCodec:
        """Its chat turns."""

    @property
    def pad_id(self) -> int:
        """Fills up shorter rows."""

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained, and not all weights."""

    def trained_state(self) -> dict[str, Tensor]:
        """Every adapter, by name."""

    def save(self, folder: Path) -> None:
        """Write the trained adapter in peft's layout."""


def fingerprint(policy: TrainedPolicy) -> str:
    """A digest of what is trained: equal where nothing changed.

    Of the values themselves, for some optimisers write past torch's own counters of changes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for tensor in policy.trained_state().values():  # a policy's names and their order stay
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class AdapterPublisher:
    """Keeps the server's adapter that of the policy.

    Each version has a name of its own. Loading new weights under an old name would be shorter, but
    then no answer could show which weights it is by, and a server may keep what it has computed of
    a prompt by the adapter's name. The old one goes before the new one comes, so that a server with
    room for one adapter is enough.

    Args:
        client: the server.
        folder: which this process and the server see under the same path; each run makes and takes
            away a folder of its own in it.
        policy: whose adapter it is.
    """

    def __init__(self, client: ServerClient, folder: Path, policy: TrainedPolicy) -> None:
        self._client = client
        self._policy = policy
        # a run that was resumed, or another beside it, must not meet adapters of the same name
        self._run = f"lsp-{uuid.uuid4().hex[:8]}"
        self._folder = folder.absolute() / self._run
        self._version = 0
        self._loaded: str | None = None
        self._published: str | None = None
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def publish(self, before: Callable[[], None]) -> str:
        """The name on the server of the adapter as it is now, loaded if it is not there yet.

        Args:
            before: is called first where it is not there yet; what it raises ends the attempt.

        Raises:
            ConfigError: the folder cannot be written.
            EngineError: the server does not load it.
        """
        now = fingerprint(self._policy)
        if self._loaded is not None and now == self._published:
            return self._loaded
        before()
        self.withdraw()
        self._version += 1
        name = f"{self._run}-{self._version:06d}"
        written = self._write(name)
        try:
            request = {"lora_name": name, "lora_path": str(written)}
            self._client.ask(f"{self._client.url.rstrip('/')}/load_lora_adapter", request)
        except Refused as error:
            raise self._not_loaded(error, written) from error
        self._loaded, self._published = name, now
        return name

    def withdraw(self, patiently: bool = True) -> None:
        """Take the adapter off the server, and its folder away.

        Args:
            patiently: with all tries and the time that completions may take; else one short try,
                where a run ends and perhaps because the server hangs.
        """
        name, self._loaded = self._loaded, None
        if name is None:
            return
        client = self._client if patiently else self._client.hurried()
        try:
            url = f"{client.url.rstrip('/')}/unload_lora_adapter"
            client.ask(url, {"lora_name": name})
        except EngineError as error:
            gone = isinstance(error, Refused) and error.status == 404
            if not gone:  # only memory is lost by it: the name is never asked again
                warnings.warn(f"{name} stays on the rollout server: {error}", stacklevel=2)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def forget(self) -> None:
        """Take nothing for granted that the server knew: the next call publishes anew."""
        self._published = None  # but what it may still hold is yet to be withdrawn

    def _write(self, name: str) -> Path:
        """The adapter in a folder that appears whole."""
        written, begun = self._folder / name, self._folder / f".{name}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._policy.save(begun)
            begun.rename(written)
        except OSError as error:
            raise ConfigError(
                f"{self._client.key}.adapter_folder",
                f"cannot be written ({error})",
                "give a folder that this process can write and the server can read",
            ) from error
        return written

    def _not_loaded(self, error: Refused, written: Path) -> EngineError:
        if error.status == 404 and written.name not in error.said:  # no such path on the server
            return EngineError(
                f"{self._client.url} cannot load adapters ({error.status}: {error.said})",
                "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            )
        return EngineError(
            f"{self._client.url} does not load the adapter at {written} ({error.status}: "
            f"{error.said})",
            "it must see that folder, and its --max-lora-rank reach model.lora.rank",
        )
