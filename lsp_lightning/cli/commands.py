"""The commands that Lightning does not have. Each is a method, and its arguments become flags."""

import contextlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lsp_lightning.callbacks import Pilot
from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError
from lsp_lightning.models.policy import Policy
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.rewards import Reward
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.checkpoint import read_checkpoint
from lsp_lightning.training import resume


class SelfPlayTrainer(Trainer):
    """Lightning's Trainer with commands before and after a run."""

    def pilot(self, model: LightningModule, datamodule: LightningDataModule) -> bool:
        """Play one round and say whether a run has anything to learn.

        It is the first round that ``fit`` plays, with its update, so that time and memory are
        those of a run. Nothing is written, and the trained weights are not used.

        Args:
            model: the module, with nothing loaded.
            datamodule: its data.

        Returns:
            Whether the game can start.
        """
        self.limit_train_batches, self.val_check_interval = 1, 1.0
        self.num_sanity_val_steps = self.limit_val_batches = 0
        pilot = Pilot()
        self.callbacks = [pilot]  # all others write, or show a whole run
        self.fit(model, datamodule=datamodule)
        return pilot.verdict is not None and pilot.verdict.can_start

    def plan(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        gpu_gib: float | None = None,
    ) -> None:
        """Estimate GPU memory before loading anything.

        Args:
            model: the module, with nothing loaded.
            datamodule: its data.
            gpu_gib: memory of the GPU that the run should fit on, in GiB; null takes this machine's
                GPU.
        """
        from lsp_lightning.planning import print_plan

        if gpu_gib is not None and not 0 < gpu_gib < math.inf:
            raise ConfigError("gpu_gib", f"is {gpu_gib}", "give the GPU's memory in GiB, such as 8")
        module, data = _narrowed(model, datamodule)
        print_plan(module, data, gpu_gib)

    def export(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        form: Literal["adapter", "merged"] = "adapter",
        out: Path | None = None,
    ) -> None:
        """Export the trained adapter or merged model.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint.
            form: the adapter in peft's layout, or the base model with the adapter merged into it.
            out: folder to write; null takes "export" in the run's folder.
        """
        from lsp_lightning.export import check_target, export_run, run_record

        if ckpt_path is None:
            raise ConfigError("ckpt_path", "is not set", "give a run's checkpoints/last.ckpt")
        target = out or RunFolder(self.default_root_dir).export_path
        check_target(target)
        checkpoint = read_checkpoint(ckpt_path)
        module, data = _narrowed(model, datamodule)
        policy = load_policy(module, checkpoint, self.strategy.root_device)
        record = run_record(module, data, checkpoint, Path(ckpt_path))
        form = export_run(policy, record["base"], form, target, record)
        print(f"exported to {target}/ ({form}); its README.md shows how to load it")

    def crossplay(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        players: list[str] | None = None,
        queries: int = 64,
        answers: int = 4,
        out: Path | None = None,
        json: bool = False,
    ) -> None:
        """Let Challengers and Solvers of several rounds play against each other.

        Each policy writes queries, and each answers all of them. The matrix tells whether later
        Challengers are harder and later Solvers better.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint.
            players: who plays: base, trained (the checkpoint), snapshots (adapters that the run has
                kept, see checkpoint.snapshots), and folders of adapters of the same base; null is
                [base, snapshots, trained].
            queries: queries of each Challenger.
            answers: answers of each Solver to each query.
            out: file to write; null takes crossplay.json in the run's folder.
            json: print the result as JSON instead of tables.
        """
        from lsp_lightning.cli import crossplay

        if ckpt_path is None:
            raise ConfigError("ckpt_path", "is not set", "give a run's checkpoints/last.ckpt")
        module, data = _narrowed(model, datamodule)
        sizes = crossplay.Sizes(queries, answers)
        with contextlib.redirect_stdout(sys.stderr):  # stdout gets the result alone
            rewards = crossplay.check(module, data, sizes)
            checkpoint, run = read_checkpoint(ckpt_path), RunFolder(self.default_root_dir)
            who = crossplay.contenders(players, run, resume.rounds_of(checkpoint))
            try:
                for reward in rewards:
                    reward.setup(self, module, "crossplay")
                policy = load_policy(module, checkpoint, self.strategy.root_device)
                found = crossplay.play(policy, rewards, data, who, sizes)
            finally:
                for reward in rewards:
                    reward.teardown(self, module, "crossplay")
            crossplay.write(found, out or run.crossplay_path, sizes)
        crossplay.print_result(found, sizes, json)

    def chat(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        role: Literal["solver", "challenger"] = "solver",
    ) -> None:
        """Chat with the base model or a trained checkpoint.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint; null chats with the base model.
            role: the Solver answers your questions; the Challenger prints the queries of a round.
        """
        from lsp_lightning.cli.chat import chat, check_role

        module, data = _narrowed(model, datamodule)
        check_role(data, role)
        checkpoint = None if ckpt_path is None else read_checkpoint(ckpt_path)
        chat(load_policy(module, checkpoint, self.strategy.root_device), data, role)

    def evaluate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        prompts: str | None = None,
        tasks: str | None = None,
        judge: Reward | None = None,
        draws: int | None = None,
        temperature: float | None = None,
        limit: int | None = None,
        out: Path | None = None,
        json: bool = False,
    ) -> None:
        """Measure a policy against the frozen base: win rates, pass@k on tasks, benchmarks.

        Without prompts and tasks, the run's data.test or else data.heldout is used. A command that
        was stopped goes on where it was; the same command again prints its result at once.

        Args:
            model: the module.
            datamodule: its data.
            ckpt_path: the run's checkpoint; null evaluates the policy before training.
            prompts: file of prompts for win rates, in a format of PromptFile or AlpacaEval's.
            tasks: files of tasks with solutions for pass@k, and names of benchmarks (gsm8k, ifeval,
                humaneval), separated by commas.
            judge: the reward that compares two answers; null takes the run's comparable reward.
            draws: answers to each prompt or task, at most 64; null is 4, and for benchmarks one
                greedy answer.
            temperature: sampling temperature; null takes that of data.solver.
            limit: most prompts or tasks of a file, spread over it; null takes all.
            out: folder to write; null takes "evaluations" in the run's folder.
            json: print the result as JSON instead of a table.
        """
        from lsp_lightning.cli.evaluate import Evaluator, print_results, writable
        from lsp_lightning.cli.evaluation_settings import Typed, prepare, read_plan
        from lsp_lightning.evaluation.identity import settings_of

        module, data = _narrowed(model, datamodule)
        with contextlib.redirect_stdout(sys.stderr):  # stdout gets the result alone
            plan = read_plan(Typed(prompts, tasks, judge, draws, temperature, limit), module, data)
            folder = writable(out or RunFolder(self.default_root_dir).evaluations_path)
            identities = {id(reward): settings_of(reward) for reward in plan.rewards}
            try:
                prepare(plan, module, self)
                checkpoint = None if ckpt_path is None else read_checkpoint(ckpt_path)
                policy = load_policy(module, checkpoint, self.strategy.root_device)
                rounds = 0 if checkpoint is None else resume.rounds_of(checkpoint)
                evaluator = Evaluator(plan, module, data, policy, rounds, folder, identities)
                results = evaluator.run()
            finally:
                for reward in plan.rewards:
                    reward.teardown(self, module, "evaluate")
        print_results(results, json)


def _narrowed(
    model: LightningModule, datamodule: LightningDataModule
) -> tuple[SelfPlayModule, SelfPlayDataModule]:
    """Both with their real types; Lightning's parser requires its base classes as type hints."""
    assert isinstance(model, SelfPlayModule)
    assert isinstance(datamodule, SelfPlayDataModule)
    return model, datamodule


def load_policy(
    module: SelfPlayModule, checkpoint: dict[str, Any] | None, device: torch.device
) -> Policy:
    """The policy of a checkpoint, without the rewards that it is trained with.

    Args:
        module: provides the settings.
        checkpoint: a checkpoint of the run; None gives the policy before training.
        device: where it is loaded.

    Raises:
        ConfigError: the checkpoint belongs to another base, adapter or reference.
    """
    settings = replace(module.policy_settings, activation_checkpointing=False)
    if checkpoint is None:
        return Policy.from_settings(settings, device)
    now = resume.run_settings(module, None)
    resume.compare_settings(checkpoint, {key: now[key] for key in resume.FIXED_SETTINGS})
    policy = Policy.from_settings(settings, device)
    resume.require_trained(checkpoint, policy.trained_state())
    prefix = "policy."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    policy.load_state_dict(state, strict=False)
    return policy
