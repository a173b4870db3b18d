"""A module that needs no language model: its only weight is the number of rounds it has played."""

from types import SimpleNamespace

from lightning.pytorch import LightningModule
from torch import nn, optim

from lsp_lightning.training import resume
from lsp_lightning.training.stream import RoundStream


class Counter(LightningModule):
    """Adds 1 to its weight in each round."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)
        self.policy = SimpleNamespace(
            has_adapter=True, save=lambda folder: None, parameters=self.parameters
        )

    def training_step(self, batch, batch_idx):
        self.logged = {"weight": self.layer.weight.detach().sum()}
        self.log_dict(self.logged, batch_size=1)
        return -self.layer.weight.sum()

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=1.0)

    def on_save_checkpoint(self, checkpoint):
        resume.stay_open(checkpoint)
        checkpoint["lsp_lightning"] = {}


def rounds_of(count: int) -> RoundStream:
    """Rounds that hold nothing but their number."""
    return RoundStream(lambda index: SimpleNamespace(index=index), count)
