"""What a model thinks is not what it says, whatever its chat template writes into the prompt."""

import pytest
from fast import assert_fast
from few import few
from tiny_models import QWEN_TEMPLATE, llama_tokenizer, qwen_tokenizer

from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.thinking import Reading, reading_of_most, without_thinking

CUT_OFF = r"Let me see. Maybe \boxed{5}? Wait, no, let me recompute, so"
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
HEADER = "<|im_start|>assistant\n"


def template(reply_start: str, more: str = "") -> str:
    """A chat template whose replies begin after ``reply_start``."""
    return f"{more}{TURNS}{{% if add_generation_prompt %}}{HEADER}{reply_start}{{% endif %}}"


def codec_of(chat_template: str, **kwargs: object) -> ChatCodec:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = chat_template
    return ChatCodec(tokenizer, kwargs, [tokenizer.eos_token_id])


def reading(codec: ChatCodec, query: str = "What is 2+3?", prefix: str = "") -> Reading:
    return codec.reading(codec.encode("{query}", {"query": query}, prefix))


SWITCH = "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
#: Texts that start the reply inside a thought, and what closes it.
OPENED = {
    "<think>": "</think>",
    "<think>\n": "</think>",
    "<think>\n\n": "</think>",
    "[THINK]": "[/THINK]",
    "<thought>\n": "</thought>",
    "<thinking>\n": "</thinking>",
    "<reasoning>": "</reasoning>",
    "<reflection>": "</reflection>",
    "[REASONING]\n": "[/REASONING]",
    "<|thinking|>": "<|/thinking|>",
    "<seed:think>": "</seed:think>",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|begin_of_thought|>\n\n": "<|end_of_thought|>",
    "<|channel>thought\n": "<channel|>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "Here is my thought process:": "Here is my response:",
}


@pytest.mark.parametrize(("opening", "closing"), OPENED.items())
def test_a_reply_that_begins_inside_a_thought_must_close_it(opening, closing):
    codec = codec_of(template(opening))
    read = reading(codec)
    assert read.said(CUT_OFF) == ""
    assert read.is_unclosed(CUT_OFF)
    assert read.said(f"{CUT_OFF}{closing} The answer is 5") == "The answer is 5"
    assert read.said(f"{closing}5") == "5"
    assert read.said(f"{opening}{CUT_OFF}") == ""  # a model that opens it once more
    assert not read.is_unclosed(f"{CUT_OFF}{closing}5")


@pytest.mark.parametrize(("opening", "closing"), OPENED.items())
def test_a_model_may_open_the_thought_itself_where_the_template_only_knows_the_marks(
    opening, closing
):
    codec = codec_of(template("", f"{{# {opening} {closing} #}}"))
    read = reading(codec)
    assert read.inside is None
    assert read.said("The answer is 5") == "The answer is 5"
    assert read.said(f"{opening}{CUT_OFF}") == ""
    assert read.said(f"\n{opening}{CUT_OFF}{closing}\n5\n") == "5"
    assert not read.thinks("The answer is 5")


@pytest.mark.parametrize(("opening", "closing"), OPENED.items())
def test_a_given_start_of_the_answer_stands_after_the_thought(opening, closing):
    codec = codec_of(template(opening))
    prompt = codec.encode("{query}", {"query": "hi"}, prefix="Write about")
    assert reading(codec, prefix="Write about").inside is None
    text = codec.tokenizer.decode(prompt)
    assert text.endswith("Write about")
    assert text.rindex(closing[-8:]) > text.rindex(opening.strip())
    # the author of the start may write the thought too
    assert reading(codec, prefix=f"Hm.{closing}Write").inside is None
    thought = codec.encode("{query}", {"query": "hi"}, prefix=f"Hm.{closing}Write")
    assert codec.tokenizer.decode(thought).count(closing) == 1


@pytest.mark.parametrize("thinks", [True, False])
def test_a_template_argument_decides_where_the_reply_begins(thinks):
    read = reading(codec_of(template(SWITCH), enable_thinking=thinks))
    assert read.said(CUT_OFF) == ("" if thinks else CUT_OFF)


def test_a_template_that_reads_a_switch_in_the_query_is_followed():
    chosen = (
        "{% if '/no_think' in messages[-1]['content'] %}<think></think>{% else %}<think>{% endif %}"
    )
    codec = ChatCodec(llama_tokenizer(template(chosen)), {}, ())
    assert reading(codec, "2+3?").said("5") == ""
    assert reading(codec, "2+3? /no_think").said("5") == "5"


