"""Decoding on a GPU, compared with the bound by memory bandwidth. Not run on a GPU yet.

A decoding step reads every weight once, for any number of rows. So its time is at least the bytes
of the weights divided by the bandwidth. Keys and values are not in the bound.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_work import ALPHA, RANK, make_queries
from lsp_lightning import Lora, Player, Policy, Sampling
from lsp_lightning.models.quantization import Quantization

#: The shapes of Llama 3.2.
SHAPES = {
    "1B": Shape(2048, 16, 128_256, intermediate=8192, heads=32, kv_heads=8),
    "3B": Shape(3072, 28, 128_256, intermediate=8192, heads=24, kv_heads=8),
}
KINDS: dict[str, Quantization | None] = {"bf16": None, "nf4": "nf4"}
QUICK: dict[str, Any] = {
    "shapes": {"tiny": Shape(256, 2, 512, intermediate=512)},
    "steps": (1, 3),
}
PROMPT, QUERIES, DRAWS = 70, 8, 8
FIXED = {"warm_up": 1, "prompt": PROMPT, "queries": QUERIES, "draws": DRAWS, "clock": "wall"}


def gpu(
    shapes: dict[str, Shape] = SHAPES, steps: tuple[int, int] = (32, 160), device: str = "cuda"
) -> list[dict[str, Any]] | None:
    """Tokens per second of each shape in bf16 and in 4 bits, and the bound. None without a GPU.

    The time is that of a long call minus that of a short one, of ``steps`` tokens each, so that the
    prefill does not count.
    """
    if device == "cuda" and not torch.cuda.is_available():
        print("\nno GPU: section gpu is skipped")
        return None
    bandwidth = measured_bandwidth(device)
    print(f"\nmemory bandwidth, measured by copying: {bandwidth / 1e9:.0f} GB/s")
    print("| model | tokens/s | bound, tokens/s | of the bound |\n|---|---:|---:|---:|")
    rows = []
    for name, shape in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            make_random_model(Path(folder), shape, torch.bfloat16, device)
            for kind, quantization in KINDS.items():
                seconds, size = decoding(folder, quantization, steps, device)
                speed, bound = QUERIES * DRAWS / seconds, QUERIES * DRAWS * bandwidth / size
                row = {"model": name, "weights": kind, "bytes": size}
                rows.append({**row, "tokens_per_s": speed, "bound": bound})
                print(f"| {name} {kind} | {speed:,.0f} | {bound:,.0f} | {speed / bound:.0%} |")
    return rows


def measured_bandwidth(device: str, size: int = 2**30) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    synchronize(device)
    start = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    synchronize(device)
    return 10 * 2 * size / (time.perf_counter() - start)


def synchronize(device: str) -> None:
    """Wait until the GPU has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def decoding(
    folder: str, quantization: Quantization | None, steps: tuple[int, int], device: str
) -> tuple[float, int]:
    """Seconds of one decoding step, and the bytes of the weights that it reads."""
    policy = Policy(
        folder,
        Lora(rank=RANK, alpha=ALPHA),
        dtype="bfloat16",
        quantization=quantization,
        device=device,
    )
    policy.codec.stop_ids = ()
    player = Player.local(policy)
    prompts = [policy.codec.encode("{query}", {"query": q}) for q in make_queries(QUERIES, PROMPT)]

    def seconds(new: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        player.engine.generate(prompts, DRAWS, Sampling(max_new_tokens=new), seed=0)
        synchronize(device)
        return time.perf_counter() - start

    short, long = steps
    seconds(long)
    step = (seconds(long) - seconds(short)) / (long - short)
    # embeddings are tied to the head, so all of them are read
    return step, sum(p.numel() * p.element_size() for p in policy.parameters())
