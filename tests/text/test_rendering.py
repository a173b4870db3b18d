"""A chat template is a program from a stranger: its errors are one line, and it ends."""

import time
from datetime import date

import pytest
from fast import assert_fast
from few import few
from tiny_models import LLAMA_TEMPLATE, build_llama, llama_tokenizer

from lsp_lightning import ConfigError, Policy
from lsp_lightning.cli.main import main
from lsp_lightning.models.loading import load_codec
from lsp_lightning.text import rendering
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.rendering import ChatTemplate

GROWS = "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
OUTER, INNER, ENDS = "{% for i in range(99999) %}", "{% for j in range(99999) %}", "{% endfor %}"
HOSTILE = {
    "nested loops": OUTER + INNER + ENDS + ENDS,
    "nested loops that write": OUTER + INNER + "{{ i }}" + ENDS + ENDS,
    "macros": "{% macro f(n) %}" + OUTER + "{{ f(n) }}" + ENDS + "{% endmacro %}{{ f(1) }}",
    "filters": OUTER + "{{ range(9999) | map('string') | list | length }}" + ENDS,
    "doubling": GROWS + "{% set ns.s = ns.s ~ ns.s %}" + ENDS,
    "a power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "a product": "{{ 'a' * 999999999 }}",
    "products": "{{ 'a' * 99999 * 99999 }}",
    "a width": "{{ 'a' | center(999999999) }}",
    "much text": "{% for i in range(99) %}{{ 'a' | center(99999) }}{% endfor %}",
    "long": "{# " + "a" * 2_000_000 + " #}",
    "deep": "{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}",
}
BROKEN = {
    "raises": "{{ raise_exception('no \x1b[2J\nusers here') }}",
    "undefined": "{{ messages[0]['content'].nothing.at_all }}",
    "syntax": "{% for x in %}",
    "unclosed": "{% if x %}",
    "unsafe": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "division": "{{ 1 / 0 }}",
    "type": "{{ 1 + 'a' }}",
    "unknown filter": "{{ 1 | nothing }}",
}


@pytest.mark.parametrize("source", [*HOSTILE.values(), *BROKEN.values()], ids=[*HOSTILE, *BROKEN])
def test_a_template_that_fails_or_never_ends_is_one_line(source):
    codec = ChatCodec(llama_tokenizer(source + LLAMA_TEMPLATE), {}, (), "model.base")

    def load():
        with pytest.raises(ConfigError) as error:
            codec.check()
        line = str(error.value)
        assert line.startswith("model.base: the chat template of this model cannot be used: ")
        assert line.isprintable()
        assert len(line) < 500

    assert_fast(load, 5.0, "the template")


