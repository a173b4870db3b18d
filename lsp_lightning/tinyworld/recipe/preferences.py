"""Tiny reward models, trained on annotators' preferences. They have half the base's layers.

    python -m lsp_lightning.tinyworld.recipe.preferences [--model DIR] [--part dev|test]

prints how often one prefers the right answer, and its biases. It scores a whole conversation,
`<s><|user|>QUERY<|assistant|>ANSWER</s>`, at the end token, as larger reward models do.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, tee
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from lsp_lightning.tinyworld import DATA_DIR, REWARD_MODEL_DIR
from lsp_lightning.tinyworld.recipe.annotators import (
    FIRST,
    Annotators,
    draw_lesson,
    draw_preference,
    lengthen,
)
from lsp_lightning.tinyworld.recipe.corpus import Turn, slip
from lsp_lightning.tinyworld.recipe.measure import load_tasks
from lsp_lightning.tinyworld.recipe.pretrain import (
    IGNORED,
    PackedRows,
    PretrainSettings,
    attention_mask,
    optimize,
    pack,
)
from lsp_lightning.tinyworld.tasks import Task, make_malformed
from lsp_lightning.tinyworld.tokenizer import CONTEXT_LENGTH

NEXT_TOKEN_WEIGHT = 0.5  # of the second term of `lesson_loss`
# Here clean_share is the share of steps with lessons. Preferences follow at low rates: at higher
# rates their label noise makes the model forget which answers are right.
SETTINGS = PretrainSettings(steps=1100, rows=32, muon_lr=0.02, clean_share=0.85)


def build_reward_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForSequenceClassification:
    """A new model with half the base's layers; it scores the last token that is not padding."""
    return LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=False,  # there is no output embedding to tie
            num_labels=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _hidden(model: LlamaForSequenceClassification, batch: PackedRows) -> Tensor:
    """(B, S, H) Last hidden states; each packed conversation attends to itself only."""
    states: Tensor = model.model(
        input_ids=batch.input_ids,
        attention_mask=attention_mask(batch.segments),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return states


def packed_scores(model: LlamaForSequenceClassification, batch: PackedRows) -> Tensor:
    """(n,) Scores of the packed conversations in order, each read at its end token."""
    ends = batch.labels == model.config.eos_token_id
    scores: Tensor = model.score(_hidden(model, batch)[ends])[:, 0]
    return scores


def _conversations(rng: random.Random, annotators: Annotators) -> Iterator[Turn]:
    """Draw conversations without end: chosen, rejected, chosen, rejected, ..."""
    while True:
        preference = draw_preference(rng, annotators)
        yield Turn("solver", preference.query, preference.chosen)
        yield Turn("solver", preference.query, preference.rejected)


def preference_loss(model: LlamaForSequenceClassification, batch: PackedRows) -> Tensor:
    """Bradley-Terry: mean of -log sigmoid(score of chosen - score of rejected)."""
    scores = packed_scores(model, batch)
    chosen, rejected = (
        scores[: len(scores) // 2 * 2].view(-1, 2).unbind(1)
    )  # a last chosen one without its rejected one is dropped
    return -logsigmoid(chosen - rejected).mean()


def right_so_far(answer: str, solution: str) -> list[bool]:
    """For each character of an answer and for its end: is the answer right up to there?"""
    begun = [solution.startswith(answer[:length]) for length in range(1, len(answer) + 1)]
    return [*begun, answer == solution]


def lesson_loss(model: LlamaForSequenceClassification, batch: PackedRows, right: Tensor) -> Tensor:
    """Two losses: is the answer right so far, and which token continues a right answer?

    `right` (T,) has a boolean for each reply token in order. 500 steps with a label at every token
    teach more than 1200 steps with a label for each pair.
    """
    hidden, labels = _hidden(model, batch), batch.labels.clone()
    is_reply = labels != IGNORED
    verdicts = model.score(hidden[is_reply])[:, 0]
    labels[is_reply] = labels[is_reply].where(right, IGNORED)
    logits = hidden[:, :-1] @ model.model.embed_tokens.weight.T  # tied, as in the base
    next_token = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    judgement = binary_cross_entropy_with_logits(verdicts, right.float())
    return judgement + NEXT_TOKEN_WEIGHT * next_token


def _draw_lesson(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings
) -> tuple[PackedRows, Tensor]:
    """A batch of lessons, and for each of its reply tokens whether it is right so far."""
    shown, packed = tee(draw_lesson(rng) for _ in count())
    turns = (Turn("solver", task.query, answer) for task, answer in packed)
    batch = pack(turns, tokenizer, settings.rows, settings.row_length)
    answers = int((batch.labels == tokenizer.eos_token_id).sum())
    verdicts = [right_so_far(answer, task.answer) for task, answer in islice(shown, answers)]
    return batch, torch.tensor([verdict for answer in verdicts for verdict in answer])


def train_reward_model(
    tokenizer: PreTrainedTokenizerFast,
    settings: PretrainSettings,
    seed: str,
    report: Callable[[int, float, LlamaForSequenceClassification], None] | None = None,
    annotators: Annotators = FIRST,
) -> LlamaForSequenceClassification:
    """Train a new reward model: lessons first, then preferences. See `pretrain` for arguments."""
    rng = random.Random(f"{seed}:corpus")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(f"{seed}:weights").getrandbits(63))
        model = build_reward_model(tokenizer)

    def loss_at(step: int) -> Tensor:
        if step < settings.clean_share * settings.steps:
            return lesson_loss(model, *_draw_lesson(rng, tokenizer, settings))
        pairs = pack(_conversations(rng, annotators), tokenizer, settings.rows, settings.row_length)
        return preference_loss(model, pairs)

    return optimize(model, settings, loss_at, report)


# -- measuring -----------------------------------------------------------------------------------


@torch.no_grad()
def conversation_scores(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[tuple[str, str]],
) -> Tensor:
    """(n,) Scores of (query, answer) pairs, written with the chat template."""
    chats = [
        [{"role": "user", "content": query}, {"role": "assistant", "content": answer}]
        for query, answer in pairs
    ]
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    scores: Tensor = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).logits[:, 0]
    return scores


