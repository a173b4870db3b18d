"""Rewards from a preference model: any sequence classifier with one label."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least, require_one_of
from lsp_lightning.models.loading import check_base, load_classifier, load_tokenizer
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.rewards.base import AnswerEnters, Judgement, Reward, require_answers
from lsp_lightning.rewards.pairs import ChatPairs, Pair, PairEncoder, SegmentPairs
from lsp_lightning.runtime.memory import TokenBudget, is_out_of_memory, move_frozen, moved
from lsp_lightning.text.padding import by_token_budget, pad_right
from lsp_lightning.types import Playout, Reference

PairForm = Literal["auto", "chat", "segments"]
Placement = Literal["resident", "offload", "exclusive"]
_KEY = "model.rewards.PreferenceReward"
_CPU = torch.device("cpu")


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
        batch_tokens: tokens judged together at most, padding included; halved where memory runs
            out.
        chat_template_kwargs: fixed arguments of its chat template (a pinned date_string for Llama).
        quantization: nf4 keeps its linear layers in 4 bits; null in the type they were saved in.
        placement: where its weights are between two judgings: "resident" on the policy's GPU,
            "offload" in CPU memory, so that the policy has the GPU for playing and learning;
            "exclusive" is offload, and while it judges the policy's frozen weights wait in CPU
            memory too, so that the GPU need not hold both. On a CPU all three are the same.
    """

    comparable = True

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
        quantization: Quantization | None = None,
        placement: Placement = "resident",
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name), standardize)
        check_base(model, f"{_KEY}.model")
        require_at_least(max_tokens, 16, f"{_KEY}.max_tokens", "a pair and its frame need room")
        require_at_least(batch_tokens, 1, f"{_KEY}.batch_tokens", "nothing would be judged")
        require_one_of(placement, get_args(Placement), f"{_KEY}.placement")
        self.source = model
        self.quantization = quantization
        self.placement = placement
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self._budget = TokenBudget(f"{_KEY}.batch_tokens", batch_tokens)
        self._form = form
        self._template_kwargs = chat_template_kwargs or {}
        self._model: Any = None
        self._reference: Reference
        self._pad_id: int | None = None
        self._pairs: PairEncoder

    def connect(self, reference: Reference) -> None:
        """Load the reward model beside the policy, for its device.

        Raises:
            ConfigError: it cannot be had, or does not fit into memory beside the policy.
        """
        self._reference = reference
        try:
            with self._room():
                self._load(reference.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"{_KEY}.model",
                f"{self.source!r} does not fit into memory beside the policy",
                "set its placement to exclusive, its quantization to nf4, or take a smaller one",
            ) from error

    def _load(self, device: torch.device) -> None:
        if self._model is None:
            key = f"{_KEY}.model"
            model = load_classifier(self.source, key, self.quantization, device)
            self._model = model.requires_grad_(False)
            tokenizer = load_tokenizer(self.source, key)
            self._takes_types = "token_type_ids" in tokenizer.model_input_names
            longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if longest:  # two places are kept free: some models count positions from the padding id
                self.max_tokens = min(self.max_tokens, longest - 2)
            if self._form == "chat" or (self._form == "auto" and tokenizer.chat_template):
                self._pairs = ChatPairs(tokenizer, self._template_kwargs)
            else:
                self._pairs = SegmentPairs(tokenizer)
                self._pad_id = getattr(model.config.get_text_config(), "pad_token_id", None)
            self._require_room()
        self._model.to(device)
        if self.placement != "resident":
            move_frozen(self._model, _CPU)

    def _require_room(self) -> None:
        frame = len(self._pairs.encode("", "", 2**31).ids)
        if self.max_tokens < frame + 2:
            raise ConfigError(
                f"{_KEY}.max_tokens",
                f"leaves {self.max_tokens}, but an empty pair takes {frame}",
                "set more, or use a model with a longer context",
            )

    def score(self, playout: Playout) -> Tensor:
        """The model's logits, (N, G)."""
        return self.judge(playout).scores

    def judge(self, playout: Playout) -> Judgement:
        """The model's logits, and the share of pairs that had to be cut.

        Raises:
            OutOfMemory: not even a single pair fits.
        """
        if self._model is None:
            raise RuntimeError("call connect(reference) first: the reward model is loaded there")
        pairs = [
            self._pairs.encode(query, answer, self.max_tokens)
            for query, answers in zip(playout.query_texts, playout.spoken_groups(), strict=True)
            for answer in answers
        ]
        lengths = [len(pair.ids) for pair in pairs]

        def scored(tokens: int) -> Tensor:
            scores = torch.empty(len(pairs))
            for rows in by_token_budget(lengths, tokens):
                scores[rows] = self._logits([pairs[i] for i in rows])
            return scores

        with self._at_work():
            scores = self._budget.run(scored, max(lengths))
        return Judgement(
            scores.view(len(playout.query_texts), playout.group_size),
            metrics={"cut": torch.tensor([float(pair.cut) for pair in pairs])},
        )

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Weights that wait in CPU memory are on the GPU meanwhile."""
        with self._room(), ExitStack() as stack:
            if self.placement != "resident":
                stack.enter_context(moved(self._model, self._reference.device))
            yield

    def _room(self) -> AbstractContextManager[None]:
        """What of the policy has to make room on the GPU does."""
        return self._reference.parked() if self.placement == "exclusive" else nullcontext()

    def _logits(self, pairs: Sequence[Pair]) -> Tensor:
        """(n,) logits of one batch, on the CPU."""
        device, pad_id = self._reference.device, self._padding(pairs)
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

    def state_dict(self) -> dict[str, Any]:
        """See :class:`lsp_lightning.rewards.base.Reward`; and how much was found to fit."""
        return {**super().state_dict(), "batch_tokens": self._budget.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        super().load_state_dict(state_dict)
        if "batch_tokens" in state_dict:
            self._budget.load_state_dict(state_dict["batch_tokens"])
