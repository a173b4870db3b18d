"""4-bit bases: their size, their error, and whether self-play on them learns as much.

python -m benchmarks.quantized --out runs/quantized [--seeds 0 1 2] [--rounds 100] [--processes 2]

Sizes come from the tensors and from the saved file. Logits are compared on the tiny world's dev
tasks, at answers sampled from the float32 base. Learning is compared on the test tasks; each run is
the preset tiny_lsp without gate, pool and penalty, with the base in float32 or in NF4.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks.runs import Arm, cell, folder, play_all
from benchmarks.tiny_long import PLAIN
from lsp_lightning import Player, Policy, Sampling, VerifiableReward
from lsp_lightning.evaluation.heldout import score_tasks
from lsp_lightning.functional.evaluation import pass_at_k
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.models.loading import load_model
from lsp_lightning.models.logits import head_logits, hidden_states
from lsp_lightning.models.quantization import Quantization, full_weight, linear_layers
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

WORLD = "pkg:lsp_lightning/tinyworld"
BASE = f"{WORLD}/base"
DRAWS = 8
SOLVER = Sampling(max_new_tokens=8)
KINDS: dict[str, Quantization | None] = {"fp32": None, "nf4": "nf4"}
ARMS: dict[str, Arm] = {
    "fp32": ("tiny_lsp", PLAIN),
    "nf4": ("tiny_lsp", [*PLAIN, "--model.quantization", "nf4"]),
}


def main() -> None:
    """Measure sizes and logits, play and score all runs, print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quantized"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    play_all(args.out, ARMS, args.seeds, args.rounds, args.processes)
    with tempfile.TemporaryDirectory() as larger:
        save_larger(Path(larger))
        sizes = {
            "tiny base, float32": sizes_of(BASE, torch.float32),
            "hidden 1024, bfloat16": sizes_of(larger, torch.bfloat16),
        }
    report = {
        "rounds": args.rounds,
        "seeds": args.seeds,
        "sizes": sizes,
        "logits": compare_logits(),
        "learning": compare_learning(args.out, args.seeds),
    }
    (args.out / "quantized.json").write_text(json.dumps(report, indent=2) + "\n")
    print(tables(report))


# -- sizes -----------------------------------------------------------------------------------------


def save_larger(target: Path) -> None:
    """Write a random Llama with 51 million quantized weights.

    It is so wide that the code tables hardly count. Its weights are normally distributed, as NF4
    assumes.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(target)


def sizes_of(base: str, compute_type: torch.dtype) -> dict[str, float]:
    """Bits per weight in memory and on disk, and the error of the quantized weights."""
    model = load_model(base, compute_type, "nf4")
    original = dict(load_model(base, compute_type).named_modules())
    layers = {n: layer for n, layer in model.named_modules() if layer in linear_layers(model)}
    count = sum(_weights(layer.weight) for layer in layers.values())
    everything = {id(p): _weights(p) for p in model.parameters()}
    packed = sum(layer.weight.nbytes for layer in layers.values())
    scales = [s for layer in layers.values() for s in _scales(layer)]
    tables = {c.data_ptr(): c.nbytes for layer in layers.values() for c in _codes(layer)}
    rest = sum(p.nbytes for p in model.parameters()) - packed
    in_memory = packed + sum(s.nbytes for s in scales)
    lost = total = 0.0
    for name, layer in layers.items():
        weight = original[name].weight.detach().float()
        lost += float((full_weight(layer).float() - weight).square().sum())
        total += float(weight.square().sum())
    on_disk, file = _saved_bytes(model, set(layers))
    return {
        "quantised weights": count,
        "all weights": sum(everything.values()),
        "memory, 4-bit codes": 8 * packed / count,
        "memory, with scales": 8 * in_memory / count,
        "memory, with code tables": 8 * (in_memory + sum(tables.values())) / count,
        "disk": 8 * on_disk / count,
        "whole model, memory": 8
        * (in_memory + sum(tables.values()) + rest)
        / sum(everything.values()),
        "whole model, disk": 8 * file / sum(everything.values()),
        "relative error of weights": (lost / total) ** 0.5,
    }


def _scales(layer: Any) -> list[Tensor]:
    """A layer's scales, the scales of the scales, and their offset."""
    state = layer.weight.quant_state
    return [state.absmax, state.state2.absmax, state.offset]


def _codes(layer: Any) -> list[Tensor]:
    """The tables of the 4-bit and the 8-bit codes; layers may share them."""
    state = layer.weight.quant_state
    return [state.code, state.state2.code]


