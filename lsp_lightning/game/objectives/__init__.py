"""The Challenger's objectives, one module each."""

from lsp_lightning.game.objectives.band import Band
from lsp_lightning.game.objectives.base import Advantages, Objective
from lsp_lightning.game.objectives.frontier import Frontier
from lsp_lightning.game.objectives.learnability import Learnability
from lsp_lightning.game.objectives.paper import Paper

__all__ = ["Advantages", "Band", "Frontier", "Learnability", "Objective", "Paper"]
