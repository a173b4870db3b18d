"""Compare the memory that `plan` estimates with measurements of random models.

python -m benchmarks.plan_error [--rows llama-float32 ...]

Each row runs in a separate process. "measured" is the peak of PyTorch's allocator:
torch.cuda.max_memory_allocated on a GPU, the profiler's record on a CPU. "passing" is the error for
temporary memory alone, without weights and gradients. "resident" is the peak of the process on a
CPU; there matrix products in bfloat16 also keep copies of weights in another layout. Loading is not
measured. Writes benchmarks/plan_error.json.
"""

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

#: Config of a small model of each family, with about 60 million parameters.
WIDTHS: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = ("llama", "qwen3", "gemma3_text")
#: The micro-batch: completions, tokens of a prompt, tokens of a completion, completions per prompt.
BATCH = (4, 128, 256, 2)
#: The rollout: the same four numbers.
ROLLOUT = (32, 224, 24, 8)
MIB = 2**20


def main() -> None:
    """Measure all rows, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="names of rows; default: all")
    parser.add_argument("--case", help="settings of one row as JSON; measures it in this process")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(**json.loads(args.case))))
        return
    table = []
    heads = ("plan MiB", "measured", "error", "passing", "resident")
    print(f"{'row':<42}{'phase':<10}" + "".join(f"{head:>10}" for head in heads))
    for name, case in cases().items():
        if not args.rows or name in args.rows:
            for row in in_a_process(case):
                table.append({"row": name, **row})
                show(name, row)
            write(table)
    print(f"largest error of a phase's peak: {worst(table):.1%}")


def worst(table: list[dict[str, Any]]) -> float:
    """The largest relative error of a phase's peak."""
    return float(max(abs(row["error"]) for row in table))


def write(table: list[dict[str, Any]]) -> None:
    """Write the rows that are measured so far."""
    found = {"device": device(), "largest_error": worst(table), "rows": table}
    Path("benchmarks/plan_error.json").write_text(json.dumps(found, indent=2) + "\n")


def cases() -> dict[str, dict[str, Any]]:
    """The settings of each row, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for family in FAMILIES:
        for dtype in ("float32", "bfloat16"):
            for checkpointing in (False, True):
                for quantized in (False, True):
                    if family != "llama" and not checkpointing and dtype != "float32":
                        continue  # the full grid for llama only
                    words = [family.removesuffix("_text"), dtype]
                    words += ["nf4"] * quantized + ["checkpointing"] * checkpointing
                    found["-".join(words)] = {
                        "family": family,
                        "dtype": dtype,
                        "checkpointing": checkpointing,
                        "quantized": quantized,
                    }
    return found


def show(name: str, row: dict[str, Any]) -> None:
    """Print one line of the table."""
    print(
        f"{name:<42}{row['phase']:<10}{row['planned']:10.0f}{row['measured']:10.0f}"
        f"{row['error']:10.1%}{row['passing_error']:10.1%}{row['resident']:10.0f}",
        flush=True,
    )


def device() -> str:
    """The device of the measurement."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def in_a_process(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure the phases of one row in a new process that returns freed memory at once."""
    limits = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan_error", "--case", json.dumps(case)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **limits, "OMP_NUM_THREADS": "1"},
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def measure(family: str, dtype: str, checkpointing: bool, quantized: bool) -> list[dict[str, Any]]:
    """Measured and planned memory of an update and of a rollout, in MiB."""
    from lsp_lightning.models.policy import Policy
    from lsp_lightning.models.settings import Lora
    from lsp_lightning.planning import phases
    from lsp_lightning.planning.models import ModelSpec, sizes
    from lsp_lightning.planning.shapes import Shape

    with tempfile.TemporaryDirectory() as folder:
        save_random(folder, family)
        policy = Policy(
            folder,
            dtype=dtype,  # type: ignore[arg-type]
            quantization="nf4" if quantized else None,
            activation_checkpointing=checkpointing,
            device=device(),
        )
        learn(policy, Shape(1, 4, 4))
        draw(policy, Shape(1, 4, 2))
        stays = held(policy)
        measured = {
            "update": peak_of(lambda: learn(policy, Shape(*BATCH))),
            "rollout": peak_of(lambda: draw(policy, Shape(*ROLLOUT))),
        }
        spec = ModelSpec(
            folder, policy.dtype, packed=quantized, lora=Lora(), checkpointing=checkpointing
        )
        own = sizes(spec)
        first = phases.cost(phases.prefill, spec, Shape(*ROLLOUT))
        last = phases.cost(phases.decode, spec, Shape(*ROLLOUT))
        passing = {
            "update": phases.cost(phases.update, spec, Shape(*BATCH)).peak,
            "rollout": max(first.peak, last.peak),
        }
    own_bytes = own.frozen + 2 * own.trained  # with gradients
    return [
        {
            "phase": phase,
            "planned": (own_bytes + passing[phase]) / MIB,
            "measured": (stays + allocated) / MIB,
            "resident": (stays + resident) / MIB,
            "error": (own_bytes + passing[phase]) / (stays + allocated) - 1,
            "passing_error": passing[phase] / allocated - 1,
        }
        for phase, (allocated, resident) in measured.items()
    ]


def save_random(folder: str, family: str) -> None:
    """Write a model with random weights and a character tokenizer."""
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
    llama_tokenizer = importlib.import_module("tiny_models").llama_tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **WIDTHS)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    llama_tokenizer().save_pretrained(folder)


def learn(policy: Any, shape: Any) -> None:
    """One forward and backward pass; gradients add up, as over micro-batches."""
    from lsp_lightning.functional import selfplay_loss
    from lsp_lightning.planning.shapes import train_batch

    batch = train_batch(shape, policy.shares_prompts).to(policy.device)
    policy.train()
    logprobs, _ = policy.completion_logprobs(batch)
    ones = torch.ones(shape.rows, device=policy.device)
    zeros = torch.zeros(batch.mask.shape, device=policy.device)
    loss = selfplay_loss(logprobs, zeros, batch.mask, ones, ones, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]


def draw(policy: Any, shape: Any) -> None:
    """Sample completions of full length: no token ends them."""
    from lsp_lightning.generation import LocalEngine
    from lsp_lightning.types import Sampling

    sampling = Sampling(max_new_tokens=shape.completion)
    LocalEngine(policy.causal_lm, [], 0).generate(shape.prompt_ids(), shape.draws, sampling, 0)


def peak_of(work: Callable[[], None]) -> tuple[float, float]:
    """Peak bytes above the state before: of the allocator, and of the process's resident set."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        peak = float(torch.cuda.max_memory_allocated() - before)
        return peak, peak
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    work()
    resident = _status("VmHWM") - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        work()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return float(peak), float(resident)


def held(policy: Any) -> int:
    """Bytes of the policy's tensors, with gradients and the scales of 4-bit weights."""
    tensors = [*policy.parameters(), *policy.buffers()]
    tensors += [p.grad for p in policy.parameters() if p.grad is not None]
    for state in (getattr(p, "quant_state", None) for p in policy.parameters()):
        if state is not None:
            tensors += [state.absmax, state.state2.absmax]
    return sum(t.numel() * t.element_size() for t in tensors)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
