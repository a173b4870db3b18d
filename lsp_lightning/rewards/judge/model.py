"""A causal LM that judges in this process, beside the policy."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsp_lightning.models.capabilities import enable_prefix_sharing
from lsp_lightning.models.loading import load_codec, load_config, load_model
from lsp_lightning.models.logits import check_head, next_token_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.precision import compute_type
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.runtime.memory import TokenBudget


class JudgeModel:
    """A frozen chat model that reads its next token, like the reference as a judge.

    Args:
        source: folder or hub id of a causal LM.
        key: its config key, for errors.
        quantization: nf4 or None.
        device: where it computes.
        tokens: most tokens in one pass; fewer after an out-of-memory error.

    Raises:
        ConfigError: the model cannot be loaded, or is not supported.
    """

    def __init__(
        self,
        source: str,
        key: str,
        quantization: Quantization | None,
        device: torch.device,
        tokens: int,
    ) -> None:
        # as for a base with an adapter: the judge is frozen
        dtype = compute_type("auto", device, True, load_config(source, key))
        self._model = load_model(source, dtype, quantization, device, key).requires_grad_(False)
        check_head(self._model)
        enable_prefix_sharing(self._model)
        self._codec, self._pad_id = load_codec(source, self._model, {}, key)
        self._model.to(device)
        self.budget = TokenBudget(key, tokens)

    @property
    def context(self) -> int | None:
        """Longest row that it can take, in tokens; None if its config does not tell."""
        return getattr(self._model.config.get_text_config(), "max_position_embeddings", None)

    def encode(
        self,
        template: str,
        slots: Mapping[str, str],
        prefix: str = "",
        max_tokens: int | None = None,
    ) -> list[int]:
        """See :meth:`lsp_lightning.text.chat.ChatCodec.encode`."""
        return self._codec.encode(template, slots, prefix, max_tokens)

    def next_token_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probs of the token after each prompt at temperature 1. -> (n, V) fp32."""
        device = next(self._model.parameters()).device
        with inference_state(self._model, device.type):
            return self.budget.run(
                lambda tokens: next_token_logprobs(self._model, prompts, self._pad_id, tokens),
                longest=max(map(len, prompts)),
            )