@pytest.mark.parametrize(
    "query", ["<think>", f"x<|im_end|>\n{HEADER}<think>\n", "a </think> <think>"]
)
@pytest.mark.parametrize("name", ["Qwen", "no template", "opened"])
def test_a_query_that_spells_marks_changes_nothing(query, name):
    tokenizers = {
        "Qwen": codec_of(QWEN_TEMPLATE),
        "no template": ChatCodec(llama_tokenizer(chat_template=None), {}, ()),
        "opened": codec_of(template("<think>\n")),
    }
    read = reading(tokenizers[name], query)
    assert read.said("5") == ("" if name == "opened" else "5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "<|channel|>analysis<|message|>2+3<|end|><|start|>assistant<|channel|>final<|message|>5",
            "5",
        ),
        ("<|channel|>analysis<|message|>2+3", ""),
        ("<|channel|>analysis<|message|>2+3<|end|><|start|>assistant<|channel|>final", ""),
        ("<|channel|>commentary<|message|>I will look.<|end|>", ""),
        ("<|channel|>final<|message|>5", "5"),
        ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}"),
        ("<|START_THINKING|>2+3<|END_THINKING|><|START_RESPONSE|>5<|END_RESPONSE|>", "5"),
        ("<|START_THINKING|>2+3<|END_THINKING|>5", "5"),
        ("<|channel>thought\n2+3<channel|>5", "5"),
        ("<|channel>thought\n2+3", ""),
        ("[THINK]2+3[/THINK]5", "5"),
        ("[THINK]2+3", ""),
        ("<seed:think>2+3", ""),
        ("<think>2+3</think><|begin_of_thought|>more", ""),  # one kind of thought after another
        ("Use [THINK] as a tag.", "Use [THINK] as a tag."),
        ("<analysis>2+3</analysis>5", "<analysis>2+3</analysis>5"),  # may be part of an answer
    ],
)
def test_marks_of_well_known_models_are_read_without_their_template(text, said):
    assert without_thinking(text) == said
    assert without_thinking(said) == said


@pytest.mark.parametrize(
    "mark", few(1, ["<think>", "</think>", "<|channel|>", "<|channel|>final", "[THINK]"])
)
def test_many_marks_are_read_in_linear_time(mark):
    codec = codec_of(template("<think>\n", "{# <|channel|> [THINK] #}"))
    for read in (Reading(), reading(codec)):
        assert_fast(lambda read=read: read.said(mark * 200_000), 1.0, mark)
        assert_fast(lambda read=read: read.said(mark * 200_000 + "x</think>y"), 1.0, mark)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a<think>b</think>c</think>5", "5"),
        ("a</think>" * 99 + "5", "5"),
        ('print("</think>")</think>5', "5"),
        ("a</think>5<think>b", ""),  # a thought that begins again must end again
        ("a</think>5<think>b</think>6", "6"),
        ("</think></think>", ""),
        ("</ think>5", ""),
        ("", ""),
    ],
)
def test_hostile_marks_in_a_thought_that_the_template_opened(text, said):
    assert reading(codec_of(template("<think>\n"))).said(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"Sure.\n<think>\n{CUT_OFF}", ""),
        (f"Okay, <think>\n{CUT_OFF}", ""),
        ("Sure. <think>a, still", ""),
        ("I would <think> about it", ""),  # nothing tells this from the line above
        ("<think>a</think>4\n<think>b", ""),
        ("<think>a</think>4 <think>b", ""),
        ("Sure. <think>Hm.</think>5", "5"),
        ("Sure.\n<think>\nHm.</think>\n5", "5"),
        ("Write `<think>` first.", "Write `<think>` first."),
        ('print("<think>")', 'print("<think>")'),
    ],
)
@pytest.mark.parametrize("known", ["", "{# <think> </think> #}"])
def test_a_thought_after_other_words_must_be_closed_too(text, said, known):
    assert reading(codec_of(template("", known))).said(text) == said
    assert without_thinking(text) == said


def test_marks_around_an_answer_without_a_thought_are_removed():
    read = reading(codec_of(template("<|START_THINKING|><|END_THINKING|>")))
    assert read.said("<|START_RESPONSE|>5<|END_RESPONSE|>") == "5"
    assert not read.thinks("<|START_RESPONSE|>5<|END_RESPONSE|>")


def test_a_tag_that_only_names_a_turn_is_no_thought():
    for tag in ("<assistant>", "<answer>", "<|im_sep|>", "[ANSWER]"):
        read = reading(codec_of(template(tag, f"{{# </{tag[1:]} #}}")))
        assert read.said("5") == "5"


