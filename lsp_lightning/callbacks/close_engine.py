"""Closing an engine when a run ends."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.game.player import Player
from lsp_lightning.generation import close_engine


class ClosesEngine(Callback):
    """Closes the player's engine, whether the run ends well or not.

    An engine may hold something outside of this process, such as an adapter on a server.

    Args:
        player: returns the player, or None if there is none yet.
    """

    def __init__(self, player: Callable[[], Player | None]) -> None:
        self._player = player

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the engine after a run."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the engine after an error, which skips ``teardown``."""
        self._close()

    def _close(self) -> None:
        player = self._player()
        if player is not None:
            close_engine(player.engine)
