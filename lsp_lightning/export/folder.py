"""The folder of an export: adapter or model, tokenizer and model card."""

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
from lsp_lightning.models.hub import gguf_sha256
from lsp_lightning.models.loading import load_model
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.quantization import full_weight
from lsp_lightning.runs.writing import writing
from lsp_lightning.text.chat import FIXED_DATE, PLAIN_TEMPLATE
from lsp_lightning.training.divergence import is_finite

Form = Literal["adapter", "merged"]

#: The file that marks a folder as an export: the record of the run, and the names of all files.
MANIFEST = "lsp_export.json"
_ADAPTER = "default"


def check_target(out: Path) -> None:
    """Raise ConfigError unless ``out`` is missing, empty, or holds only an older export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError("out", f"{str(out)!r} is a file", "give a folder")
    if out.is_mount():
        raise ConfigError("out", f"{str(out)!r} is a mount point", "give a folder inside it")
    found = {path.name for path in out.iterdir()}
    if found - _exported(out):
        names = ", ".join(sorted(found - _exported(out))[:3])
        raise ConfigError(
            "out", f"{str(out)!r} contains other files ({names})", "give another folder"
        )


def export_run(policy: Policy, base: str, form: Form, out: Path, record: Mapping[str, Any]) -> Form:
    """Write the policy, its tokenizer with the chat template, and a model card.

    A policy without an adapter is exported as a whole model in either form. The folder is written
    under a temporary name and then renamed, so it is never half written. It replaces an older
    export.

    Args:
        policy: the trained policy; it must not be used afterwards.
        base: the base model, as in the config.
        form: the adapter in peft's layout, or the base with the adapter merged into it.
        out: the folder.
        record: the run's record, for the card.

    Returns:
        The form that was written.

    Raises:
        ConfigError: ``out`` cannot be written, a trained weight is not finite, or the adapter
            cannot be merged.
        WriteError: it could not be written (a full disk). An older export is kept.
    """
    check_target(out)
    if not is_finite(policy):
        raise ConfigError(
            "policy", "a trained weight is not finite", "export a checkpoint of an earlier round"
        )
    form = form if policy.has_adapter else "merged"
    model = _whole_model(policy, base) if form == "merged" else None
    tokenizer = policy.codec.tokenizer
    if tokenizer.chat_template is None:  # export the template it was trained with
        tokenizer.chat_template = PLAIN_TEMPLATE
    with writing(out), _put_in_place(out) as folder:
        if model is None:
            policy.save(folder)
        else:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        facts = {**record, "base": base, "form": form, **_computing(policy, base)}
        (folder / "README.md").write_text(model_card(policy.base, facts), encoding="utf-8")
        names = sorted({path.name for path in folder.iterdir()} | {MANIFEST})
        text = json.dumps({**facts, "files": names}, indent=2, default=str) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        for name in names:  # safetensors writes files that only their owner can read
            (folder / name).chmod((folder / MANIFEST).stat().st_mode)
    return form


def _computing(policy: Policy, base: str) -> dict[str, Any]:
    """What another program needs to compute what the policy computes."""
    template = policy.codec.tokenizer.chat_template
    return {
        "gguf_sha256": gguf_sha256(base),
        "compute_type": str(policy.dtype).removeprefix("torch."),
        "stop_ids": sorted(policy.codec.stop_ids),
        "date": str(FIXED_DATE.date()) if "strftime_now" in template else None,
    }


def _exported(out: Path) -> set[str]:
    """Names of the files that an older export wrote to a folder; empty if there is none."""
    try:
        names = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()


@contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """A new folder beside ``out``, which replaces it on success and is deleted on failure."""
    out = out.resolve()  # beside the target of a link, which may be on another disk
    folder, old = (out.with_name(f".{out.name}.{state}") for state in ("partial", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _tidy(out, folder, old)  # in case an earlier export was killed
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
    """Delete the temporary folders, after restoring the older export if it was not replaced."""
    if old.exists() and not out.exists():
        old.rename(out)
    for left in (folder, old):
        shutil.rmtree(left, ignore_errors=True)


def _whole_model(policy: Policy, base: str) -> Any:
    """The policy as a plain model, in its compute type, in CPU memory."""
    if policy.has_adapter:
        model = load_model(base, policy.dtype)
        if _adapts_tied_weights(policy.causal_lm):
            untie(model)
        merge(policy.causal_lm, model)
    else:
        model = policy.causal_lm
    configured = model.generation_config.eos_token_id
    known = configured if isinstance(configured, list) else [configured]
    if set(known) != set(policy.codec.stop_ids):  # so that it stops where the policy stops
        model.generation_config.eos_token_id = sorted(policy.codec.stop_ids)
    return model


def merge(trained: nn.Module, plain: nn.Module) -> None:
    """Merge a model's adapters into a plain model of the same architecture.

    A 4-bit base is dequantised, as the policy saw it: quantising the sum again would change the
    logits by a quarter. The sum is computed in float32.

    Args:
        trained: a causal LM with peft's LoRA layers.
        plain: the same architecture without them, on the CPU; its weights are overwritten.
    """
    from peft.tuners.lora import LoraLayer, ParamWrapper

    with torch.no_grad():
        for name, layer in trained.named_modules():
            weight: Tensor
            if isinstance(layer, ParamWrapper):  # fused experts: wrappers of tensors, nested
                experts: Any = plain.get_submodule(name.replace(".base_layer", ""))
                getattr(experts, layer.parameter_name).copy_(_merged(layer))
                continue
            if isinstance(layer, LoraLayer):
                weight = _merged(layer)
            elif is_packed(layer) and not name.endswith(".base_layer"):
                weight = full_weight(layer)
            else:
                continue
            target: Any = plain.get_submodule(name)
            target.weight.copy_(weight)
            if not target.weight.isfinite().all():
                problem = f"is merged, but {name} with its adapter exceeds {target.weight.dtype}"
                raise ConfigError("form", problem, "use form: adapter")


def is_packed(layer: nn.Module) -> bool:
    """Whether a layer's weight is stored in 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def _merged(layer: Any) -> Tensor:
    """The weight of an adapted layer or tensor with the adapter merged into it, in float32."""
    tensor = getattr(layer, "get_param", None)
    weight = (full_weight(layer.get_base_layer()) if tensor is None else tensor().data).float()
    if _ADAPTER not in layer.scaling:
        return weight
    variant = layer.lora_variant.get(_ADAPTER)
    if variant is not None:  # DoRA: start adapters of other variants are refused
        merged: Tensor = variant.merge_safe(layer, _ADAPTER, weight)
        return merged.float()
    delta: Tensor = layer.get_delta_weight(_ADAPTER)
    return weight + delta.float()


def _adapts_tied_weights(trained: Any) -> bool:
    """Whether embedding and head share their weights, and one of them has an adapter."""
    from peft.tuners.lora import LoraLayer

    ends = (trained.get_input_embeddings(), trained.get_output_embeddings())
    tied = getattr(trained.config.get_text_config(), "tie_word_embeddings", False)
    return bool(tied) and any(isinstance(end, LoraLayer) for end in ends)


def untie(model: Any) -> None:
    """Give the head of a causal LM a copy of the embedding's weights, instead of sharing them."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
