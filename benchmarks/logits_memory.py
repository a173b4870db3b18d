"""Peak memory of one training micro-batch for vocabularies of several sizes.

python -m benchmarks.logits_memory [--rows 16] [--vocabularies 4096 32768 131072]

Three ways are compared: this package, the plain formula over all logits, and the loss of TRL's GRPO
trainer. All use the same rows (64 prompt and 128 new tokens each) and the same random model (LoRA
of rank 16 on all linear layers, fp32). Each forward and backward pass runs in a separate process,
on one thread; the reference's log-probs are given. The figure is the peak memory during the pass
minus the memory before it (the weights; there is no optimiser): the resident set on a CPU, with an
allocator that frees memory at once, and the allocated memory on a GPU.
"""

import argparse
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from lsp_lightning import Policy
from lsp_lightning.functional import selfplay_loss
from lsp_lightning.training.batches import pack
from lsp_lightning.types import Playout, Rollouts, SelfPlayRound, TrainBatch

PROMPT, NEW, HIDDEN, LAYERS, BETA = 64, 128, 256, 4, 0.02
#: The reference's log-prob of every token: about what a random model gives.
REFERENCE = -10.0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: Environment in which larger blocks go back to the system as soon as they are freed.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
RESULT = Path("benchmarks/logits_memory.json")


