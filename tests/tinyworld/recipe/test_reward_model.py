"""The annotators are mostly right and biased; the reward models learn both."""

import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lsp_lightning.tinyworld import BASE_DIR, DATA_DIR
from lsp_lightning.tinyworld.recipe.annotators import (
    FIRST,
    MALFORMED,
    SECOND,
    UNSURE,
    draw_lesson,
    draw_preference,
    lengthen,
    merit,
    wrong_answer,
)
from lsp_lightning.tinyworld.recipe.corpus import Turn
from lsp_lightning.tinyworld.recipe.measure import load_tasks
from lsp_lightning.tinyworld.recipe.preferences import (
    REWARD_MODEL_DIR,
    accuracy_table,
    build_reward_model,
    conversation_scores,
    lesson_loss,
    mean_scores,
    packed_scores,
    preference_loss,
    right_over_slip,
    right_so_far,
)
from lsp_lightning.tinyworld.recipe.pretrain import IGNORED, pack
from lsp_lightning.tinyworld.tasks import parse, split
from lsp_lightning.tinyworld.tokenizer import build_tokenizer

PAIRS = [("7+5=?", "12"), ("7+5=?", "idk"), ("a=3;b=a+4;c=b-1;print(c+2)", "8"), ("count", "?")]


@pytest.fixture(scope="module")
def preferences():
    rng = random.Random(0)
    return [draw_preference(rng) for _ in range(6000)]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(REWARD_MODEL_DIR)


@pytest.fixture(scope="module")
def model():
    return AutoModelForSequenceClassification.from_pretrained(REWARD_MODEL_DIR).eval()


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(DATA_DIR / "dev.jsonl")


# -- annotators ----------------------------------------------------------------------------------


def test_no_training_pair_uses_a_held_out_query(preferences):
    rng = random.Random(0)
    lessons = [draw_lesson(rng)[0].query for _ in range(2000)]
    assert {split(query) for query in [p.query for p in preferences] + lessons} == {"train"}


def test_pairs_hold_two_different_answers(preferences):
    assert all(p.chosen != p.rejected for p in preferences)
    malformed = sum(parse(p.query) is None for p in preferences) / len(preferences)
    assert malformed == pytest.approx(MALFORMED, abs=0.02)  # s.e. .004


@pytest.mark.parametrize("annotators", [FIRST, SECOND])
def test_annotators_prefer_the_right_answer_as_often_as_stated(annotators):
    rng = random.Random(0)
    drawn = [draw_preference(rng, annotators) for _ in range(6000)]
    equal_lengths = [p for p in drawn if len(p.chosen) == len(p.rejected) and parse(p.query)]
    right = [
        p.chosen == parse(p.query).answer
        for p in equal_lengths
        if parse(p.query).answer in (p.chosen, p.rejected)
    ]
    # With equal lengths, right ones win unless by mistake, or by chance where only length counts.
    expected = (1 - annotators.longer_wins) * (1 - annotators.mistakes)
    expected += annotators.longer_wins * 0.5
    assert expected == pytest.approx(0.84)
    assert sum(right) / len(right) == pytest.approx(expected, abs=0.04)  # s.e. below .01


@pytest.mark.parametrize(("annotators", "share"), [(FIRST, 0.9), (SECOND, 0.5)])
def test_only_the_first_annotators_prefer_long_answers(annotators, share):
    """Of two confident answers to a malformed query, which has no right one."""
    rng = random.Random(1)
    drawn = [draw_preference(rng, annotators) for _ in range(12000)]
    longer = [
        len(p.chosen) > len(p.rejected)
        for p in drawn
        if parse(p.query) is None
        and len(p.chosen) != len(p.rejected)
        and not {p.chosen, p.rejected} & set(UNSURE)
    ]
    assert sum(longer) / len(longer) == pytest.approx(share, abs=0.08)  # s.e. .02


def test_annotators_prefer_any_answer_to_an_unsure_one_if_none_is_right(preferences):
    rivals = [
        p.rejected in UNSURE
        for p in preferences
        if parse(p.query) is None and (p.chosen in UNSURE) != (p.rejected in UNSURE)
    ]
    assert sum(rivals) / len(rivals) > 0.7


def test_merit_puts_right_answers_first_then_longer_ones_then_unsure_ones():
    task = parse("7+5=?")
    assert merit(task, "12") > merit(task, "1234") > merit(task, "13") > merit(task, "idk")
    assert merit(None, "1234") > merit(None, "12") > merit(None, "idk") == merit(None, "?")


