"""Names that other trainers have for this package's keys, to suggest the right one."""

import difflib
import re
import sys
from collections.abc import Sequence

from lsp_lightning.errors import ConfigError

_SYNONYMS: dict[str, str] = {
    "seed_everything": "seed random_seed",
    "ckpt_path": "ckpt checkpoint checkpoint_path resume resume_from resume_from_checkpoint load",
    "model.base": "base_model model_name model_name_or_path model_id model_path pretrained",
    "model.rewards": "reward reward_fn reward_funcs reward_function reward_model",
    "model.lora": "adapter peft_config use_peft",
    "model.lora.rank": "r lora_r lora_rank",
    "model.lora.alpha": "lora_alpha",
    "model.lora.dropout": "lora_dropout",
    "model.lora.target_modules": "lora_target_modules",
    "model.dtype": "torch_dtype bf16 fp16 mixed_precision",
    "model.quantization": "load_in_4bit load_in_8bit bits quantize",
    "model.activation_checkpointing": "gradient_checkpointing",
    "model.beta": "kl_coef kl_beta kl_coeff kl_weight kl_penalty init_kl_coef kl_loss_coef",
    "model.kl": "kl_type kl_estimator kl_loss_type",
    "model.objective": "adv_estimator",
    "model.optimizer": "optim",
    "model.optimizer.init_args.lr": "lr learning_rate",
    "model.optimizer.init_args.weight_decay": "weight_decay",
    "model.optimizer.init_args.betas": "betas adam_betas",
    "model.lr_scheduler": "scheduler lr_scheduler_type warmup warmup_steps warmup_ratio",
    "model.max_grad_norm": "clip_grad clip_grad_norm grad_clip gradient_clip_val",
    "model.micro_batch_tokens": "gradient_accumulation_steps micro_batch_size",
    "model.rollouts": "use_vllm vllm",
    "data.queries": "dataset datasets dataset_name train_file train_files train_dataset "
    "data_path prompts",
    "data.heldout": "eval_dataset eval_file validation_file val_file val_files",
    "data.num_queries": "batch_size train_batch_size per_device_train_batch_size",
    "data.group_size": "num_generations num_return_sequences n_samples rollout_n num_samples n",
    "data.solver.max_new_tokens": "max_completion_length max_response_length max_tokens "
    "max_length max_new_tokens response_length sequence_len",
    "data.solver.temperature": "temperature",
    "data.solver.top_p": "top_p",
    "data.solver.top_k": "top_k",
    "trainer.max_steps": "epochs num_epochs num_train_epochs max_epochs steps num_steps "
    "total_steps rounds num_rounds iterations max_iters total_epochs total_training_steps",
    "trainer.default_root_dir": "output_dir out_dir output save_dir log_dir logging_dir run_dir",
    "trainer.accelerator": "device gpu gpus cuda",
    "trainer.logger": "report_to wandb use_wandb",
    "trainer.val_check_interval": "eval_steps eval_every eval_interval",
    "checkpoint.every": "save_steps save_every save_interval",
}
#: Names of settings that a run here does not have, and what to do instead.
_INSTEAD: dict[str, str] = {
    "leave it out: a run uses one GPU": "n_gpus_per_node nnodes num_gpus num_processes "
    "nproc_per_node world_size tensor_parallel_size tensor_model_parallel_size",
}
_HOMES = {
    "optimizer": "torch.optim",
    "lr_scheduler": "torch.optim.lr_scheduler",
    "callbacks": "lightning.pytorch.callbacks",
    "logger": "lightning.pytorch.loggers",
}
_REMEDIES = {name: remedy for remedy, names in _INSTEAD.items() for name in names.split()}
_KEYS = {name: key for key, names in _SYNONYMS.items() for name in names.split()}


def instead(key: str) -> str | None:
    """What to do about a setting that a run here does not have; None for another key."""
    return _REMEDIES.get(key.rpartition(".")[2].lower())


