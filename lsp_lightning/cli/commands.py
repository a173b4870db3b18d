"""The commands beside Lightning's own; each is a method, whose arguments become flags."""

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError
from lsp_lightning.models.policy import Policy
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.training import resume

#: Settings of a policy that a checkpoint's tensors do not depend on.
_FREE = ("dtype", "chat_template_kwargs")


class SelfPlayTrainer(Trainer):
    """Lightning's Trainer with the commands that look at a run without playing it."""

    def plan(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        gpu_gib: float | None = None,
    ) -> None:
        """What a run will take of a GPU's memory, before anything is loaded.

        Args:
            model: the module, with nothing loaded.
            datamodule: its data.
            gpu_gib: memory of the GPU that it should fit on; null is the one that is here.
        """
        from lsp_lightning.planning import print_plan

        if gpu_gib is not None and not 0 < gpu_gib < math.inf:
            raise ConfigError("gpu_gib", f"is {gpu_gib}", "give the card's memory, such as 8")
        module, data = _ours(model, datamodule)
        print_plan(module, data, gpu_gib)

    def export(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        form: Literal["adapter", "merged"] = "adapter",
        out: Path | None = None,
    ) -> None:
        """Write what a run has learned for use elsewhere.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint.
            form: adapter in peft's layout, or merged into the base.
            out: folder to write; null is "export" in the run's folder.
        """
        from lsp_lightning.export import check_target, export_run, run_record

        if ckpt_path is None:
            raise ConfigError("ckpt_path", "is not set", "give a run's checkpoints/last.ckpt")
        target = out or Path(self.default_root_dir) / "export"
        check_target(target)
        checkpoint = read_checkpoint(ckpt_path)
        module, data = _ours(model, datamodule)
        policy = load_policy(module, checkpoint, self.strategy.root_device)
        record = run_record(module, data, checkpoint, Path(ckpt_path))
        form = export_run(policy, record["base"], form, target, record)
        print(f"written to {target}/ ({form}); its README.md says how to load it")

    def chat(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        role: Literal["solver", "challenger"] = "solver",
    ) -> None:
        """Talk to the base, or to what a run has made of it.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint; null talks to the base.
            role: the Solver answers what is typed; the Challenger prints queries.
        """
        from lsp_lightning.cli.chat import check_talk, talk

        module, data = _ours(model, datamodule)
        check_talk(data, role)
        checkpoint = None if ckpt_path is None else read_checkpoint(ckpt_path)
        talk(load_policy(module, checkpoint, self.strategy.root_device), data, role)


def _ours(
    model: LightningModule, datamodule: LightningDataModule
) -> tuple[SelfPlayModule, SelfPlayDataModule]:
    """The module and its data as what they are: Lightning's parser wants its own classes named."""
    assert isinstance(model, SelfPlayModule)
    assert isinstance(datamodule, SelfPlayDataModule)
    return model, datamodule


def read_checkpoint(path: str) -> dict[str, Any]:
    """A run's checkpoint, its tensors on the disk until they are needed.

    Raises:
        ConfigError: it is none.
    """
    remedy = "give a run's checkpoints/last.ckpt"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError("ckpt_path", f"{path!r} is no checkpoint", remedy) from error
    if not isinstance(found, dict) or not {"state_dict", "lsp_lightning"} <= set(found):
        raise ConfigError("ckpt_path", f"{path!r} is of no run of this kind", remedy)
    return found


def load_policy(
    module: SelfPlayModule, checkpoint: dict[str, Any] | None, device: torch.device
) -> Policy:
    """The policy alone, without the rewards that it is trained by, as of a checkpoint.

    Args:
        module: for its settings.
        checkpoint: of its run; None leaves the policy as training would begin.
        device: where it is loaded.

    Raises:
        ConfigError: the checkpoint is of another base, adapter or reference.
    """
    settings = replace(module.policy_settings, activation_checkpointing=False)
    if checkpoint is None:
        return Policy.from_settings(settings, device)
    decisive = set(vars(settings)) - set(_FREE)
    now = {
        key: value for key, value in resume.run_settings(module, None).items() if key in decisive
    }
    resume.compare_settings(checkpoint, now)
    policy = Policy.from_settings(settings, device)
    resume.require_trained(checkpoint, set(policy.trained_state()))
    prefix = "policy."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    policy.load_state_dict(state, strict=False)
    return policy
