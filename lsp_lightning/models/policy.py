"""The shared policy and its frozen reference: one base model, with LoRA or fine-tuned whole."""

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
from lsp_lightning.models.loading import check_policy, load_codec, load_config, load_model
from lsp_lightning.models.logits import check_head, completion_logprobs, next_token_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.settings import Dtype, Lora, PolicySettings, ReferenceChoice
from lsp_lightning.paths import resolve
from lsp_lightning.prefix.hooks import takes_trees
from lsp_lightning.runtime.memory import moved
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import TrainBatch

#: What goes through a pass without gradients at once, if nothing else is said.
PASS_TOKENS = 16_384

_TRAINED, _FROZEN = "default", "reference"


class Policy(nn.Module):
    """One set of weights that plays both roles, and the reference it is held near.

    The reference is the model as it was when this training began: the base with its adapter off,
    the start adapter kept frozen beside the trained one, or (without LoRA) a frozen copy.

    Args:
        base: folder or hub id of any causal LM with safetensors weights; ``pkg:`` for a package's.
        lora: the adapter, or None to fine-tune all weights.
        init_adapter: folder of an adapter to start from; it brings its own rank and alpha.
        reference: "start" is where this training began, "base" is the model without any adapter.
        dtype: compute type, see :func:`compute_type`. Adapters are float32 always.
        quantization: "nf4" keeps the base in 4 bits; needs LoRA.
        chat_template_kwargs: fixed arguments of the chat template.
        activation_checkpointing: compute activations again in the backward pass to save memory.
        device: where the model will be trained.
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
        device, family = torch.device(device), load_config(base).model_type
        self.dtype = compute_type(dtype, device, lora is not None, family)
        model = load_model(base, self.dtype, quantization, device)
        check_head(model)
        enable_prefix_sharing(model)
        self.codec: ChatCodec
        self.codec, self.pad_id = load_codec(base, model, chat_template_kwargs or {})
        if activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.model: nn.Module
        if lora is None and init_adapter is None:
            self.model = model
            # in a list it is outside of parameters() and state_dict(): it is loaded, never saved
            self._copies = [copy.deepcopy(model).eval().requires_grad_(False)]
        else:
            self.model = with_adapter(model, lora or Lora(), init_adapter, reference)
            self._copies = []
        self.model.train()
        self.to(device)

    @classmethod
    def from_settings(cls, settings: PolicySettings, device: torch.device | str = "cpu") -> Self:
        """The policy with these settings, loaded on ``device``."""
        return cls(**vars(settings), device=device)

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model with its adapters: what engines sample from."""
        return causal_lm(self.model)

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained, and not all weights."""
        return not self._copies

    @property
    def shares_prompts(self) -> bool:
        """Whether prompts are computed once for all behind them."""
        return takes_trees(self.causal_lm)

    @property
    def device(self) -> torch.device:
        """Where it computes; frozen weights may wait elsewhere, see :meth:`parked`."""
        weights = list(self.model.parameters())
        return next((p for p in weights if p.requires_grad), weights[0]).device

    def completion_logprobs(
        self, batch: TrainBatch, logits_at_once: int = LOGITS_AT_ONCE
    ) -> tuple[Tensor, Tensor]:
        """Log-probs of the completions' tokens, differentiable; entropies, detached. (K, T) each.

        Both at each one's sampling temperature, in fp32; 0 on padding.
        """
        return completion_logprobs(self.causal_lm, batch, logits_at_once)

    def reference_logprobs(self, batch: TrainBatch, logits_at_once: int = LOGITS_AT_ONCE) -> Tensor:
        """The reference's log-probs of the completions' tokens. (K, T), detached."""
        with self.reference() as model:
            return completion_logprobs(model, batch, logits_at_once, entropies=False)[0]

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The reference model, without gradients and in eval mode.

        Not to be entered between a forward pass of the policy and its backward pass: switching
        adapters drops the gradient without a word.
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
        """The frozen weights wait in CPU memory: for the time that another model has the GPU."""
        with ExitStack() as stack:
            for model in (self.model, *self._copies):
                stack.enter_context(moved(model, torch.device("cpu")))
            yield

    def next_token_logprobs(
        self, prompts: Sequence[Sequence[int]], max_tokens: int = PASS_TOKENS
    ) -> Tensor:
        """The reference's log-probs of the token after each prompt, temperature 1. -> (n, V) fp32.

        At most ``max_tokens`` go through the model at once.
        """
        with self.reference() as model:
            return next_token_logprobs(model, prompts, self.pad_id, max_tokens)

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by name: every adapter, frozen too, or all weights."""
        state = self.state_dict()
        if self._copies:
            return state
        marks = tuple(f".{name}." for name in (_TRAINED, _FROZEN))
        # adapters of embeddings are parameters themselves: their names end with the adapter's
        return {k: v for k, v in state.items() if "lora_" in k and any(m in f"{k}." for m in marks)}

    def save(self, folder: Path) -> None:
        """The trained adapter in peft's layout, or the whole model, with its tokenizer."""
        model: Any = self.model
        if self._copies:
            model.save_pretrained(folder)
        else:
            model.save_pretrained(folder, selected_adapters=[_TRAINED])
        self.codec.tokenizer.save_pretrained(folder)


def with_adapter(
    model: Any, lora: Lora, init_adapter: str | None, reference: ReferenceChoice
) -> nn.Module:
    """The model with a new adapter, or with the start adapter and its frozen twin beside it."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if init_adapter is None:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            exclude_modules=_beside_the_text(model) or None,
            task_type="CAUSAL_LM",
        )
        try:
            wrapped: nn.Module = get_peft_model(model, config)
        except ValueError as error:
            why = str(error).splitlines()[0]
            raise ConfigError(
                "model.lora", f"fits not to this model ({why})", "change it"
            ) from error
        return wrapped
    folder = str(resolve(init_adapter))
    started: Any = PeftModel.from_pretrained(model, folder, is_trainable=True)
    if reference == "start":
        started.load_adapter(folder, adapter_name=_FROZEN, is_trainable=False)
        started.set_adapter(_TRAINED)
    peft_model: nn.Module = started
    return peft_model


def _beside_the_text(model: Any) -> list[str]:
    """Linear layers that no text passes through (towers for pictures): no gradient gets there."""
    text = {id(module) for module in model.get_decoder().modules()}
    text.add(id(model.get_output_embeddings()))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in text
    ]


def compute_type(dtype: Dtype, device: torch.device, with_lora: bool, family: str) -> torch.dtype:
    """The type that the model computes in.

    "auto" is bfloat16 on GPUs that have it and float16 on older ones (T4, 20xx), where the loss is
    scaled; float32 on a CPU, without LoRA (small updates are lost in 16 bits), and for models whose
    activations overflow float16.

    Args:
        dtype: what was asked for.
        device: where the model computes.
        with_lora: whether adapters are trained, and not all weights.
        family: ``model_type`` of the model's config.

    Raises:
        ConfigError: what was asked for cannot be trained.
    """
    if not with_lora and dtype not in ("auto", "float32"):
        raise ConfigError(
            "model.dtype",
            f"is {dtype}, in which small updates of whole weights are lost",
            "leave it at auto, or set model.lora",
        )
    overflows = "gemma" in family
    if overflows and dtype == "float16":
        raise ConfigError(
            "model.dtype", f"is float16, which a {family} overflows", "set bfloat16 or float32"
        )
    if dtype != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[dtype]
    if device.type != "cuda" or not with_lora:
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if overflows else torch.float16


def causal_lm(model: Any) -> Any:
    """The model under an adapter of peft, or the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