def meant(key: str, keys: Sequence[str]) -> str | None:
    """The key that is meant by one that does not exist, if that is known.

    Args:
        key: what was written; its last part counts.
        keys: the keys that exist.
    """
    last = key.rpartition(".")[2].lower()
    begun = [k for k in keys if k.startswith(f"{last}_") and last in _KEYS]  # gpu of gpu_gib
    if len(begun) == 1:
        return begun[0]
    target = _KEYS.get(last)
    if target is None:
        same = [k for k in keys if k.rpartition(".")[2] == last]
        return same[0] if len(same) == 1 else None
    if any(target == k or target.startswith(f"{k}.") for k in keys):
        return target
    name = target.rpartition(".")[2]  # in the settings of one class
    found = [k for k in keys if k.rpartition(".")[2] == name]
    return found[0] if len(found) == 1 else None


def unknown_key(key: str, keys: Sequence[str], of_class: bool) -> ConfigError:
    """The error for a key that does not exist; it suggests another one.

    Args:
        key: what was written.
        keys: the keys that exist.
        of_class: whether they are the settings of a class, and so few enough to list.
    """
    home = None if of_class else _home(key, keys)
    if home:
        return ConfigError(home[0], "there is no such key", f"did you mean {home[1]!r}?")
    return ConfigError(key, "there is no such key", _nearest(key, keys, of_class))


def _home(key: str, keys: Sequence[str]) -> tuple[str, str] | None:
    """The part of an unknown key that is the last name of another key, and that key."""
    if instead(key) or meant(key, keys):
        return None
    parts = key.split(".")
    for count, part in enumerate(parts, start=1):
        begun = ".".join(parts[:count])
        if not any(name == begun or name.startswith(f"{begun}.") for name in keys):
            same = [name for name in keys if name.rpartition(".")[2] == part]
            if len(same) == 1:
                return begun, same[0]
    return None


def _nearest(key: str, keys: Sequence[str], of_class: bool) -> str:
    other = instead(key)
    if other:
        return other
    names = sorted(name for name in keys if name != "help" and not name.endswith(".help"))
    near = [meant(key, names), *difflib.get_close_matches(key, names, n=1, cutoff=0.6)]
    found = next((name for name in near if name and name != key), None)
    if found:
        return f"did you mean {found!r}?"
    return f"the keys here are {', '.join(names)}" if of_class else "see --help for the keys"


def about_class(key: str, name: str) -> str | None:
    """What to do about an algorithm's name where a class belongs; None for another name."""
    if key == "objective" and re.fullmatch(r"(?:dr_?)?(?:grpo|ppo|rloo|dapo|gspo)", name.lower()):
        return (
            "leave it out for GRPO: data.queries: {class_path: lsp_lightning.PromptFile, ...}, as "
            "in configs/tiny_grpo.yaml"
        )
    return None


def class_near(key: str, name: str) -> str | None:
    """The path of the class that a mistyped name probably means.

    Args:
        key: last part of the key, which decides where the class may be from.
        name: what was written, with or without a module.
    """
    home = _HOMES.get(key, "lsp_lightning")
    short = name.rpartition(".")[2].lower()
    names = {n.lower(): n for n in getattr(sys.modules.get(home), "__all__", ()) if n[:1].isupper()}
    begins = [n for n in names if len(short) > 2 and n.startswith(short)]
    near = begins or difflib.get_close_matches(short, names, n=1, cutoff=0.7)
    return f"{home}.{names[near[0]]}" if near else None


def missing_methods(path: str) -> list[str]:
    """The methods that a class must define and does not; none if it is not imported."""
    module, _, name = path.rpartition(".")
    return sorted(getattr(getattr(sys.modules.get(module), name, None), "__abstractmethods__", ()))


def renaming(path: str) -> str | None:
    """What to do about a method whose name is misspelt; None if no name is near."""
    module, _, name = path.rpartition(".")
    named = vars(getattr(sys.modules.get(module), name, object))
    lacking = missing_methods(path)
    methods = [m for m, found in named.items() if callable(found) and m not in lacking]
    for missing in lacking:
        near = difflib.get_close_matches(missing, methods, n=1, cutoff=0.7)
        if near:
            return f"rename {near[0]} to {missing}"
    return None