def test_such_a_template_is_refused_at_load_with_the_key_of_its_model(tmp_path):
    folder = build_llama(tmp_path / "model", chat_template=HOSTILE["nested loops"] + LLAMA_TEMPLATE)
    with pytest.raises(ConfigError, match=r"^model.base: the chat template of this model"):
        load_codec(str(folder), None, {})
    with pytest.raises(ConfigError, match=r"^model.base: the chat template of this model"):
        Policy(str(folder))
    with pytest.raises(ConfigError, match=r"^model.rewards.mine: the chat template"):
        load_codec(str(folder), None, {}, key="model.rewards.mine")


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_a_run_with_such_a_template_loads_no_model_and_leaves_no_folder(
    tmp_path, capfd, no_model, command
):
    folder = build_llama(tmp_path / "model", chat_template=BROKEN["raises"] + LLAMA_TEMPLATE)
    model = ["--model.base", str(folder), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main([command, "--config", "configs/tiny_lsp_zero.yaml", *model]) != 0
    assert capfd.readouterr().err.splitlines()[-1:] == [
        "error: model.base: the chat template of this model cannot be used: it fails with "
        r"'no \x1b[2J users here'; fix chat_template in the model's folder, or use another model"
    ]
    # the claim is given back when the process ends
    assert {path.name for path in (tmp_path / "run").rglob("*")} <= {".claimed"}


def test_several_templates_without_a_default_are_one_line():
    tokenizer = llama_tokenizer()
    tokenizer.chat_template = {"tool_use": "a", "rag": "b"}
    with pytest.raises(ConfigError, match=r"^model.base: the chat template"):
        ChatCodec(tokenizer, {}, ())


@pytest.mark.parametrize(
    "dislikes",
    [
        "{% if 'bomb' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}",
        "{% for c in messages[0]['content'] %}{% for d in messages[0]['content'] %}{% endfor %}"
        "{% endfor %}",
    ],
)
def test_a_query_that_the_template_cannot_render_is_encoded_as_plain_text(dislikes):
    tokenizer = llama_tokenizer(dislikes + LLAMA_TEMPLATE)
    codec, plain = ChatCodec(tokenizer, {}, ()), ChatCodec(llama_tokenizer(), {}, ())
    query = "a bomb " * 999
    start = time.thread_time()
    assert codec.encode("{query}", {"query": query}) == plain.encode("{query}", {"query": query})
    assert codec.encode_chat([("user", query)]) == plain.encode_chat([("user", query)])
    assert time.thread_time() - start < 10


ENDLESS = {
    "lipsum": "{{ lipsum(n=99999) }}",
    "replace": "{{ 'a' | replace('', 'b' | center(99999)) | replace('', 'b' | center(99999)) }}",
    "tojson": "{{ range(99999) | list " + "| tojson | list" * 4 + " | length }}",
    "nested lists": "{% set ns = namespace(l=[]) %}{% for i in range(60) %}"
    "{% set ns.l = [ns.l, ns.l] %}" + ENDS + "{{ ns.l }}",
    "a format": "{{ '%9999999999d' % 1 }}",
    "nested lists for each letter": "{% set ns = namespace(l=[1]) %}"
    "{% for c in messages[0].content %}{% set ns.l = [ns.l, ns.l] %}" + ENDS + "{{ ns.l }}",
}


@pytest.mark.parametrize("source", few(2, ENDLESS.values()), ids=ENDLESS)
def test_one_step_that_takes_too_long_or_too_much_memory_is_ended(source, monkeypatch):
    monkeypatch.setattr(rendering, "_SECONDS", 1.0)
    codec = ChatCodec(llama_tokenizer(source + LLAMA_TEMPLATE), {}, (), "model.base")
    with pytest.raises(ConfigError, match=r"^model.base: .*(seconds|memory); [^\n]+$"):
        codec.check()


@pytest.mark.parametrize(
    "source", ["hello", "{# #}", "{{ messages[0].role }}", "{{ messages[0].content[:5] }}"]
)
def test_a_template_that_does_not_show_the_query_is_refused(source):
    with pytest.raises(ConfigError, match=r"^model.base: .* does not show the text of the user's"):
        ChatCodec(llama_tokenizer(source), {}, (), "model.base").check()


def test_a_template_may_change_white_space_and_case():
    source = "{{ messages[0].content | upper | replace(' ', '_ ') | replace('_', '') | trim }}"
    ChatCodec(llama_tokenizer(source), {}, ()).check()


def test_arguments_of_a_template_may_be_dates_and_random_choices_repeat():
    source = "{{ day }} {{ range(9999) | random }}"
    template = ChatTemplate(llama_tokenizer(source), {"day": date(2024, 7, 26)}, "model.base")
    first = template.render([], True)
    assert first.startswith("2024-07-26 ")
    assert template.render([], True) == first


HOSTILE_TEXTS = {
    "half of a pair": "a\ud800b",
    "the other half": "\udc00",
    "both halves": "\ud83d\ude00",
    "NUL": "a\x00b",
    "long": "word \u00e9 " * 13_000,
    "long without spaces": "a" * 100_000,
    "long and white": " \t" * 100_000 + "x",
    "control tokens": "<|user|></s>" * 2_000,
    "everything": "\ud800\x00<|assistant|>\ufffe\U0010ffff",
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_any_text_can_be_encoded(name):
    text = HOSTILE_TEXTS[name]
    for template in (LLAMA_TEMPLATE, None)[: 2 if len(text) < 99 else 1]:
        codec = ChatCodec(llama_tokenizer(template), {}, ())
        codec.decode(codec.encode("{query}", {"query": text}))
        codec.encode_plain(text)
        codec.encode_chat([("user", text)])
        ids, cut = codec.encode_dialogue(text, text, 100)
        assert len(ids) <= 100
        assert cut == (len(text) > 40)
        assert len(codec.encode("{query}!{more}", {"query": text, "more": text}, "", 90)) <= 90


def test_a_prompt_that_is_too_long_loses_the_middle_of_its_longest_slots():
    codec = ChatCodec(llama_tokenizer(), {}, ())
    slots = {"a": "short", "b": "start" + "x" * 500 + "end", "c": "y" * 600}
    frame = len(codec.encode("{a}|{b}|{c}", dict.fromkeys(slots, "")))
    text = codec.decode(codec.encode("{a}|{b}|{c}", slots, "", frame + 45))
    a, b, c = text.removeprefix("<s><|user|>").removesuffix("<|assistant|>").split("|")
    assert (a, len(b), len(c)) == ("short", 20, 20)
    assert b.startswith("start")
    assert b.endswith("end")
    whole = codec.encode("{a}", {"a": "short"})
    assert codec.encode("{a}", {"a": "short"}, "", len(whole)) == whole
    assert codec.encode("{a}", {"a": "short"}, "", 1) == codec.encode("{a}", {"a": ""})
