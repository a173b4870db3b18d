"""The shared policy and its frozen reference: one base model, with LoRA or fine-tuned whole."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsp_lightning.chat import ChatCodec
from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.functional.logprobs import token_logprobs
from lsp_lightning.inference import by_token_budget, inference_state, pad_right
from lsp_lightning.paths import resolve
from lsp_lightning.pretrained import check_policy, load_codec, load_model
from lsp_lightning.types import TrainBatch

ReferenceChoice = Literal["start", "base"]
Dtype = Literal["auto", "float32", "bfloat16"]

_TRAINED, _FROZEN = "default", "reference"
_JUDGE_TOKENS = 16_384


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters over every linear layer (peft).

    Args:
        rank: inner dimension of each adapter.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: on the adapter's input while training; 0 keeps policy and rollouts the same
            function.
        target_modules: names of the layers that get one; "all-linear" is every one but the head.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        require_at_least(self.rank, 1, "model.lora.rank", "an adapter has a dimension")
        require_at_least(self.alpha, 1, "model.lora.alpha", "the adapter would be scaled away")
        if not 0 <= self.dropout < 1:
            raise ConfigError("model.lora.dropout", f"is {self.dropout}", "set 0 to below 1")


class Policy(nn.Module):
    """One set of weights that plays both roles, and the reference it is held near.

    The reference is the model as it was when this training began: the base with its adapter off,
    the start adapter kept frozen beside the trained one, or (without LoRA) a frozen copy.

    Args:
        base: folder or hub id of any causal LM with safetensors weights; ``pkg:`` for a package's.
        lora: the adapter, or None to fine-tune all weights.
        init_adapter: folder of an adapter to start from; it brings its own rank and alpha.
        reference: "start" is where this training began, "base" is the model without any adapter.
        dtype: compute type; "auto" is bfloat16 where the GPU has it, float32 elsewhere and for
            fine-tuning without LoRA. Adapters are float32 always.
        chat_template_kwargs: fixed arguments of the chat template.
        activation_checkpointing: compute activations again in the backward pass to save memory.
        device: where the model will be trained.
    """

    def __init__(
        self,
        base: str,
        lora: Lora | None = Lora(),
        init_adapter: str | None = None,
        reference: ReferenceChoice = "start",
        dtype: Dtype = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        activation_checkpointing: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_policy(base, lora is not None, init_adapter)
        model = load_model(base, _compute_type(dtype, torch.device(device), lora))
        check_head(model)
        self.codec: ChatCodec
        self.codec, self.pad_id = load_codec(base, model, chat_template_kwargs or {})
        if activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.model: nn.Module
        if lora is None and init_adapter is None:
            self.model = model
            # a list keeps the copy out of parameters() and state_dict(): it is loaded, never saved
            self._copies = [copy.deepcopy(model).eval().requires_grad_(False)]
        else:
            self.model = _with_adapter(model, lora or Lora(), init_adapter, reference)
            self._copies = []
        self.model.train()
        self.to(device)

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model with its adapters in place: what engines sample from."""
        return _causal_lm(self.model)

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained, and not all weights."""
        return not self._copies

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def completion_logprobs(
        self, batch: TrainBatch, chunk_size: int = 1024
    ) -> tuple[Tensor, Tensor]:
        """Log-probs of the completions' tokens, differentiable; entropies, detached. (C, T) each.

        Both at each completion's sampling temperature, in fp32; 0 on padding.
        """
        return _completion_logprobs(self.causal_lm, batch, chunk_size)

    def reference_logprobs(self, batch: TrainBatch, chunk_size: int = 1024) -> Tensor:
        """The reference's log-probs of the completions' tokens. (C, T), detached."""
        with self.reference() as model:
            return _completion_logprobs(model, batch, chunk_size)[0]

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

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """The reference's log-probs of the token after each prompt, temperature 1. -> (n, V)."""
        results: dict[int, Tensor] = {}
        with self.reference() as model:
            for rows in by_token_budget([len(p) for p in prompts], _JUDGE_TOKENS):
                ids, mask = pad_right([prompts[i] for i in rows], self.pad_id)
                ids, ends = ids.to(self.device), mask.sum(1).to(self.device) - 1
                positions = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
                hidden = _hidden_states(model, ids, positions)
                last = hidden[torch.arange(len(rows), device=self.device), ends]
                logprobs = _head(model, last).float().log_softmax(dim=-1)
                results.update(zip(rows, logprobs, strict=True))
        return torch.stack([results[i] for i in range(len(prompts))])

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by name: every adapter (the frozen one too), or all
        weights."""
        state = self.state_dict()
        if self._copies:
            return state
        marks = tuple(f".{name}." for name in (_TRAINED, _FROZEN))
        return {k: v for k, v in state.items() if "lora_" in k and any(m in k for m in marks)}

    def save(self, folder: Path) -> None:
        """The trained adapter in peft's layout, or the whole model, with its tokenizer."""
        model: Any = self.model
        if self._copies:
            model.save_pretrained(folder)
        else:
            model.save_pretrained(folder, selected_adapters=[_TRAINED])
        self.codec.tokenizer.save_pretrained(folder)


def _with_adapter(
    model: Any, lora: Lora, init_adapter: str | None, reference: ReferenceChoice
) -> nn.Module:
    from peft import LoraConfig, PeftModel, get_peft_model

    if init_adapter is None:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        )
        wrapped: nn.Module = get_peft_model(model, config)
        return wrapped
    folder = str(resolve(init_adapter))
    started: Any = PeftModel.from_pretrained(model, folder, is_trainable=True)
    if reference == "start":
        started.load_adapter(folder, adapter_name=_FROZEN, is_trainable=False)
        started.set_adapter(_TRAINED)
    peft_model: nn.Module = started
    return peft_model


def _compute_type(dtype: Dtype, device: torch.device, lora: Lora | None) -> torch.dtype:
    if dtype == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(False)
        return torch.bfloat16 if has_bf16 and lora is not None else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _hidden_states(model: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Final hidden states (B, S, H) of rows padded on the right, under plain causal attention."""
    out = model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden


def _head(model: Any, hidden: Tensor) -> Tensor:
    """Logits as the architecture makes them from hidden states (m, H) -> (m, V)."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _completion_logprobs(model: Any, batch: TrainBatch, chunk_size: int) -> tuple[Tensor, Tensor]:
    if int(batch.segments.max()) > 1:
        raise ValueError("rows with several completions need a segmented attention mask")
    hidden = _hidden_states(model, batch.input_ids, batch.position_ids).flatten(0, 1)
    places = batch.mask.nonzero(as_tuple=True)
    logprobs, entropies = token_logprobs(
        hidden[batch.sources[places]],
        lambda h: _head(model, h),
        batch.targets[places],
        batch.temperature[places[0]],
        chunk_size,
    )
    empty = torch.zeros(batch.mask.shape, dtype=torch.float32, device=hidden.device)
    return empty.index_put(places, logprobs), empty.index_put(places, entropies)


def check_head(model: Any) -> None:
    """Whether logits made from hidden states are the model's own.

    Raises:
        ConfigError: this architecture makes its logits in a way that is not known here.
    """
    ids = torch.arange(4, device=next(model.parameters()).device).unsqueeze(0)
    with inference_state(model, ids.device.type):
        own = model(input_ids=ids).logits[0].float()
        ours = _head(model, _hidden_states(model, ids, ids)[0]).float()
    if not torch.allclose(own, ours, atol=1e-2, rtol=1e-2):
        raise ConfigError(
            "model.base",
            f"{type(model).__name__} makes its logits in a way that is not supported",
            "choose another architecture",
        )
