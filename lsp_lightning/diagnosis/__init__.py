"""What goes wrong in a run that goes on learning: symptoms, found in its metrics.

Nothing here needs a model, except ``collapse.py``, the watch that warns while a run plays.
"""

from lsp_lightning.diagnosis.comparison import Comparison
from lsp_lightning.diagnosis.symptom import Symptom
from lsp_lightning.diagnosis.symptoms import SYMPTOMS
from lsp_lightning.diagnosis.windows import Finding, Windows

__all__ = ["SYMPTOMS", "Comparison", "Finding", "Symptom", "Windows"]
