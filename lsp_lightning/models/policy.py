"""The policy and its frozen reference: one base model, with LoRA or fully fine-tuned."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional.logprobs import LOGITS_AT_ONCE
from lsp_lightning.models.capabilities import enable_prefix_sharing
from lsp_lightning.models.hub import location
from lsp_lightning.models.loading import check_policy, load_codec, load_config, load_model, rows_of
from lsp_lightning.models.logits import check_head, completion_logprobs, next_token_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.precision import compute_type
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.quantization_cost import tell_cost
from lsp_lightning.models.settings import Dtype, Lora, PolicySettings, ReferenceChoice
from lsp_lightning.models.start_adapter import attach, name_base
from lsp_lightning.models.support import supported
from lsp_lightning.models.trial import check_update
from lsp_lightning.prefix.sharing import shares_prefixes
from lsp_lightning.runtime.memory import moved
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.vocabulary import undecodable_ids
from lsp_lightning.types import TrainBatch

#: Default for the most tokens of a pass without gradients.
PASS_TOKENS = 16_384

_TRAINED, _FROZEN = "default", "reference"


class Policy(nn.Module):
    """The trained model, which plays both roles, and the frozen reference for the KL penalty.

    The reference is the base with the adapter off, a frozen copy of the start adapter, or (without
    LoRA) a frozen copy of all weights.

    Args:
        base: folder or Hub id of any causal LM with safetensors weights, or a GGUF file;
            ``pkg:PACKAGE/PATH`` for a path inside a Python package.
        lora: the adapter, or None to fine-tune all weights.
        init_adapter: folder of an adapter to start from; its settings replace ``lora``.
        reference: "start" is the model at the start of training, "base" the model without any
            adapter.
        dtype: the compute type, see :func:`lsp_lightning.models.precision.compute_type`. Adapters
            are always float32.
        quantization: "nf4" keeps the base in 4 bits; needs LoRA.
        chat_template_kwargs: fixed arguments of the chat template.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        device: where the model is trained.

    Raises:
        ConfigError: a setting does not fit, or the model could not be loaded or is not supported.
    """

    def __init__(
        self,
        base: str,
        lora: Lora | None = Lora(),  # noqa: B008 - frozen
        init_adapter: str | None = None,
        reference: ReferenceChoice = "start",
        dtype: Dtype = "auto",
        quantization: Quantization | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        activation_checkpointing: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_policy(base, lora is not None, init_adapter, quantization)
        device = torch.device(device)
        self.dtype = compute_type(dtype, device, lora is not None, load_config(base))
        model = load_model(base, self.dtype, quantization, device)
        check_head(model)
        sharing = enable_prefix_sharing(model)
        if not sharing.available:
            print(
                f"prompts are computed once for each completion: {sharing.unavailable}", flush=True
            )
        self.codec: ChatCodec
        self.codec, self.pad_id = load_codec(base, model, chat_template_kwargs or {})
        if quantization:
            tell_cost(model, base, self.codec.tokenizer)
        #: Ids without a token (rows that pad the embedding), which are never sampled.
        self.undecodable_ids = undecodable_ids(self.codec, rows_of(model))
        if activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.model: nn.Module
        if lora is None and init_adapter is None:
            self.model = model
            # in a list, so that it is not in parameters() and state_dict(): never trained or saved
            self._copies = [copy.deepcopy(model).eval().requires_grad_(False)]
        else:
            with supported(model):
                self.model = with_adapter(model, lora or Lora(), init_adapter, reference)
            self._copies = []
        #: What a saved adapter names as its base.
        self.base = location(base)
        self.model.train()
        self.to(device)
        if self.has_adapter:
            check_update(self.causal_lm, device)

    @classmethod
    def from_settings(cls, settings: PolicySettings, device: torch.device | str = "cpu") -> Self:
        """The policy with these settings, loaded on ``device``."""
        return cls(**vars(settings), device=device)

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model with its adapters, which engines sample from."""
        return causal_lm(self.model)

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained instead of all weights."""
        return not self._copies

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt is computed once for all of its completions."""
        return shares_prefixes(self.causal_lm)

    @property
    def device(self) -> torch.device:
        """Where the policy computes; frozen weights may be elsewhere, see :meth:`parked`."""
        weights = list(self.model.parameters())
        return next((p for p in weights if p.requires_grad), weights[0]).device

    def completion_logprobs(
        self, batch: TrainBatch, logits_at_once: int = LOGITS_AT_ONCE
    ) -> tuple[Tensor, Tensor]:
        """Log-probs of the completion tokens, differentiable, and entropies, detached. (K, T) each.

        Both at the completion's sampling temperature, in fp32; 0 on padding.
        """
        return completion_logprobs(self.causal_lm, batch, logits_at_once)

    def reference_logprobs(self, batch: TrainBatch, logits_at_once: int = LOGITS_AT_ONCE) -> Tensor:
        """The reference's log-probs of the completion tokens, detached. (K, T) fp32."""
        with self.reference() as model:
            return completion_logprobs(model, batch, logits_at_once, entropies=False)[0]

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The reference model in eval mode, without gradients.

        Do not enter it between a forward pass of the policy and its backward pass: switching
        adapters silently drops the gradient.
        """
        if self._copies:
            self._copies[0].to(self.device)
            with inference_state(self._copies[0], self.device.type):
                yield self._copies[0]
            return
        model: Any = self.model
        with inference_state(model, self.device.type):
            if _FROZEN in model.peft_config:
                model.set_adapter(_FROZEN, inference_mode=True)
                try:
                    yield self.causal_lm
                finally:
                    model.set_adapter(_TRAINED)
            else:
                with model.disable_adapter():
                    yield self.causal_lm

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Move the frozen weights to CPU memory for a while, so that another model has the GPU."""
        with ExitStack() as stack:
            for model in (self.model, *self._copies):
                stack.enter_context(moved(model, torch.device("cpu")))
            yield

    def next_token_logprobs(
        self, prompts: Sequence[Sequence[int]], max_tokens: int = PASS_TOKENS
    ) -> Tensor:
        """The reference's log-probs of the token after each prompt, temperature 1. -> (n, V) fp32.

        A forward pass takes at most ``max_tokens``, or a single longer prompt.
        """
        with self.reference() as model:
            return next_token_logprobs(model, prompts, self.pad_id, max_tokens)

    def trained_state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, by name: all adapters (also frozen ones), or all weights."""
        state = self.state_dict()
        if self._copies:
            return state
        marks = tuple(f".{name}." for name in (_TRAINED, _FROZEN))
        # an adapter of embeddings is a parameter itself: its name ends with the adapter's name
        return {k: v for k, v in state.items() if "lora_" in k and any(m in f"{k}." for m in marks)}

    def save(self, folder: Path) -> None:
        """Write the trained adapter in peft's layout, or the whole model; and the tokenizer."""
        if self.has_adapter:
            self.save_adapter(folder)
        else:
            self.causal_lm.save_pretrained(folder)
        self.codec.tokenizer.save_pretrained(folder)

    def save_adapter(self, folder: Path) -> None:
        """Write the trained adapter in peft's layout, without the tokenizer."""
        model: Any = self.model
        model.save_pretrained(folder, selected_adapters=[_TRAINED])
        name_base(folder, self.base)


