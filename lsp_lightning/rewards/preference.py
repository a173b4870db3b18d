"""Rewards from a preference model: any sequence classifier with one label."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError, require_at_least, require_one_of
from lsp_lightning.models.loading import load_classifier, load_tokenizer
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import PASS_TOKENS
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.sources import check_base
from lsp_lightning.rewards.base import AnswerEnters, Judgement, LoadedModel, Reward, require_answers
from lsp_lightning.rewards.pairs import ChatPairs, Pair, PairEncoder, SegmentPairs
from lsp_lightning.runtime.memory import TokenBudget, is_out_of_memory, move_frozen, moved
from lsp_lightning.text.padding import by_token_budget, pad_right
from lsp_lightning.types import Playout, Reference

PairForm = Literal["auto", "chat", "segments"]
Placement = Literal["resident", "offload", "exclusive"]
_KEY = "model.rewards.PreferenceReward"
_BUDGET = f"{_KEY} (tokens per pass)"
_CPU = torch.device("cpu")


class PreferenceReward(Reward):
    """Scores from a reward model that was trained on human or model preferences.

    The score is the model's raw logit. It has no fixed range, so objectives that need one refuse
    this reward. An answer is judged without its thinking.

    Args:
        model: folder or hub id of a sequence classifier with one label. Either it has a chat
            template, such as Skywork/Skywork-Reward-V2-Llama-3.2-3B, or it encodes question and
            answer as two segments, such as OpenAssistant/reward-model-deberta-v3-large-v2.
        weight: factor in R or Q; 0 only logs the scores.
        name: the name in metrics and transcripts.
        enters: where it enters, see :class:`lsp_lightning.rewards.base.Reward`.
        standardize: see :class:`lsp_lightning.rewards.base.Reward`.
        form: the model's input: "chat" is its chat template, "segments" is query and answer as two
            segments, "auto" is chat if its tokenizer has a template, else segments.
        max_tokens: longer pairs lose the middle of the query, then of the answer; the metric
            ``cut`` is their share.
        chat_template_kwargs: fixed arguments of its chat template (a date_string for Llama).
        quantization: nf4 stores its linear layers in 4 bits; null keeps the type of the files.
        placement: where its weights are between judgements. "resident": on the policy's GPU.
            "offload": in CPU memory; they move to the GPU to judge. "exclusive": like offload, and
            the policy's frozen weights move to CPU memory while it judges. On a CPU nothing moves.
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
        chat_template_kwargs: dict[str, Any] | None = None,
        quantization: Quantization | None = None,
        placement: Placement = "resident",
    ) -> None:
        super().__init__(weight, name, require_answers(enters, name), standardize)
        check_base(model, f"{_KEY}.model", "classifier")
        require_one_of(form, get_args(PairForm), f"{_KEY}.form")
        require_at_least(max_tokens, 16, f"{_KEY}.max_tokens", "a pair needs room")
        require_one_of(placement, get_args(Placement), f"{_KEY}.placement")
        self.source: str = model
        self.form: PairForm = form
        self.max_tokens: int = max_tokens
        self.chat_template_kwargs: dict[str, Any] = chat_template_kwargs or {}
        self.quantization: Quantization | None = quantization
        self.placement: Placement = placement
        self.budget = TokenBudget(_BUDGET, PASS_TOKENS)  # connect replaces it by the run's budget
        self._model: Any = None
        self._reference: Reference
        self._pairs: PairEncoder
        self._pad_id: int | None = None
        self._takes_types = False

    def loads(self) -> LoadedModel:
        """The reward model."""
        return LoadedModel(
            source=self.source,
            quantization=self.quantization,
            placement=self.placement,
            max_tokens=self.max_tokens,
        )

    def connect(self, reference: Reference) -> None:
        """Load the reward model beside the policy, on its device.

        Raises:
            ConfigError: the reward model cannot be loaded, or does not fit into memory.
        """
        self._reference = reference
        self.budget = TokenBudget(_BUDGET, reference.pass_tokens)
        try:
            with self._policy_parked():
                self._load(reference.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(
                f"{_KEY}.model",
                f"{self.source!r} does not fit into memory beside the policy",
                "set placement: exclusive or quantization: nf4, or use a smaller model",
            ) from error

    def _load(self, device: torch.device) -> None:
        if self._model is None:
            key = f"{_KEY}.model"
            model = load_classifier(self.source, key, self.quantization, device)
            self._model = model.requires_grad_(False)
            tokenizer = load_tokenizer(self.source, key)
            self._takes_types = "token_type_ids" in tokenizer.model_input_names
            longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            if longest:  # minus 2, because some models count positions from the padding id
                self.max_tokens = min(self.max_tokens, longest - 2)
            if self.form == "chat" or (self.form == "auto" and tokenizer.chat_template):
                self._pairs = ChatPairs(tokenizer, self.chat_template_kwargs, key)
            else:
                self._pairs = SegmentPairs(tokenizer)
                self._pad_id = getattr(model.config.get_text_config(), "pad_token_id", None)
            self._require_room()
        self._model.to(device)
        if self.placement != "resident":
            move_frozen(self._model, _CPU)

    def _require_room(self) -> None:
        """Raise ConfigError unless ``max_tokens`` has room for a query and an answer."""
        frame = len(self._pairs.encode("", "", 2**31).ids)
        if self.max_tokens < frame + 2:
            raise ConfigError(
                f"{_KEY}.max_tokens",
                f"is {self.max_tokens} for this model, but an empty pair takes {frame} tokens",
                "increase it, or use a model with a longer context",
            )

    def score(self, playout: Playout) -> Judgement:
        """The model's logits, (N, G), and ``cut``, the share of pairs that were too long.

        Raises:
            OutOfMemory: not even a single pair fits.
        """
        if self._model is None:
            raise RuntimeError("call connect(reference) first: it loads the reward model")
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

        with self._on_device():
            scores = self.budget.run(scored, max(lengths))
        return Judgement(
            scores.view(len(playout.query_texts), playout.group_size),
            metrics={"cut": torch.tensor([float(pair.cut) for pair in pairs])},
        )

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The weights are on the policy's device inside this context."""
        resident = self.placement == "resident"
        device = self._reference.device
        with self._policy_parked(), nullcontext() if resident else moved(self._model, device):
            yield

    def _policy_parked(self) -> AbstractContextManager[None]:
        """The policy's frozen weights wait in CPU memory inside this context, if "exclusive"."""
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
        """The token that fills up shorter rows.

        An encoder has a padding token. A decoder's head reads the last token that is not padding,
        so its padding is the smallest id with which no pair ends.
        """
        if self._pad_id is not None:
            return self._pad_id
        lasts = {pair.ids[-1] for pair in pairs}
        pad_id = next(i for i in itertools.count() if i not in lasts)
        self._model.config.get_text_config().pad_token_id = pad_id
        return pad_id

    def state_dict(self) -> dict[str, Any]:
        """The state of the base class, and how many tokens were found to fit into memory."""
        return {**super().state_dict(), "budget": self.budget.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a checkpoint's state."""
        super().load_state_dict(state_dict)
        if "budget" in state_dict:
            self.budget.load_state_dict(state_dict["budget"])
