"""Rewards from a preference model: a sequence classifier with one label and a chat template."""

import itertools
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.chat import ChatCodec
from lsp_lightning.inference import by_token_budget, inference_state, pad_right
from lsp_lightning.pretrained import check_base, load_classifier, load_codec
from lsp_lightning.rewards.base import AnswerEnters, Reward, require_answers
from lsp_lightning.types import Playout, Reference

_KEY = "model.rewards.PreferenceReward.model"


class PreferenceReward(Reward):
    """R from a reward model that was trained on human or model preferences.

    Its raw logit is the score: it has no fixed range, so objectives that need one are refused.

    Args:
        model: folder or hub id of a sequence classifier with one label and a chat template, such as
            Skywork/Skywork-Reward-V2-Llama-3.2-3B.
        weight: factor in the sum of its kind.
        name: what it is called in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        max_tokens: longer conversations are cut at their beginning.
        batch_tokens: tokens judged together at most, padding included.
        chat_template_kwargs: fixed arguments of its chat template (a pinned date_string for Llama).
    """

    def __init__(
        self,
        model: str,
        weight: float = 1.0,
        name: str = "preference",
        enters: AnswerEnters = "task",
        max_tokens: int = 2048,
        batch_tokens: int = 8192,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name))
        check_base(model, _KEY)
        self._source = model
        self._max_tokens = max_tokens
        self._batch_tokens = batch_tokens
        self._template_kwargs = chat_template_kwargs or {}
        self._model: Any = None
        self._codec: ChatCodec

    def connect(self, reference: Reference) -> None:
        """Load the reward model beside the policy, on its device."""
        if self._model is None:
            self._model = load_classifier(self._source, _KEY)
            self._codec, _ = load_codec(self._source, self._model, self._template_kwargs, _KEY)
        self._model.to(reference.device)

    def score(self, playout: Playout) -> Tensor:
        """The reward model's logits, (N, G)."""
        if self._model is None:
            raise RuntimeError("call connect(policy) first: the reward model is loaded there")
        pairs = [
            self._codec.encode_dialogue(query, answer)[-self._max_tokens :]
            for query, answers in zip(playout.query_texts, playout.answer_groups(), strict=True)
            for answer in answers
        ]
        # the head reads the last token that is not padding: no conversation may end with that token
        lasts = {ids[-1] for ids in pairs}
        pad_id = next(i for i in itertools.count() if i not in lasts)
        self._model.config.get_text_config().pad_token_id = pad_id
        scores = torch.empty(len(pairs))
        for rows in by_token_budget([len(ids) for ids in pairs], self._batch_tokens):
            ids, mask = pad_right([pairs[i] for i in rows], pad_id)
            with inference_state(self._model, self._model.device.type):
                logits = self._model(
                    input_ids=ids.to(self._model.device), attention_mask=mask.to(self._model.device)
                ).logits
            scores[rows] = logits[:, 0].float().cpu()
        return scores.view(len(playout.query_texts), playout.group_size)
