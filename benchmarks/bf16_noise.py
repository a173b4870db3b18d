"""How far sampler and trainer are apart in each number format, and what that does to the KL term.

python -m benchmarks.bf16_noise [--model FOLDER] [--formats float32 bfloat16 float16]
    [--queries 4] [--answers 6] [--tokens 128] [--out runs/bf16_noise.json]

The policy has an untouched adapter, so its true KL is 0, and so is the KL term's true gradient. The
log-ratio is taken once with the sampler's log-probs and once with the trainer's, which training
uses below float32. The share of noise is the norm of the KL term's gradient, relative to the norm
of the whole gradient when half of the answers are rewarded by a coin. Seconds are CPU time.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsp_lightning import Lora, Player, Policy, Sampling
from lsp_lightning.functional import k1_in_reward
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.text.prompts import SOLVER
from lsp_lightning.training.batches import pack
from lsp_lightning.training.gradient import (
    LossSettings,
    PreparedRound,
    accumulate_gradients,
    prepare_round,
)
from lsp_lightning.training.off_policy import trainer_logprobs
from lsp_lightning.types import Playout, SelfPlayRound

TINY = "pkg:lsp_lightning/tinyworld/base"
QUERIES = (
    "Write about a river in three sentences.",
    "What is 17 + 25? Explain each step.",
    "Name four animals and say where each one lives.",
    "Explain to a child why the sky is blue.",
    "Write a short story about a lighthouse.",
    "Give five tips for learning a language.",
    "Describe how bread is baked.",
    "List the planets and one fact about each.",
)
BETA = 0.05
MICRO_BATCH_TOKENS = 8192


def main() -> None:
    """Measure each format, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--formats", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/bf16_noise.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        name: measure(args.model, name, args.queries, args.answers, args.tokens)
        for name in args.formats
    }
    name = args.model if args.model == TINY else Path(args.model).name
    shape = {k: getattr(args, k) for k in ("queries", "answers", "tokens")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"model": name, **shape, "formats": found}, indent=2) + "\n")
    print(table(found))


def measure(model: str, dtype: Any, queries: int, answers: int, tokens: int) -> dict[str, float]:
    """All figures of one number format: nats, shares, and seconds of CPU time."""
    torch.manual_seed(0)
    policy = Policy(model, lora=Lora(), dtype=dtype)
    seconds: dict[str, float] = {}
    played = timed(seconds, "sampling", lambda: play(policy, queries, answers, tokens))
    batches = pack(played, policy.pad_id, MICRO_BATCH_TOKENS, policy.shares_prompts)
    settings = LossSettings(BETA, "k1_in_reward", 1.0)
    coin = torch.randint(2, (queries, answers), generator=torch.Generator().manual_seed(0)).float()
    advantages = Advantages(coin - coin.mean(1, keepdim=True), None)
    # without the KL term, the pass without gradients is that of the reference alone
    plain = replace(settings, beta=0.0)
    prepared = timed(
        seconds, "reference", lambda: prepare_round(policy, played, advantages, batches, plain)
    )
    computed = timed(seconds, "own pass", lambda: trainer_logprobs(policy, batches))
    draws = prepared.draws.with_computed(computed)
    ratios = {
        "sampler": replace(draws, exact=True).log_ratios(prepared.references),
        "trainer": replace(draws, exact=False).log_ratios(prepared.references),
    }

    def gradient(advantages_R: Tensor, with_settings: LossSettings = settings) -> Tensor:
        return gradient_of(
            policy, replace(prepared, advantages_R=advantages_R), batches, with_settings
        )

    reward = timed(seconds, "gradient", lambda: gradient(advantages.rows()))
    figures = {
        "gap_per_token": draws.stats()["sampler/logprob_gap"],
        "gap_std_per_completion": draws.stats()["sampler/logprob_gap_std"],
    }
    for who, ratio_R in ratios.items():
        noise = gradient(-BETA * k1_in_reward(ratio_R))
        figures[f"kl_{who}"] = float(ratio_R.mean())
        figures[f"kl_std_{who}"] = float(ratio_R.std())
        figures[f"noise_share_{who}"] = float(noise.norm() / (reward + noise).norm())
    k2 = gradient(torch.zeros(queries * answers), replace(settings, kl="k2_loss"))
    figures["noise_share_k2_loss"] = float(k2.norm() / reward.norm())
    before = sum(seconds.values()) - seconds["own pass"]
    figures["round_with_own_pass"] = sum(seconds.values()) / before
    return figures | {f"seconds_{phase}": s for phase, s in seconds.items()}


def play(policy: Policy, queries: int, answers: int, tokens: int) -> SelfPlayRound:
    """A round of sampled answers without rewards."""
    player, texts = Player.local(policy), QUERIES[:queries]
    prompts = [policy.codec.encode(SOLVER, {"query": text}) for text in texts]
    drawn = player.respond(prompts, answers, Sampling(max_new_tokens=tokens), seed=0)
    shape = (len(texts), answers)
    ones = torch.ones(shape, dtype=torch.bool)
    return SelfPlayRound(0, Playout(texts, drawn, answers), torch.zeros(shape), ones)


def gradient_of(
    policy: Policy, prepared: PreparedRound, batches: Any, settings: LossSettings
) -> Tensor:
    """The gradient of a round as one vector."""
    policy.zero_grad()
    if not prepared.contributes_R(settings).any():  # training leaves such completions out
        batches = []
    accumulate_gradients(policy, prepared, batches, settings, torch.autograd.backward)
    trained = [p for p in policy.parameters() if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    return torch.cat([grad.flatten() for grad in grads]).double()


def timed(seconds: dict[str, float], phase: str, call: Callable[[], Any]) -> Any:
    """Call and note the CPU seconds."""
    start = time.process_time()
    result = call()
    seconds[phase] = time.process_time() - start
    return result


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """One row for each figure."""
    names = list(next(iter(found.values())))
    lines = [f"{'':24}" + "".join(f"{name:>12}" for name in found)]
    lines += [f"{n:24}" + "".join(f"{f[n]:12.3g}" for f in found.values()) for n in names]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
