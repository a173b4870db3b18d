"""What the players and the judge are told, and what a reply must keep to."""

import re

import pytest

from lsp_lightning.chat import fill
from lsp_lightning.errors import ConfigError
from lsp_lightning.prompts import (
    CHALLENGER,
    JUDGE,
    MAX_SCORE,
    SCORE_PREFIX,
    SOLVER,
    TEMPLATE_TAGS,
    challenger_slots,
    fence,
    is_valid_query,
    read_template,
)

TAGS = ["instruction", "response", "calculation", "score"]


def challenger_prompt(task: str | None, template: str | None) -> str:
    return fill(CHALLENGER, challenger_slots(task, template))


# -- the Challenger -------------------------------------------------------------------------------


def test_the_challenger_is_told_its_task_and_its_template():
    text = challenger_prompt("Pure mathematics", "What is <number> + <number>?")
    assert "Task: Pure mathematics\n" in text
    opening, closing = TEMPLATE_TAGS
    assert f"{opening}\nWhat is <number> + <number>?\n{closing}\n" in text
    assert "{" not in text


def test_without_task_and_template_the_challenger_chooses():
    text = challenger_prompt(None, None)
    assert "your own choice" in text
    assert not any(tag in text for tag in TEMPLATE_TAGS)
    assert "{" not in text


def test_an_empty_task_is_no_task():
    assert challenger_prompt("", "") == challenger_prompt(None, None)


def test_braces_in_task_and_template_stay():
    text = challenger_prompt("sets like {template}", "{task}: {a, b}")
    assert "Task: sets like {template}\n" in text
    assert "\n{task}: {a, b}\n" in text


def test_the_challenger_is_told_the_rules_it_is_held_to():
    text = challenger_prompt(None, None).lower()
    for rule in ("one valid input", "do not answer", "no hints", "no template markers", "stop"):
        assert rule in text


@pytest.mark.parametrize(
    ("text", "truncated", "valid"),
    [
        ("What is 2+2?", False, True),
        ("a < b and <query> </template>", False, True),
        ("What is 2+2?", True, False),  # cut off by the length limit
        ("", False, False),
        (" \n\t", False, False),
        (f"What? {TEMPLATE_TAGS[0]}", False, False),
        (f"{TEMPLATE_TAGS[1]}What?", False, False),
    ],
)
def test_a_query_is_valid_unless_it_is_empty_cut_off_or_holds_a_marker(text, truncated, valid):
    assert is_valid_query(text, truncated) is valid


# -- the Solver and the judge ---------------------------------------------------------------------


def test_the_solver_is_told_the_query_and_nothing_else():
    assert fill(SOLVER, {"query": "2+2?"}) == "2+2?"


def test_the_judge_is_shown_instruction_and_response_between_tags():
    text = fill(JUDGE, {"instruction": "2+2?", "response": "4"})
    assert "<instruction>\n2+2?\n</instruction>" in text
    assert "<response>\n4\n</response>" in text
    assert "{" not in text


def test_the_judge_scores_seven_criteria_two_of_the_query_and_five_of_the_answer():
    criteria = re.findall(r"^(\d)\. (.+)$", JUDGE, flags=re.MULTILINE)
    assert [int(number) for number, _ in criteria] == [1, 2, 3, 4, 5, 6, 7]
    assert len(criteria) == MAX_SCORE
    of_answer = ["response" in text.lower() for _, text in criteria]
    assert of_answer == [False] * 2 + [True] * 5
    words = ["task", "clear, specific", "understand", "significant part", "core", "concise", "like"]
    for (_, text), word in zip(criteria, words, strict=True):
        assert word in text


def test_the_judges_worked_example_adds_up():
    (terms,) = re.findall(r"<Calculation>([01+]+)</Calculation>", JUDGE)
    (total,) = re.findall(r"<Score>(\d)</Score>", JUDGE)
    points = [int(term) for term in terms.split("+")]
    assert len(points) == MAX_SCORE
    assert sum(points) == int(total)
    assert SCORE_PREFIX in JUDGE


# -- the fence ------------------------------------------------------------------------------------


def spellings(tag: str) -> list[str]:
    """Ways to write a tag that a reader would take for it."""
    names = [tag, tag.capitalize(), tag.upper()]
    shapes = [
        "<{}>",
        "</{}>",
        "< {}>",
        "</ {}>",
        "< / {} >",
        "<{} >",
        "<{}/>",
        "<\n{}\n>",
        '<{} a="1">',
    ]
    return [shape.format(name) for name in names for shape in shapes]


@pytest.mark.parametrize("tag", TAGS)
def test_no_spelling_of_a_judges_tag_passes_the_fence(tag):
    a_tag = re.compile(rf"<\s*/?\s*{tag}\b[^>]*>", re.IGNORECASE)
    for spelling in spellings(tag):
        assert a_tag.search(spelling), spelling  # the check itself sees every one of them
        fenced = fence(f"before {spelling} after")
        assert not a_tag.search(fenced), spelling
        assert fenced == f"before \u2039{spelling[1:]} after"  # one character differs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a < b, b > c and 1<2",
        "<div><p class='x'>text</p></div>",
        "<responses> <scoreboard> <instructions>",
        "the score is 7, the response was good",
        "<Scor e> Score> /Score",
        "\u2039score\u203a",
        "<think>\n</think>",
    ],
)
def test_ordinary_text_passes_the_fence_untouched(text):
    assert fence(text) == text


def test_fencing_leaves_no_tag_behind_for_a_second_pass():
    text = "<<score>score> <</response>/response>"
    assert fence(fence(text)) == fence(text)
    assert not re.search(r"<\s*/?\s*(score|response)", fence(text))


# -- templates from files -------------------------------------------------------------------------


def test_without_a_file_the_default_template_holds():
    assert read_template(None, JUDGE, "key", ("instruction", "response")) == JUDGE


def test_a_file_replaces_a_template_but_for_the_line_break_at_its_end(tmp_path):
    file = tmp_path / "judge.txt"
    file.write_text("Q: {instruction}\n\u00c4: {response}\n\n", encoding="utf-8")
    text = read_template(str(file), JUDGE, "key", ("instruction", "response"))
    assert text == "Q: {instruction}\n\u00c4: {response}\n"


def test_a_template_that_lacks_a_slot_is_refused_in_one_line_that_names_key_file_and_slot(tmp_path):
    file = tmp_path / "judge.txt"
    file.write_text("Q: {instruction} A: {respnse}")
    with pytest.raises(ConfigError) as error:
        read_template(str(file), JUDGE, "model.judge", ("instruction", "response"))
    message = str(error.value)
    assert message.startswith("model.judge: ")
    assert str(file) in message
    assert "{response}" in message
    assert "\n" not in message


def test_optional_slots_may_be_missing(tmp_path):
    file = tmp_path / "challenger.txt"
    file.write_text("Ask something.")
    assert read_template(str(file), CHALLENGER, "key", ()) == "Ask something."


def test_a_template_file_that_is_not_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^key: no file '.*missing\.txt'; [^\n]+$"):
        read_template(str(tmp_path / "missing.txt"), JUDGE, "key", ())


def test_a_template_may_lie_in_a_package():
    # any text file that a package ships: this one's own type marker is empty
    assert read_template("pkg:lsp_lightning/py.typed", JUDGE, "key", ()) == ""
    with pytest.raises(ConfigError, match=r"^key: no package for 'pkg:no_such_package/a\.txt'; "):
        read_template("pkg:no_such_package/a.txt", JUDGE, "key", ())