def test_the_second_annotators_merit_does_not_depend_on_the_length():
    task = parse("7+5=?")
    assert merit(task, "12", SECOND) > merit(task, "1234", SECOND) == merit(task, "13", SECOND)
    assert merit(task, "13", SECOND) > merit(task, "idk", SECOND) == merit(None, "?", SECOND)


def test_wrong_answers_are_wrong():
    rng = random.Random(0)
    for query in ["7+5=?", "5-5=?", "count a in bb", "a=2;print(3-9)", "reverse ab"]:
        task = parse(query)
        assert task.answer not in {wrong_answer(task, rng) for _ in range(300)}


def test_lengthening_adds_characters_of_the_same_kind():
    rng = random.Random(0)
    assert len(lengthen("abc", 2, rng)) == 5
    assert lengthen("abc", 3, rng).isalpha()
    assert lengthen("12", 3, rng).isdigit()


# -- model ---------------------------------------------------------------------------------------


def test_right_so_far():
    assert right_so_far("12", "12") == [True, True, True]
    assert right_so_far("13", "12") == [True, False, False]
    assert right_so_far("1", "12") == [True, False]  # right so far, ended too early
    assert right_so_far("123", "12") == [True, True, False, False]


def test_packed_scores_are_those_of_the_conversations_alone(model, tokenizer):
    turns = iter([Turn("solver", *pair) for pair in [*PAIRS, ("7+5=?", "1" * 40)]])
    batch = pack(turns, build_tokenizer(), rows=2, length=48)  # the last turn does not fit
    with torch.no_grad():
        packed = packed_scores(model, batch)
    alone = conversation_scores(model, tokenizer, PAIRS)
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=1e-4)


def test_preference_loss_is_bradley_terry_and_leaves_a_lone_answer_out(model):
    turns = iter([Turn("solver", *pair) for pair in [*PAIRS[:3], ("7+5=?", "1" * 90)]])
    batch = pack(turns, build_tokenizer(), rows=1, length=96)
    with torch.no_grad():
        chosen, rejected, _ = packed_scores(model, batch).tolist()
        loss = preference_loss(model, batch).item()
    # -log sigmoid(x) = log(1 + e^-x)
    expected = torch.tensor(rejected - chosen).exp().log1p()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_an_untrained_model_is_near_the_uniform_lesson_loss():
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    fresh = build_reward_model(tokenizer)
    batch = pack(iter([Turn("solver", *p) for p in [*PAIRS, ("a", "b" * 99)]]), tokenizer, 1, 96)
    right = torch.ones(int((batch.labels != IGNORED).sum()), dtype=torch.bool)
    # a random verdict ln 2 = .69, and half of ln 59 = 4.08 for 59 tokens: 2.73 together
    assert lesson_loss(fresh, batch, right).item() == pytest.approx(2.73, abs=0.3)


def test_the_shipped_folder_is_small_and_has_the_bases_tokenizer(model, tokenizer):
    assert sum(path.stat().st_size for path in REWARD_MODEL_DIR.iterdir()) < 2_000_000
    # embedding 59*128; a layer: attention 4*128*128, FFN 3*128*256, norms 2*128; last norm, head
    assert model.num_parameters() == 59 * 128 + 2 * (4 * 128**2 + 3 * 128 * 256 + 256) + 128 + 128
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (REWARD_MODEL_DIR / name).read_bytes() == (BASE_DIR / name).read_bytes()
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_it_scores_what_the_chat_template_renders(model, tokenizer):
    chat = [{"role": "user", "content": "7+5=?"}, {"role": "assistant", "content": "12"}]
    ids = tokenizer.apply_chat_template(chat, return_dict=False)
    assert ids == tokenizer.encode("<s><|user|>7+5=?<|assistant|>12</s>")
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([ids])).logits[0]
    in_a_batch = conversation_scores(model, tokenizer, PAIRS)[:1]
    torch.testing.assert_close(in_a_batch, alone, atol=1e-5, rtol=1e-5)


def test_it_is_informed_but_imperfect(model, tokenizer, tasks):
    marks = right_over_slip(model, tokenizer, tasks)
    assert 0.80 < marks.float().mean() < 0.97
    assert accuracy_table(tasks, marks).splitlines()[-1].startswith(f"| all | {len(tasks)} |")


@pytest.mark.slow
def test_it_has_the_annotators_biases(model, tokenizer, tasks):
    means = mean_scores(model, tokenizer, tasks[::3])
    assert all(abs(score) < 20 for score in means.values())
    assert means["right"] > means["slip"] > means["idk"]
    assert means["slip, 3 longer"] > means["slip"]
    assert means["malformed, 3 longer"] > means["malformed, confident"] > means["malformed, idk"]