def with_adapter(
    model: Any, lora: Lora, init_adapter: str | None, reference: ReferenceChoice
) -> nn.Module:
    """The model with a new adapter, or the start adapter and a copy of it for the reference."""
    from peft import LoraConfig, get_peft_model

    if init_adapter is None:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            exclude_modules=_not_adapted(model) or None,
            task_type="CAUSAL_LM",
        )
        try:
            wrapped: nn.Module = get_peft_model(model, config)
        except ValueError as error:
            why = str(error).splitlines()[0]
            raise ConfigError(
                "model.lora", f"does not fit this model ({why})", "change target_modules"
            ) from error
        return wrapped
    started = attach(model, init_adapter)
    if reference == "start":
        attach(started, init_adapter, _FROZEN)
        started.set_adapter(_TRAINED)
    peft_model: nn.Module = started
    return peft_model


def _not_adapted(model: Any) -> list[str]:
    """Linear layers without an adapter.

    No text passes through a vision tower, so it gets no gradient. Some families have layers that
    count as linear but return something else (Phi-MoE's router), or whose adapter would be left out
    in training (Gemma 3n's correction_coefs).
    """
    text = {id(module) for module in model.get_decoder().modules()}
    text.add(id(model.get_output_embeddings()))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (
            id(module) not in text
            or "router" in type(module).__name__.lower()
            or name.endswith(".correction_coefs")
        )
    ]


def causal_lm(model: Any) -> Any:
    """The causal LM inside a peft model; a model without adapters is returned unchanged."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