def main() -> None:
    """Measure each way at each vocabulary, print a table and write logits_memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 32768, 131072])
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, folder = args.measure
        print(json.dumps(measured(way, folder, args.rows)))
        return
    if not all(map(importlib.util.find_spec, ("trl", "datasets"))):
        sys.exit("TRL is missing: pip install 'lsp-lightning[bench]'")
    figures: dict[int, dict[str, Any]] = {}
    for vocabulary in args.vocabularies:
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder), vocabulary)
            figures[vocabulary] = {way: in_a_process(way, folder, args.rows) for way in WAYS}
    print(table(figures))
    result = {"rows": args.rows, "prompt": PROMPT, "new": NEW, "device": DEVICE, "peak_mb": figures}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def in_a_process(way: str, folder: str, rows: int) -> dict[str, float]:
    """Measure one way in a new process."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.logits_memory", "--rows", str(rows)),
            *("--measure", way, folder),
        ],
        env={**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(figures: dict[int, dict[str, Any]]) -> str:
    """A Markdown table of MB beyond the weights, and how many times those of this package."""
    lines = [
        "| vocabulary | weights, MB | ours, MB | plain formula, MB | TRL, MB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for vocabulary, ways in figures.items():
        ours = ways["ours"]["peak"]
        others = (f"{ways[w]['peak']:,.0f} (x{ways[w]['peak'] / ours:.1f})" for w in WAYS[1:])
        weights = ways["ours"]["weights"]
        lines.append(f"| {vocabulary:,} | {weights:,.0f} | {ours:,.0f} | {' | '.join(others)} |")
    return "\n".join(lines)


def measured(way: str, folder: str, rows: int) -> dict[str, float]:
    """MB at the peak of a forward and backward pass, MB of the weights, and the gradient's norm."""
    torch.manual_seed(0)
    model, loss = {"ours": ours, "plain": plain, "trl": trl}[way](folder)
    torch.autograd.backward(loss(some_rows(1, 2)))  # a first pass, for one-time allocations
    model.zero_grad(set_to_none=True)
    batch = some_rows(rows, NEW)
    before = reset_peak()
    torch.autograd.backward(loss(batch))
    peak = highest() - before
    gradients = [p.grad.float().norm() for p in model.parameters() if p.grad is not None]
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return {"peak": peak, "weights": weights, "gradient_norm": float(torch.stack(gradients).norm())}


def reset_peak() -> float:
    """Start to record the peak. -> the memory in use now, in MB."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def highest() -> float:
    """The peak since the last reset, in MB."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resident("VmHWM")


def resident(key: str) -> float:
    """A memory figure of this process from /proc, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(x.split()[1]) for x in status.splitlines() if x.startswith(key)) / 1024


def some_rows(rows: int, new: int) -> TrainBatch:
    """A micro-batch of ``rows`` completions with ``new`` tokens, each to another query."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, (rows, PROMPT + new), generator=generator)
    mask = torch.ones(rows, PROMPT + new, dtype=torch.bool)
    answers = Rollouts(
        prompt_ids=ids[:, :PROMPT],
        prompt_mask=mask[:, :PROMPT],
        completion_ids=ids[:, PROMPT:],
        completion_mask=mask[:, PROMPT:],
        logprobs=torch.zeros(rows, new),
        truncated=torch.zeros(rows, dtype=torch.bool),
        texts=("",) * rows,
        temperature=1.0,
    )
    played = SelfPlayRound(
        index=0,
        playout=Playout(("",) * rows, answers, group_size=1),
        rewards_NG=torch.zeros(rows, 1),
        judged_NG=torch.ones(rows, 1, dtype=torch.bool),
    )
    [batch] = pack(played, pad_id=0, token_budget=rows * (PROMPT + new))
    return batch.to(DEVICE)


def advantages(batch: TrainBatch) -> Tensor:
    """Advantages of both signs. -> (rows,)."""
    return torch.linspace(-1, 1, len(batch.rows) + 1, device=DEVICE)[1:]


def loss_of(logprobs: Tensor, batch: TrainBatch) -> Tensor:
    """The self-play loss of a micro-batch, with the KL term that TRL uses."""
    weights = torch.full_like(advantages(batch), 1 / len(batch.rows))
    reference = torch.full_like(logprobs, REFERENCE)
    return selfplay_loss(
        logprobs, reference, batch.mask, advantages(batch), weights, BETA, "k3_loss"
    )


Way = tuple[torch.nn.Module, Callable[[TrainBatch], Tensor]]


def ours(folder: str) -> Way:
    """The policy and the loss as this package computes it."""
    policy = Policy(folder, dtype="float32", device=DEVICE)
    return policy, lambda batch: loss_of(policy.completion_logprobs(batch)[0], batch)


def plain(folder: str) -> Way:
    """The same policy and the plain formula: log-softmax of all logits, then select the tokens."""
    policy = Policy(folder, dtype="float32", device=DEVICE)

    def loss(batch: TrainBatch) -> Tensor:
        logits = policy.causal_lm(input_ids=batch.input_ids).logits.float()
        every = logits.log_softmax(dim=-1).flatten(0, 1)
        return loss_of(every[batch.sources, batch.targets], batch)

    return policy, loss


def trl(folder: str) -> Way:
    """The model and the loss of TRL's trainer, without generation and set-up."""
    library, peft = importlib.import_module("trl"), importlib.import_module("peft")
    prompts = [{"prompt": [{"role": "user", "content": "x"}]}] * 8
    trainer = library.GRPOTrainer(
        model=transformers().AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=library.GRPOConfig(
            output_dir=f"{folder}/out",
            beta=BETA,
            report_to="none",
            use_cpu=DEVICE == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=8,
        ),
        train_dataset=importlib.import_module("datasets").Dataset.from_list(prompts),
        processing_class=transformers().AutoTokenizer.from_pretrained(folder),
        peft_config=peft.LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.current_gradient_accumulation_steps = 1  # as TRL's training loop sets it
    trainer.model.train()

    def loss(batch: TrainBatch) -> Tensor:
        inputs = {
            "prompt_ids": batch.input_ids[:, :PROMPT],
            "prompt_mask": torch.ones_like(batch.input_ids[:, :PROMPT]),
            "completion_ids": batch.targets,
            "completion_mask": batch.mask.long(),
            "advantages": advantages(batch),
            "num_items_in_batch": batch.mask.sum(),
            "ref_per_token_logps": torch.full(batch.mask.shape, REFERENCE, device=DEVICE),
        }
        value: Tensor = trainer.compute_loss(trainer.model, inputs)
        return value

    return trainer.model, loss


WAYS = ("ours", "plain", "trl")


def transformers() -> Any:
    """The transformers library, imported on first use."""
    return importlib.import_module("transformers")


def make_model(folder: Path, vocabulary: int) -> None:
    """Write a random Llama with a character tokenizer and ``vocabulary`` tokens."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", *string.printable]
    tokens += [f"<x{i}>" for i in range(len(tokens), vocabulary)]
    ids = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = transformers().PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}"
        "</s>{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(0)
    config = transformers().LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    transformers().LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
