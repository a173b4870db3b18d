"""Releases what an engine holds outside of this process when a run ends."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.game.player import Player
from lsp_lightning.generation import close_engine


class ClosesEngine(Callback):
    """Has an engine let go of what it holds outside of this process, however a run ends."""

    def __init__(self, player: Callable[[], Player | None]) -> None:
        self._player = player

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """At a good end."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """At a bad one, where there is no teardown."""
        self._close()

    def _close(self) -> None:
        player = self._player()
        if player is not None:
            close_engine(player.engine)