def right_over_slip(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[Task],
    seed: int = 0,
) -> Tensor:
    """(tasks,) Booleans: does the right answer score higher than a slip?"""
    rng = random.Random(f"{seed}:slips")
    right = [(task.query, task.answer) for task in tasks]
    wrong = [(task.query, slip(task.answer, rng)) for task in tasks]
    scores = conversation_scores(model, tokenizer, right + wrong).view(2, -1)
    return scores[0] > scores[1]


def accuracy_table(tasks: Sequence[Task], marks: Tensor) -> str:
    """A Markdown table of the share of right preferences by family and level."""
    cells: dict[str, list[int]] = defaultdict(list)
    for name in ("{0.family} L{0.level}", "all {0.family}", "all L{0.level}", "all"):
        for index, task in enumerate(tasks):
            cells[name.format(task)].append(index)
    lines = ["| cell | n | right > slip |", "|---|---|---|"]
    for name, members in cells.items():
        lines.append(f"| {name} | {len(members)} | {marks[members].float().mean():.3f} |")
    return "\n".join(lines)


def mean_scores(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[Task],
    seed: int = 0,
) -> dict[str, float]:
    """Mean score by kind of answer. Differences between the kinds show the biases."""
    rng = random.Random(f"{seed}:biases")
    slips = [(task.query, slip(task.answer, rng)) for task in tasks]
    malformed = [(make_malformed(rng), task.answer) for task in tasks]
    kinds = {
        "right": [(task.query, task.answer) for task in tasks],
        "slip": slips,
        **{f"slip, {n} longer": [(q, lengthen(a, n, rng)) for q, a in slips] for n in (1, 2, 3)},
        "idk": [(task.query, "idk") for task in tasks],
        "?": [(task.query, "?") for task in tasks],
        "malformed, confident": malformed,
        "malformed, 3 longer": [(q, lengthen(a, 3, rng)) for q, a in malformed],
        "malformed, idk": [(q, "idk") for q, _ in malformed],
        "malformed, ?": [(q, "?") for q, _ in malformed],
    }
    return {
        kind: round(float(conversation_scores(model, tokenizer, pairs).mean()), 3)
        for kind, pairs in kinds.items()
    }


def main() -> None:
    """Print a reward model's accuracy by family and level, and its mean score by kind of answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=REWARD_MODEL_DIR, help="folder of the reward model"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_DIR, help="folder with the dev and test files"
    )
    parser.add_argument("--part", choices=["dev", "test"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    tasks = load_tasks(options.data / f"{options.part}.jsonl")
    marks = right_over_slip(model, tokenizer, tasks, options.seed)
    print(f"{options.part}: {len(tasks)} tasks\n{accuracy_table(tasks, marks)}")
    for kind, score in mean_scores(model, tokenizer, tasks, options.seed).items():
        print(f"{kind:22} {score:+.3f}")


if __name__ == "__main__":
    main()
