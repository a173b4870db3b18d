"""What goes wrong in a run that goes on learning: symptoms, and a watch that warns of them."""

from lsp_lightning.diagnosis.collapse import CollapseWatch
from lsp_lightning.diagnosis.symptom import Symptom
from lsp_lightning.diagnosis.symptoms import SYMPTOMS
from lsp_lightning.diagnosis.windows import Finding, Windows

__all__ = ["SYMPTOMS", "CollapseWatch", "Finding", "Symptom", "Windows"]
