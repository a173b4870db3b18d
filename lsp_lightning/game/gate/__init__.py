"""The gate: which queries enter training. One module for each check."""

from lsp_lightning.game.gate.base import QueryCheck
from lsp_lightning.game.gate.gate import Gate
from lsp_lightning.game.gate.judged import Judged
from lsp_lightning.game.gate.matches import Matches
from lsp_lightning.game.gate.novel import Novel
from lsp_lightning.game.gate.well_formed import WellFormed

__all__ = ["Gate", "Judged", "Matches", "Novel", "QueryCheck", "WellFormed"]