def _weights(parameter: torch.Tensor) -> int:
    """How many weights a parameter holds: a quantized one stores two in each byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _saved_bytes(model: nn.Module, layers: set[str]) -> tuple[int, int]:
    """Bytes of the quantized layers' tensors in the saved file, and bytes of the whole file."""
    with tempfile.TemporaryDirectory() as target:
        saved: Any = model
        saved.save_pretrained(target)
        [path] = Path(target).glob("*.safetensors")
        with safe_open(path, "pt") as tensors:
            names = [n for n in tensors.keys() if n.partition(".weight")[0] in layers]  # noqa: SIM118
            quantised = sum(tensors.get_tensor(n).nbytes for n in names)
        return quantised, path.stat().st_size


# -- logits ----------------------------------------------------------------------------------------


@torch.no_grad()
def compare_logits() -> dict[str, float]:
    """Difference between the logits of the quantized and the float32 base on answer tokens."""
    policies = {kind: Policy(BASE, quantization=nf4).eval() for kind, nf4 in KINDS.items()}
    player = Player.local(policies["fp32"])
    tasks = read_queries(f"{WORLD}/data/dev.jsonl", "dev")
    prompts = [player.codec.encode("{query}", {"query": task.text}) for task in tasks]
    drawn = player.respond(prompts, 1, replace(SOLVER, temperature=1.0), seed=0)
    logits: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for i in range(len(drawn)):
        prompt = drawn.prompt_ids[i][drawn.prompt_mask[i]]
        answer = drawn.completion_ids[i][drawn.completion_mask[i]]
        ids = torch.cat([prompt, answer]).unsqueeze(0)
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        for kind, policy in policies.items():
            hidden = hidden_states(policy.causal_lm, ids, positions)[0]
            logits[kind].append(head_logits(policy.causal_lm, hidden[len(prompt) - 1 : -1]))
    full, packed = (torch.cat(logits[kind]) for kind in KINDS)
    difference = (packed - full).abs()
    p, q = full.log_softmax(-1), packed.log_softmax(-1)
    return {
        "tokens": len(full),
        "mean absolute difference": float(difference.mean()),
        "standard deviation of logits": float(full.std()),
        "mean difference / standard deviation": float(difference.mean() / full.std()),
        "same most likely token": float((full.argmax(-1) == packed.argmax(-1)).float().mean()),
        "KL from fp32 to nf4, nats a token": float((p.exp() * (p - q)).sum(-1).mean()),
    }


# -- learning --------------------------------------------------------------------------------------


def compare_learning(out: Path, seeds: list[int]) -> dict[str, list[dict[str, float]]]:
    """Scores on the test tasks of both bases, before and after self-play.

    Also of the adapters that were trained on the quantized base, loaded on the float32 base.
    """
    results = {
        f"base, {kind}": [score(None, nf4, seed) for seed in seeds] for kind, nf4 in KINDS.items()
    }
    for kind, nf4 in KINDS.items():
        runs = [(folder(out, kind, seed), seed) for seed in seeds]
        results[f"LSP, {kind}"] = [score(run, nf4, seed) for run, seed in runs]
    runs = [(folder(out, "nf4", seed), seed) for seed in seeds]
    results["LSP on nf4, adapter put on fp32"] = [score(run, None, seed) for run, seed in runs]
    return results


def score(run: Path | None, quantization: Quantization | None, seed: int) -> dict[str, float]:
    """Scores of one policy on the test tasks."""
    adapter = str(run / "adapter") if run else None
    player = Player.local(Policy(BASE, init_adapter=adapter, quantization=quantization))
    tasks = read_queries(f"{WORLD}/data/test.jsonl", "test")
    reward = VerifiableReward(TinyWorldVerifier())
    scored = score_tasks(player, tasks, reward, SOLVER, "{query}", DRAWS, seed)
    return {
        "sampled": float(scored.sampled.mean()),
        "greedy": float(scored.greedy.mean()),
        f"pass@{DRAWS}": float(pass_at_k(scored.sampled, DRAWS).mean()),
    }


# -- tables ----------------------------------------------------------------------------------------


def tables(report: dict[str, Any]) -> str:
    """Markdown tables of sizes, logits and learning, with mean and deviation over the seeds."""
    sizes, learning = report["sizes"], report["learning"]
    lines = [f"| bits per weight | {' | '.join(sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for name in next(iter(sizes.values())):
        values = [column[name] for column in sizes.values()]
        cells = [f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| logits, nf4 against fp32 | |", "|---|---|"]
    lines += [f"| {name} | {value:,.4g} |" for name, value in report["logits"].items()]
    names = list(next(iter(learning.values()))[0])
    lines += ["", f"| arm | {' | '.join(names)} | sampled, each seed |"]
    lines.append(f"|---|{'---|' * (len(names) + 1)}")
    for arm, rows in learning.items():
        cells = [cell([row[name] for row in rows]) for name in names]
        each = ", ".join(f"{row['sampled']:.3f}" for row in rows)
        lines.append(f"| {arm} | {' | '.join(cells)} | {each} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
