"""Rewards from a preference model: any sequence classifier with one label."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.inference import by_token_budget, inference_state, pad_right
from lsp_lightning.pretrained import check_base, load_classifier, load_tokenizer
from lsp_lightning.rewards.base import AnswerEnters, Judgement, Reward, require_answers
from lsp_lightning.rewards.pairs import ChatPairs, Pair, PairEncoder, SegmentPairs
from lsp_lightning.types import Playout, Reference

PairForm = Literal["auto", "chat", "segments"]
_KEY = "model.rewards.PreferenceReward"


class PreferenceReward(Reward):
    """R from a reward model that was trained on human or model preferences.

    Its raw logit is the score: it has no fixed range, so objectives that need one are refused. An
    answer is judged without the thinking before it.

    Args:
        model: folder or hub id of a sequence classifier with one label: one with a chat template,
            such as Skywork/Skywork-Reward-V2-Llama-3.2-3B, or an encoder of question and answer,
            such as OpenAssistant/reward-model-deberta-v3-large-v2.
        weight: factor in the sum of its kind.
        name: what it is called in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        standardize: see :class:`lsp_lightning.rewards.base.Reward`.
        form: "chat" shows it the chat template, "segments" query and answer as two segments;
            "auto" is chat where its tokenizer has a template.
        max_tokens: longer pairs lose the middle of the query, and are counted.
        batch_tokens: tokens judged together at most, padding included.
        chat_template_kwargs: fixed arguments of its chat template (a pinned date_string for Llama).
    """

    def __init__(
        self,
        model: str,
        weight: float = 1.0,
        name: str = "preference",
        enters: AnswerEnters = "task",
        standardize: bool = False,
        form: PairForm = "auto",
        max_tokens: int = 2048,
        batch_tokens: int = 8192,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name), standardize)
        check_base(model, f"{_KEY}.model")
        require_at_least(max_tokens, 16, f"{_KEY}.max_tokens", "a pair and its frame need room")
        require_at_least(batch_tokens, 1, f"{_KEY}.batch_tokens", "nothing would be judged")
        self._source = model
        self._form = form
        self._max_tokens = max_tokens
        self._batch_tokens = batch_tokens
        self._template_kwargs = chat_template_kwargs or {}
        self._model: Any = None
        self._pad_id: int | None = None
        self._pairs: PairEncoder

    def connect(self, reference: Reference) -> None:
        """Load the reward model beside the policy, on its device."""
        if self._model is None:
            key = f"{_KEY}.model"
            self._model = load_classifier(self._source, key)
            tokenizer = load_tokenizer(self._source, key)
            self._takes_types = "token_type_ids" in tokenizer.model_input_names
            longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
            if longest:  # two places are kept free: some models count positions from the padding id
                self._max_tokens = min(self._max_tokens, longest - 2)
            if self._form == "chat" or (self._form == "auto" and tokenizer.chat_template):
                self._pairs = ChatPairs(tokenizer, self._template_kwargs)
            else:
                self._pairs = SegmentPairs(tokenizer)
                self._pad_id = getattr(self._model.config.get_text_config(), "pad_token_id", None)
            self._require_room()
        self._model.to(reference.device)

    def _require_room(self) -> None:
        frame = len(self._pairs.encode("", "", 2**31).ids)
        if self._max_tokens < frame + 2:
            raise ConfigError(
                f"{_KEY}.max_tokens",
                f"leaves {self._max_tokens}, but an empty pair takes {frame}",
                "set more, or use a model with a longer context",
            )

    def score(self, playout: Playout) -> Tensor:
        """The model's logits, (N, G)."""
        return self.judge(playout).scores

    def judge(self, playout: Playout) -> Judgement:
        """The model's logits, and the share of pairs that had to be cut."""
        if self._model is None:
            raise RuntimeError("call connect(reference) first: the reward model is loaded there")
        pairs = [
            self._pairs.encode(query, answer, self._max_tokens)
            for query, answers in zip(playout.query_texts, playout.spoken_groups(), strict=True)
            for answer in answers
        ]
        scores = torch.empty(len(pairs))
        for rows in by_token_budget([len(pair.ids) for pair in pairs], self._batch_tokens):
            scores[rows] = self._logits([pairs[i] for i in rows])
        return Judgement(
            scores.view(len(playout.query_texts), playout.group_size),
            metrics={"cut": torch.tensor([float(pair.cut) for pair in pairs])},
        )

    def _logits(self, pairs: Sequence[Pair]) -> Tensor:
        """(n,) logits of one batch, on the CPU."""
        device, pad_id = self._model.device, self._padding(pairs)
        ids, mask = pad_right([pair.ids for pair in pairs], pad_id)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if self._takes_types:
            inputs["token_type_ids"] = pad_right([pair.types for pair in pairs], 0)[0]
        with inference_state(self._model, device.type):
            logits = self._model(**{k: v.to(device) for k, v in inputs.items()}).logits
        return logits[:, 0].float().cpu()  # type: ignore[no-any-return]

    def _padding(self, pairs: Sequence[Pair]) -> int:
        """What fills up shorter rows.

        A decoder's head reads the last token that is not padding, so no conversation may end with
        that token: one is chosen that none ends with.
        """
        if self._pad_id is not None:
            return self._pad_id
        lasts = {pair.ids[-1] for pair in pairs}
        pad_id = next(i for i in itertools.count() if i not in lasts)
        self._model.config.get_text_config().pad_token_id = pad_id
        return pad_id
