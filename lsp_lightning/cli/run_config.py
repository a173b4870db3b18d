"""The config of a run, saved in its folder and given to its loggers."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lsp_lightning.cli.loggers import keep_id
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import replacing


class SaveRunConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder when training starts.

    Not earlier: a checkpoint that is refused must leave the folder unchanged.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config without ``ckpt_path``, so that it can start a new run.

        The compute type is the one that ``auto`` chose: a run keeps it on any machine.
        """
        if trainer.is_global_zero:
            config = self.config.clone()
            config["ckpt_path"] = None
            if isinstance(pl_module, SelfPlayModule):
                dtype = pl_module.loaded_policy.dtype
                config["model"]["dtype"] = str(dtype).removeprefix("torch.")
            path = RunFolder(trainer.default_root_dir).config_path
            with replacing(path) as partial:  # a resumed run reads it
                self.parser.save(config, partial, skip_none=False, overwrite=True, multifile=False)
            keep_id(trainer.loggers, path.parent)
            settings = RunFolder(path.parent).config()
            for logger in trainer.loggers:
                logger.log_hyperparams(settings)
