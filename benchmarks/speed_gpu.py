"""Decoding on a GPU against the bound that its memory's bandwidth sets. Not yet run on one.

A decoding step reads every weight once, whatever the number of rows, so it takes at least the
weights' bytes over the bandwidth. The keys and values that it reads too are not in the bound.
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
    """Tokens a second of each shape in bf16 and in 4 bits, and the bound. None without a GPU.

    What is timed is a long call less a short one, of so many ``steps``: the prefill is in neither.
    """
    if device == "cuda" and not torch.cuda.is_available():
        print("\nno GPU: decoding against its memory's bandwidth is skipped")
        return None
    bandwidth = measured_bandwidth(device)
    print(f"\nbandwidth, by copying: {bandwidth / 1e9:.0f} GB/s")
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
    """Bytes a second that a large copy reads and writes."""
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
    """Wait until all that was launched is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def decoding(
    folder: str, quantization: Quantization | None, steps: tuple[int, int], device: str
) -> tuple[float, int]:
    """Seconds of a decoding step, and the bytes of all weights that it reads."""
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
    # the embeddings are the head's weights too, and so are read whole
    return step, sum(p.numel() * p.element_size() for p in policy.parameters())