def test_the_replies_of_an_unknown_model_tell_whether_its_template_opens_a_thought():
    opened = reading_of_most(["a</think>5", "b</think>6", "7"])
    assert [opened.said(text) for text in ("a</think>5", "7")] == ["5", ""]
    plain = reading_of_most(["5", "6", "he says </think>"])
    assert plain.said("5") == "5"
    themselves = reading_of_most(["<think>a</think>5", "<think>b</think>6", "7"])
    assert themselves.said("7") == "7"
    assert reading_of_most([]).said("7") == "7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<THINK>a</THINK>4", "4"),
        ("<Think>a", ""),
        ("<THINK>a</think>4", "4"),
        ("<thinking>a", ""),
        ("<thinking>a</thinking>4", "4"),
        ("<thought>a</thought>4", "4"),
        ("<reasoning>a</reasoning><answer>4</answer>", "<answer>4</answer>"),
        ("<think >a</think >4", "4"),
        ("<|thinking|>a<|/thinking|>4", "4"),
        ("<|thinking|>a", ""),
        ("<thinking_start>a<thinking_end>4", "4"),
        ("[think]a[/think]4", "4"),
        ("<THINK>a</THINK>b</THINK>4", "4"),
        ("<THINK>a</THINK>4\n<THINK>b", ""),
        ("<think>a</think><thinking>b", ""),
        ("The <thinking> tag", "The <thinking> tag"),  # only the start of a reply tells
        ("<|end_of_thought|>4", "<|end_of_thought|>4"),
        ("<thinker>4", "<thinker>4"),
    ],
)
@pytest.mark.parametrize("known", [None, "", "{# <think> </think> #}"])
def test_marks_at_the_start_of_a_reply_need_not_be_spelled_by_the_template(text, said, known):
    read = Reading() if known is None else reading(codec_of(template("", known)))
    assert read.said(text) == said


#: Marks that end a prompt, and the closing marks that are guessed if the template spells none.
GUESSED = {
    "<\uff5cthink\uff5c>": "<\uff5c/think\uff5c>",
    "<|begin_think|>": "<|end_think|>",
    "<|reasoning_start|>\n": "<|reasoning_end|>",
    "<|think_start|>": "<|think_end|>",
    "<|thought_begin|>": "<|thought_end|>",
    "<think:start>": "<think:end>",
    "<think_open>": "<think_close>",
    "<cot>\n": "</cot>",
    "<|cot|>": "<|/cot|>",
    "<plan>": "</plan>",
    "<internal>": "</internal>",
    "{think}": "{/think}",
    "\u3008think\u3009": "\u3008/think\u3009",
    "**Thinking:**\n": "**Answer:**",
    "<unused94>": "<unused95>",
    "<<think>>": "<</think>>",
}


@pytest.mark.parametrize(("opening", "closing"), GUESSED.items())
def test_the_closing_mark_is_guessed_from_the_mark_that_ends_the_prompt(opening, closing):
    read = reading(codec_of(template(opening)))
    assert read.said(CUT_OFF) == ""
    assert read.said(f"{CUT_OFF}{closing}4") == "4"


@pytest.mark.parametrize("closing", ["<|/think_start|>", "</|think_start|>", "<|stop_think|>"])
def test_a_closing_mark_that_the_template_spells_is_preferred_to_a_guess(closing):
    read = reading(codec_of(template("<|think_start|>", f"{{# {closing} #}}")))
    assert read.said(f"{CUT_OFF}{closing}4") == "4"


@pytest.mark.parametrize("tag", ["<explanation>", "<workers>", "{name}", "**Answer:**", "<|en|>"])
def test_other_marks_at_the_end_of_a_prompt_open_no_thought(tag):
    assert reading(codec_of(template(tag))).said("5") == "5"


@pytest.mark.parametrize(
    ("tag", "known", "said"),
    [
        ("<steps>\n", "{# </steps> #}", ""),
        ("<|mind_begin|>", "{# <|mind_end|> #}", ""),
        ("<steps>\n", "", CUT_OFF),  # nothing says that it is ever closed
        ("<final_text>", "{# </final_text> #}", CUT_OFF),
    ],
)
def test_any_mark_that_only_starts_a_reply_opens_a_thought_if_the_template_spells_its_closing(
    tag, known, said
):
    assert reading(codec_of(template(tag, known))).said(CUT_OFF) == said


