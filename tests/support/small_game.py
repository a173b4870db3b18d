"""A game small enough for a test: tiny policies, a verifier of gibberish, runs of a few rounds."""

import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from lsp_lightning import Challenger, Lora, Player, Policy, Sampling, VerifiableReward, play_round
from lsp_lightning.cli.app import _DEFAULTS as TRAINER_DEFAULTS
from lsp_lightning.rewards import Verifier

SHORT_PROMPT = str(Path(__file__).with_name("short_prompt.txt"))


class Checksum(Verifier):
    """Half of all texts are right, whatever a random model writes."""

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        return [float(zlib.crc32(f"{query}|{answer}".encode()) % 2) for answer in answers]


def brief(folder: Path, target: Path) -> Path:
    """The model in ``folder`` with every sixth token a stop token: most completions end early."""
    shutil.copytree(folder, target)
    path = target / "generation_config.json"
    config = json.loads(path.read_text())
    size = json.loads((target / "config.json").read_text())["vocab_size"]
    config["eos_token_id"] = sorted({config["eos_token_id"], *range(10, size, 6)})
    path.write_text(json.dumps(config))
    return target


def make_policy(folder, rank=4, dropout=0.0, **kwargs) -> Policy:
    """A policy with a small adapter over the model in ``folder``; the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        lora = Lora(rank=rank, alpha=2 * rank, dropout=dropout)
        return Policy(str(folder), **{"lora": lora, **kwargs})


def stir(policy: Policy, scale: float = 0.1, seed: int = 5) -> None:
    """Move what is trained away from where it started."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def tiny_round(policy: Policy, n: int = 4, g: int = 3, seed: int = 0, source=None, rewards=None):
    """A round really played by ``policy``."""
    source = source or Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=9))
    rewards = rewards or [VerifiableReward(Checksum())]
    return play_round(
        Player.local(policy),
        source,
        rewards,
        num_queries=n,
        group_size=g,
        sampling=Sampling(temperature=1.2, max_new_tokens=7),
        seed=seed,
    )


def tiny_trainer(
    folder: Path, rounds: int, callbacks: Sequence[Callback] = (), **kwargs
) -> Trainer:
    """The Trainer of the command line, with its defaults, without loggers."""
    settings = {
        **TRAINER_DEFAULTS,
        "default_root_dir": folder,
        "max_steps": rounds,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "callbacks": list(callbacks),
        **kwargs,
    }
    return Trainer(**settings)
