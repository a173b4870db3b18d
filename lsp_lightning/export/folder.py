"""The folder of an export: an adapter in peft's layout, or a model, with tokenizer and card."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError
from lsp_lightning.export.card import model_card
from lsp_lightning.models.loading import load_model
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.quantization import full_weight
from lsp_lightning.paths import resolve
from lsp_lightning.text.chat import FIXED_DATE, PLAIN_TEMPLATE

Form = Literal["adapter", "merged"]

#: What marks a folder as an export: the record of its run, and the names of its files.
MANIFEST = "lsp_export.json"
_ADAPTER = "default"


def check_target(out: Path) -> None:
    """Whether an export can be written to ``out``: nothing is there, or an export and nothing else.

    Raises:
        ConfigError: something else is there.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("out", f"{str(out)!r} is a file", "give a folder")
    if out.is_mount():
        raise ConfigError("out", f"{str(out)!r} is a disk's own folder", "give one inside it")
    found = {path.name for path in out.iterdir()}
    if found - _exported(out):
        names = ", ".join(sorted(found - _exported(out))[:3])
        raise ConfigError(
            "out", f"{str(out)!r} holds what is no export ({names})", "give another folder"
        )


def export_run(policy: Policy, base: str, form: Form, out: Path, record: Mapping[str, Any]) -> Form:
    """Write the policy, its tokenizer with the chat template, and a model card.

    A policy without adapters is a whole model in either form. The folder is written beside its
    place and renamed, so that it is never half there; an older export gives way to it.

    Args:
        policy: as trained; not to be used for playing afterwards.
        base: as the config names it.
        form: adapter in peft's layout, or merged into the base.
        out: the folder.
        record: of the run, for the card.

    Returns:
        The form that was written.

    Raises:
        ConfigError: ``out`` cannot be written, or the adapter cannot be merged.
    """
    check_target(out)
    form = form if policy.has_adapter else "merged"
    model = _whole_model(policy, base) if form == "merged" else None
    tokenizer = policy.codec.tokenizer
    if tokenizer.chat_template is None:  # what it was trained with holds elsewhere too
        tokenizer.chat_template = PLAIN_TEMPLATE
    with _put_in_place(out) as folder:
        if model is None:
            _save_adapter(policy, base, folder)
        else:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        told = {**record, "base": base, "form": form, **_computing(policy)}
        (folder / "README.md").write_text(model_card(source_name(base), told), encoding="utf-8")
        names = sorted({path.name for path in folder.iterdir()} | {MANIFEST})
        text = json.dumps({**told, "files": names}, indent=2, default=str) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        for name in names:  # safetensors lets nobody else read what it writes
            (folder / name).chmod((folder / MANIFEST).stat().st_mode)
    return form


def source_name(base: str) -> str:
    """Where others find the base: a hub id as it is, a folder as an absolute path."""
    folder = resolve(base)
    return str(folder.resolve()) if folder.is_dir() else base


def _computing(policy: Policy) -> dict[str, Any]:
    """What others need to compute as the policy does."""
    template = policy.codec.tokenizer.chat_template
    return {
        "compute_type": str(policy.dtype).removeprefix("torch."),
        "stop_ids": sorted(policy.codec.stop_ids),
        "date": str(FIXED_DATE.date()) if "strftime_now" in template else None,
    }


def _exported(out: Path) -> set[str]:
    """Names of the files that an export wrote into a folder, which only those may replace."""
    try:
        names = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()


@contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place if all goes well and vanishes if not."""
    out = out.resolve()  # beside what a link points to: that may be another disk
    folder, old = (out.with_name(f".{out.name}.{state}") for state in ("partial", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _tidy(out, folder, old)  # of an export that was killed
        folder.mkdir()
    except OSError as error:
        raise ConfigError(
            "out", f"cannot write to {str(out.parent)!r} ({error.strerror})", "give another folder"
        ) from error
    try:
        yield folder
        if out.exists():
            out.rename(old)
        folder.rename(out)
    finally:
        _tidy(out, folder, old)


def _tidy(out: Path, folder: Path, old: Path) -> None:
    """Nothing half made is left, and the older export is back if no newer one took its place."""
    if old.exists() and not out.exists():
        old.rename(out)
    for left in (folder, old):
        shutil.rmtree(left, ignore_errors=True)


def _save_adapter(policy: Policy, base: str, folder: Path) -> None:
    model: Any = policy.model
    model.peft_config[_ADAPTER].base_model_name_or_path = source_name(base)
    policy.save(folder)


def _whole_model(policy: Policy, base: str) -> Any:
    """The policy as a plain model, in its compute type, in CPU memory."""
    if policy.has_adapter:
        _check_mergeable(policy.causal_lm)
        model = load_model(base, policy.dtype)
        merge(policy.causal_lm, model)
    else:
        model = policy.causal_lm
    configured = model.generation_config.eos_token_id
    known = configured if isinstance(configured, list) else [configured]
    if set(known) != set(policy.codec.stop_ids):  # or it would talk on where the policy stops
        model.generation_config.eos_token_id = sorted(policy.codec.stop_ids)
    return model


def merge(trained: nn.Module, plain: nn.Module) -> None:
    """Write a model's weights with their adapters added, dequantised, into the same model, plain.

    A base in 4 bits goes out as the policy saw it. Quantising the sum again would move logits by a
    quarter. The sum is made in float32.

    Args:
        trained: a causal LM with peft's LoRA layers in place.
        plain: the same architecture without them, on the CPU; its weights are written over.
    """
    from peft.tuners.lora import LoraLayer

    with torch.no_grad():
        for name, layer in trained.named_modules():
            weight: Tensor
            if isinstance(layer, LoraLayer):
                weight = full_weight(layer.get_base_layer()).float()
                if _ADAPTER in layer.scaling:
                    weight = weight + layer.get_delta_weight(_ADAPTER).float()
            elif is_packed(layer) and not name.endswith(".base_layer"):
                weight = full_weight(layer)
            else:
                continue
            target: Any = plain.get_submodule(name)
            target.weight.copy_(weight)


def is_packed(layer: nn.Module) -> bool:
    """Whether a layer's weight is kept in 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def _check_mergeable(trained: Any) -> None:
    """Whether adding its matrices to the base is all that the adapter does.

    Raises:
        ConfigError: it is of another kind, or of a layer that shares its weights with another.
    """
    from peft.tuners.lora import LoraLayer

    ends = (trained.get_input_embeddings(), trained.get_output_embeddings())
    tied = getattr(trained.config.get_text_config(), "tie_word_embeddings", False)
    for name, layer in trained.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        problem = None
        if layer.lora_variant.get(_ADAPTER) or layer.lora_bias.get(_ADAPTER):
            problem = "is more than a pair of matrices"
        elif tied and any(layer is end for end in ends):
            problem = "is on a layer that shares its weights with another"
        if problem:
            raise ConfigError("form", f"merged: the adapter of {name} {problem}", "set adapter")