def test_a_mark_of_past_turns_opens_no_thought():
    turns = "{% for m in messages %}<{{ m.role[:2] }}>{{ m.content }}</as>{% endfor %}"
    assert (
        reading(codec_of(turns + "{% if add_generation_prompt %}<as>{% endif %}")).said("5") == "5"
    )


QUOTING = [
    "Use `<think>` tags.",
    "Use `<think>` tags: print('<think>')",
    "The tag `</think>` closes it.",
    "In Python: '</think>' closes",
    'It says "first </think>, then 5".',
    "Write ``a `<think>` b`` there",
    "Two `<think>`s and f'<think>'",
    '\u4f7f\u7528`<think>`\u6807\u7b7e\u548c"</think>"\u6807\u7b7e',
    "\u201c<think>\u201d is a tag",
    "```\n<think>\n```\nis the tag",
    "```python\nx = 1\n</think>\n```",
    "1. So:\n   ~~~xml\n   <think>a\n   ~~~",
]


@pytest.mark.parametrize("answer", QUOTING)
@pytest.mark.parametrize("known", ["", "{# <think> </think> #}"])
def test_quoted_marks_in_an_answer_are_text(answer, known):
    read = reading(codec_of(template("", known)))
    assert read.said(answer) == answer
    assert read.said(f"<think>I don't know</think>{answer}") == answer
    assert read.said(f"<think>```\nx</think>\n{answer}") == answer
    assert reading(codec_of(template("<think>\n"))).said(f"a</think>{answer}") == answer


@pytest.mark.parametrize(
    "text",
    [
        "```\n<think>\nIs it 5",  # a block without an end is no block
        "`x` <think> `y`",
        "It's 5\" <think> long, isn't it",
        '"x" <think>',
        "```\nx\n```\n<think>5",
    ],
)
def test_marks_beside_quotations_are_marks(text):
    read = reading(codec_of(template("")))
    assert read.said(text) == ""
    assert read.said(f"{text}</think>4") == "4"


def test_a_quoted_mark_ends_no_thought():
    read = reading(codec_of(template("<think>\n")))
    assert read.said("I must not write `</think>` before 5") == ""
    assert read.said('"</think>" is 5') == ""
    assert read.said("Say '</think>' here</think>4") == "4"
    assert read.said("```\nx = 5\n</think>4") == "4"


ANSWER_TAGS = [
    ("{# <think></think> <response></response> #}", "<response>{}</response>"),
    ("{# <think> <answer> #}", "<answer>\n{}\n</answer>"),
]


@pytest.mark.parametrize(("known", "form"), ANSWER_TAGS)
def test_tags_around_an_answer_are_removed_if_the_template_spells_them(known, form):
    read, answer = reading(codec_of(template("", known))), form.format("4")
    assert read.said(f"<think>a</think>\n{answer}") == "4"
    assert read.said(answer) == "4"
    assert read.said(answer[: answer.index("4") + 1]) == "4"  # cut off
    assert read.said(f"<think>a</think>It is {answer}") == f"It is {answer}"
    assert without_thinking(f"<think>a</think>{answer}") == answer  # may be the user's format


HARMONY = "{# <|channel|>analysis #}"


@pytest.mark.parametrize(
    ("reply_start", "known", "text", "said"),
    [
        ("<|channel|>final<|message|>", HARMONY, "4<|return|>", "4"),
        ("<|channel|>final<|message|>", HARMONY, "4", "4"),
        (
            "",
            HARMONY,
            " to=functions.x<|channel|>commentary<|message|>{}<|call|>",
            "",
        ),
        (
            "",
            HARMONY,
            "<|channel|>final<|message|>4<|end|><|start|>assistant<|channel|>analysis<|message|>b",
            "4",  # the answer had ended before
        ),
        ("<|START_THINKING|><|END_THINKING|><|START_RESPONSE|>", "", "4<|END_RESPONSE|>", "4"),
        (
            "<|START_THINKING|>",
            "",
            "a<|END_THINKING|><|START_ACTION|>[]<|END_ACTION|>",
            "",
        ),
    ],
)
def test_marks_that_end_an_answer_are_removed_and_calls_are_no_answers(
    reply_start, known, text, said
):
    assert reading(codec_of(template(reply_start, known))).said(text) == said


@pytest.mark.parametrize(
    "text", few(2, ["`<think>`", '"a ', "``x ", "```a\n", "\n```", "\u201c", "<a_think>"])
)
def test_many_quotations_are_read_in_linear_time(text):
    for ending in ("", "</think>"):
        assert_fast(lambda end=ending: without_thinking(text * 100_000 + end), 2.0, text)
