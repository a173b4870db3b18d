"""The verifier gives right answers 1 and all others 0."""

from lsp_lightning.tinyworld.verifier import TinyWorldVerifier


def test_right_up_to_white_space_and_nothing_more():
    answers = ["12", " 12\n", "12.", "012", "1 2", "idk", ""]
    assert TinyWorldVerifier().check("7+5=?", answers) == [1, 1, 0, 0, 0, 0, 0]


def test_malformed_queries_have_no_right_answer():
    assert TinyWorldVerifier().check("7+5", ["12", "", "?"]) == [0, 0, 0]
    assert TinyWorldVerifier().describe("7+5") is None


def test_the_solution_is_not_used():
    assert TinyWorldVerifier().check("7+5=?", ["12", "13"], solution="13") == [1, 0]


def test_no_answers_no_rewards():
    assert TinyWorldVerifier().check("7+5=?", []) == []


def test_describe_gives_family_and_level():
    assert TinyWorldVerifier().describe("sort 5162") == {"family": "sort", "level": 2}
