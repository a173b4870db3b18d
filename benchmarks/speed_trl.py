"""TRL's side of the comparison: its GRPO trainer, sampling with transformers."""

import importlib
import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.speed_work import ALPHA, BETA, MAX_NORM, RANK, RATE, Stopwatch, Work


def run(work: Work, watch: Stopwatch) -> None:
    """Train for ``work.steps`` steps; each one waits for the stopwatch."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder)
        drawn: list[Any] = []
        trainer._generate = kept(watch.timed("generation", trainer._generate), drawn)
        plain = trainer._get_per_token_logps_and_entropies
        reference = watch.timed("reference", plain)
        trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
            plain if torch.is_grad_enabled() else reference
        )(*args, **kwargs)
        trainer.compute_loss = watch.timed("policy", trainer.compute_loss)
        trainer.accelerator.backward = watch.timed("policy", trainer.accelerator.backward)
        trainer.add_callback(on_command(watch, drawn))
        trainer.train()


def kept(function: Any, results: list[Any]) -> Any:
    """Wrap a function so that ``results`` always holds its latest result."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        results[:] = [function(*args, **kwargs)]
        return results[0]

    return wrapper


def on_command(watch: Stopwatch, drawn: list[Any]) -> Any:
    """A callback that waits before each step and reports it afterwards."""
    transformers: Any = importlib.import_module("transformers")

    class OnCommand(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            watch.wait()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            prompts, completions = drawn[0][:2]
            watch.report(prompts, completions)
            watch.wait()

    return OnCommand()


def make_trainer(work: Work, folder: str) -> Any:
    """TRL's GRPO trainer, with all completions of a step in one batch."""
    trl, transformers = importlib.import_module("trl"), importlib.import_module("transformers")
    prompts = [{"prompt": [{"role": "user", "content": text}]} for text in work.queries]
    return trl.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(work.folder, dtype=torch.float32),
        reward_funcs=alternating,
        args=trl.GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=len(work.queries) * work.group_size,
            num_generations=work.group_size,
            max_completion_length=work.new_tokens,
            generation_kwargs={"min_new_tokens": work.new_tokens},  # no earlier stop token
            max_steps=work.steps,
            shuffle_dataset=False,
            beta=BETA,
            learning_rate=RATE,
            max_grad_norm=MAX_NORM,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=10**6,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=importlib.import_module("datasets").Dataset.from_list(prompts * work.steps),
        processing_class=transformers.AutoTokenizer.from_pretrained(work.folder),
        peft_config=importlib.import_module("peft").LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )


def alternating(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that costs no time: 0, 1, 0, 1, ... within a group."""
    return [float(j % 2) for j in range(len(completions))]
