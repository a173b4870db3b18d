"""Constraints: every kind, invalid blocks, and hostile answers and queries."""

from dataclasses import replace
from functools import partial

import pytest
from fast import assert_fast

from lsp_lightning.checks.constraints import (
    CONSTRAINT_TEMPLATE,
    KINDS,
    Constraint,
    parse_constraints,
)


def parse(*lines: str) -> list[Constraint] | None:
    block = "\n".join(f"- {line}" for line in lines)
    return parse_constraints(f"Write something about tigers.\n\nConstraints:\n{block}\n")


def read(line: str) -> Constraint:
    constraints = parse(line)
    assert constraints is not None, line
    (constraint,) = constraints
    assert constraint.text == line
    return constraint


#: Kind, a line that asks for it, answers that satisfy it, answers that do not.
CASES = [
    (
        "words",
        "at least 3 words",
        ["a b c", "na\u00efve re\u0301sume\u0301 \u4e2d"],
        ["a b", "a_b", "- . !"],
    ),
    ("words", "at most 2 words", ["it's well", "don\u2019t go"], ["a-b c", "a'b'c'd'e'f"]),
    ("words", "exactly 2 words", ["one\r\ntwo"], ["one", "one two three"]),
    ("words", "between 2 and 3 words", ["a b", "a b c"], ["a", "a b c d"]),
    ("words", "fewer than 3 words", ["a b"], ["a b c"]),
    ("words", "more than 2 words", ["a b c"], ["a b"]),
    (
        "sentences",
        "exactly 2 sentences",
        ["Pi is 3.14. Yes!", 'He said "no." Fine', "\u662f\u3002\u5426\u3002"],
        ["One.", "A. B. C."],
    ),
    ("paragraphs", "exactly 2 paragraphs", ["a\nb\n\n \nc", "a\r\n\r\nb"], ["a\nb", "a\n\nb\n\nc"]),
    ("lines", "at most 2 lines", ["a\n\n\nb", "a\r\nb\r\n"], ["a\nb\nc"]),
    ("characters", "exactly 3 characters", ["abc", " a c\n"], ["ab", "abcd"]),
    ("words per sentence", "at most 2 words in every sentence", ["A b. C d."], ["A b. C d e."]),
    ("words per line", "exactly 1 word in each line", ["a\nb"], ["a\nb c", "a\n-"]),
    (
        "bullet points",
        "exactly 2 bullet points",
        ["x\n- a\n* b", "\u2022 a\r\n  + b"],
        ["- a", "-a\n-b"],
    ),
    ("numbered items", "at least 2 numbered items", ["1. a\n2) b"], ["1.a\n2.b", "1. a"]),
    (
        "highlights",
        "at least 2 highlighted sections *like this*",
        ["*a* **b c**"],
        ["*a", "* a * b *"],
    ),
    ("placeholders", "at least 1 placeholder in square brackets", ["Dear [name]"], ["[]", "[\n]"]),
    ("parts", "exactly 2 parts separated by ***", ["a\n***\nb"], ["a", "a***b***c"]),
    ("word", 'include the word "tiger"', ["A TIGER!", "tiger-like"], ["tigers", ""]),
    ("word", "do not include the word Tiger", ["tigers"], ["the tiger"]),
    ("word", 'use the word "don\u2019t" exactly 2 times', ["don't, don\u2019t"], ["don't do not"]),
    ("phrase", 'include the phrase "big cat"', ["Big cats"], ["big  cat", "cat big"]),
    ("phrase", 'never mention the phrase "big cat"', ["cat"], ["a big cat"]),
    ("phrase", 'include the phrase "a b" at least 2 times', ["a b a b"], ["a b"]),
    ("letter", 'include the letter "e" at most 1 time', ["tiger", "no"], ["Eerie"]),
    ("letter", "do not use the letter e", ["tall"], ["TALE"]),
    ("capitalized words", "at least 1 word in all capitals", ["NASA is"], ["I am A b"]),
    ("palindromes", "at least 2 palindromes", ["Anna, level"], ["anna", "aa b"]),
    ("questions", "exactly 1 question mark", ["Why?"], ["Why", "a? b?"]),
    ("exclamation marks", "no exclamation marks", ["Hi."], ["Hi!"]),
    ("commas", "no commas", ["a; b"], ["a, b", "a\uff0cb"]),
    ("digits", "at least 2 digits", ["a1b2"], ["a1", "one"]),
    ("capital letters", "no capital letters", ["a 1", "\u4e2d"], ["a B", "\u00c9"]),
    ("capital letters", "at least 2 capital letters", ["A b C"], ["Ab", "A 1"]),
    ("quotation marks", "no quotation marks", ["it's"], ['a "b"', "\u201ca\u201d", "\u201ea"]),
    ("quotation marks", "exactly 2 double quotes", ['a "b"'], ['"a', '"a" "b"']),
    ("punctuation marks", "no punctuation marks", ["a b", "a = b"], ["a.", "it's", "a\u3002"]),
    ("punctuation marks", "no punctuation", ["a b"], ["a, b"]),
    (
        "bold",
        "no bold text",
        ["a__b__c", "__init__x", "*a*", "** a **", "2 ** 3"],
        ["**a**", "a __b c__", "___both___"],
    ),
    ("bold", "at least two bold texts", ["**a** and **b c**"], ["**a**", "**a\nb**", "****"]),
    ("bold", "no bold formatting", ["a"], ["**a**"]),
    (
        "JSON list",
        "a JSON list of exactly 2 items",
        ['[1, {"a": []}]', "[[],[]]"],
        ["[1]", "{}", "1, 2"],
    ),
    ("start", 'start with "Dear"', ["dear you", "\n DEAR"], ["Oh dear", "De ar"]),
    ("end", 'finish with "the end."', ["This is THE END.\n"], ["the end", "the end. Not."]),
    (
        "JSON",
        "valid JSON",
        ['{"a": 1}', " [] \n"],
        ["5", '"a"', "{a: 1}", "[NaN]", "[1] 2", "[1,]"],
    ),
    (
        "JSON object",
        'a JSON object with the keys "a" and "B"',
        ['{"B": 1, "a": 2, "c": 3}'],
        ['{"a": 1, "b": 2}', "[]"],
    ),
    ("lower case", "all lower case", ["a b 1 \u00fc"], ["A b", "12"]),
    ("capitals", "all in capitals", ["A B 1 \u00dc"], ["A b", "12"]),
    (
        "quoted",
        "wrapped in double quotes",
        ['"a"', ' "a "b" c"\n'],
        ['"', '""', '" "', "'a'", '"a" b'],
    ),
    (
        "title",
        "include a title in <<double angle brackets>>",
        ["<<A>>\nb", "x <<a b>>"],
        ["<<>>", "<< >>", "<a>", "<<a\n>>"],
    ),
    ("line initial", 'every line starts with the letter "s"', ["Sun\n\n sea"], ["sun\nmoon", "1"]),
    (
        "acrostic",
        'the first letters of the lines spell "CAT"',
        ["Come\nand\ntry"],
        ["Come\nand", "c\na\nt\ns"],
    ),
    ("no repeated lines", "no repeated lines", ["a\nb"], ["a\nb\n a", "a"]),
    ("no repeated words", "no repeated words", ["a b"], ["a b A", "a"]),
    (
        "sorted lines",
        "the lines in alphabetical order",
        ["apple\nBread\nbread\ncake"],
        ["b\na", "a"],
    ),
]


@pytest.mark.parametrize(("kind", "line", "keep", "fail"), CASES)
def test_every_kind_accepts_and_refuses(kind, line, keep, fail):
    constraint = read(line)
    assert constraint.kind == kind
    assert [answer for answer in keep if not constraint.holds(answer)] == []
    assert [answer for answer in fail if constraint.holds(answer)] == []


def test_every_kind_has_an_example():
    assert {case[0] for case in CASES} == {*KINDS}
    assert len(KINDS) == len({*KINDS}) >= 25


@pytest.mark.parametrize("line", dict.fromkeys(case[1] for case in CASES))
def test_a_blank_or_huge_answer_satisfies_no_constraint(line):
    constraint = read(line)
    for answer in ["", " \r\n\t", "\u2003", "a b " * 100_000]:
        assert not constraint.holds(answer)


@pytest.mark.parametrize("unit", ["words", "lines", "commas", "digits", "bullet points"])
@pytest.mark.parametrize("bound", [2, 3, 7])
def test_bounds_are_inclusive(unit, bound):
    item = {"words": "a ", "lines": "a\n", "commas": "a,", "digits": "1", "bullet points": "- a\n"}
    least, most = read(f"at least {bound} {unit}"), read(f"at most {bound} {unit}")
    exact, range_ = read(f"exactly {bound} {unit}"), read(f"between {bound} and {bound + 1} {unit}")
    for n in range(1, 10):
        answer = item[unit] * n
        assert least.holds(answer) == (n >= bound)
        assert most.holds(answer) == (n <= bound)
        assert exact.holds(answer) == (n == bound)
        assert range_.holds(answer) == (bound <= n <= bound + 1)


@pytest.mark.parametrize(
    "line",
    [
        "Use at least 3 words.",
        "AT LEAST 3 WORDS",
        "no fewer than 3 words",
        "write  no less   than 3 words",
        "more than 2 words",
        "at least three words",
        "no less than Three words",
    ],
)
def test_other_wordings_give_the_same_constraint(line):
    constraint = read(line)
    assert (constraint.kind, constraint.low, constraint.high) == ("words", 3, float("inf"))


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("in all capitals", "all capitals"),
        ("all uppercase", "all capitals"),
        ("all lowercase", "all lower case"),
        ("no uppercase letters", "no capital letters"),
        ("use no quotes", "no quotation marks"),
        ("2 to 4 sentences", "between 2 and 4 sentences"),
        ("between three and five sentences", "between 3 and 5 sentences"),
        ("at least twelve words", "at least 12 words"),
        ("at least 20 words long", "at least 20 words"),
        ("zero commas", "no commas"),
        ("Do not use any commas.", "no commas"),
        ("without any commas", "no commas"),
        ("avoid commas", "no commas"),
        ("do not use commas", "no commas"),
        ("avoid using commas", "no commas"),
        ("avoid the letter e", 'do not include the letter "e"'),
        ("write in all caps", "all capitals"),
        ("3-5 words", "between 3 and 5 words"),
        ("at least 2 questions marks", "at least 2 question marks"),
        ('includes the word "x"', 'include the word "x"'),
        ('ends with "So."', 'end with "So."'),
        ("between 3 to 5 words", "between 3 and 5 words"),
        ("do not use more than 3 commas", "at most 3 commas"),
        ("at most 2 exclamation points", "at most 2 exclamation marks"),
        ('avoid the word "x"', 'do not include the word "x"'),
        ("include the word 'x'", 'include the word "x"'),
    ],
)
def test_usual_wordings_are_understood(line, same):
    one, other = read(line), read(same)
    assert replace(one, text="") == replace(other, text="")


def test_a_quoted_text_is_taken_as_it_stands():
    assert read('include the phrase "no quotes"').arguments == ("no quotes",)
    assert read("include the word quotes").arguments == ("quotes",)
    assert read("the first letters of the lines spell quotes").arguments == ("quotes",)
    assert parse_constraints("Go.\nConstraints:\n- include the word lines long") is None
    assert read('start with "Without any uppercase letters"').arguments[0].startswith("Without")


def test_a_block_may_be_formatted_in_many_ways():
    query = (
        "Constraints: none\r\nGo.\r\n\r\n**CONSTRAINTS:**\r\n* no commas\r\n\r\n\u2022 3 words\r\n"
    )
    constraints = parse_constraints(query)
    assert [(c.kind, c.low, c.high) for c in constraints] == [("commas", 0, 0), ("words", 3, 3)]
    (keys,) = parse('a JSON object with the keys \u201ca\u201d, "b", and "c d"')
    assert keys.arguments == ("a", "b", "c d")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "Write a poem.",
        "Write.\nConstraints:",
        "Write.\nConstraints:\n",
        "Constraints:\n- no commas",  # nothing to do
        "Write.\nConstraints:\n- no commas\nThanks!",
        "Write.\nConstraints:\n- be funny",
        "Write.\nConstraints: no commas",
        "Write.\nConstraints:\nno commas",
        "Write.\nConstraints:\n- no commas\n- ",
        "Write.\nConstraints:\n" + "".join(f"- at least {i} words\n" for i in range(2, 13)),
        "Write.\nConstraints:\n- " + "at least " * 100_000,
        "Write.\n" + "Constraints:\n" * 1000,
    ],
)
def test_queries_without_a_valid_block(query):
    assert parse_constraints(query) is None


@pytest.mark.parametrize(
    "line",
    [
        "at least 0 words",
        "at least 1 word",  # every answer has one
        "at most 0 words",
        "exactly 0 lines",
        "no characters",
        "between 5 and 4 words",
        "fewer than 0 commas",
        "at least 0 commas",
        "at most 10001 words",
        "at least 999999 words",
        "at least 1000000 words",
        "at least 3.5 words",
        "at least -3 words",
        "at least thirty words",
        "at least \u0663 words",
        'include the word "two words"',
        'include the word ""',
        'include the phrase " "',
        'start with ""',
        'start with "a',
        "a JSON object with the keys",
        'a JSON object with the keys "a", "a"',
        "include the letter ab 2 times",
        'every line starts with the letter "\u00df"',
        "no commas; no digits",
    ],
)
def test_lines_that_are_unknown_or_restrict_nothing(line):
    assert parse(line) is None


@pytest.mark.parametrize(
    "lines",
    [
        ("at least 50 words", "at most 10 words"),
        ("no commas", "no commas"),
        ("no commas", "at least 2 commas"),
        ('include the word "tiger"', 'do not include the word "Tiger"'),
        ('include the phrase "a tiger runs"', 'do not include the word "tiger"'),
        ('start with "Hello, you"', "no commas"),
        ('start with "Hello"', 'start with "Bye"'),
        ('end with "end"', 'end with "over"'),
        ('end with "no more"', "do not include the letter o"),
        ('include the phrase "one two three"', "at most 2 words"),
        ("all lower case", "all capitals"),
        ("all lower case", "at least 1 word in all capitals"),
        ("valid JSON", "exactly 3 numbered items"),
        ('a JSON object with the keys "a"', "exactly 3 numbered items"),
        ('a JSON object with the keys "a"', "a JSON list of exactly 3 items"),
        ("valid JSON", "wrapped in double quotes"),
        ("valid JSON", 'start with "Dear"'),
        ("wrapped in double quotes", 'start with "Dear"'),
        ("every line starts with the letter s", "exactly 2 bullet points"),
        ("at least 10 sentences", "at most 5 words"),
        ("at least 100 words", "at most 50 characters"),
        ("at least 3 paragraphs", "at most 2 lines"),
        ('include the letter "z" at least 5 times', 'do not include the letter "Z"'),
        ('include the phrase "Big cat"', 'include the phrase "big cat"'),
        ('include the word "cat" 2 times', 'include the word "CAT" 3 times'),
        ("exactly 1 line", "no repeated lines"),
        ("at most 1 line", "the lines in alphabetical order"),
        ("exactly 1 word", "no repeated words"),
        ("fewer than 4 lines", 'the first letters of the lines spell "lion"'),
        ("at most 3 words", 'the first letters of the lines spell "lion"'),
        ("no commas", "a JSON list of at least 2 items"),
        ("no commas", 'a JSON object with the keys "a" and "b"'),
        ("no digits", "at least 1 numbered item"),
        ("no capital letters", "all capitals"),
        ("no capital letters", "at least 1 word in all capitals"),
        ("all lower case", "at least 1 capital letter"),
        ("no punctuation", "at least 1 question mark"),
        ("no punctuation", "valid JSON"),
        ("no punctuation marks", "a JSON list of 2 items"),
        ("no quotation marks", 'a JSON object with the keys "name"'),
        ('do not include the word "upon"', 'start with "Once upon a time"'),
        ("3 bold texts", "at most 14 characters"),
        ("no punctuation", "wrapped in double quotes"),
        ("no double quotes", "wrapped in double quotes"),
        ("no quotation marks", "at least 2 double quotes"),
        ("no punctuation", 'end with "The end."'),
        ("no punctuation", "at least 1 bold text"),
        ("at most one word", "between two and three words"),
    ],
)
def test_visible_contradictions_and_repetitions_are_refused(lines):
    assert parse(*lines) is None
    assert parse(*reversed(lines)) is None
    assert parse(lines[0]) is not None
    assert parse(lines[1]) is not None


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (("at least 2 words", "at most 4 words", "no commas"), "one two three"),
        (('start with "Dear"', 'start with "dear friend"'), "Dear friend, hello"),
        (("all lower case", 'include the word "Tiger"'), "a tiger"),
        (("valid JSON", 'start with "{"', "no bullet points"), '{"a": 1}'),
        (("exactly 3 bullet points", "exactly 3 lines"), "- a\n- b\n- c"),
        (("do not include the letter e", "include the word tall"), "tall"),
        (("exactly 4 lines", "the first letters of the lines spell lion"), "l\ni\no\nn"),
        (("at most 2 lines", "no repeated lines", "the lines in alphabetical order"), "a\nb"),
        (("exactly 2 words", "no repeated words"), "one two"),
        (("no commas", "a JSON list of exactly 1 item"), "[1]"),
        (("no commas", 'a JSON object with the keys "a"'), '{"a": 1}'),
        (("exactly 2 digits", "exactly 2 numbered items"), "1. a\n2. b"),
        (('include the letter "z" 2 times', 'do not include the letter "E"'), "zz"),
        (("at least one capital letter", "no commas", "no bold text"), "One two"),
        (("no punctuation", "at least one word in all capitals"), "SO it is"),
        (("no punctuation", "at least 2 bullet points"), "+ one\n+ two"),
        (("no capital letters", 'start with "The"', 'include the word "Paris"'), "the paris"),
        (('start with "The"', 'do not include the word "the"'), "There it is"),
        (('include the phrase "cat"', 'do not include the word "cat"'), "we concatenate"),
        (('end with "port"', 'do not include the word "port"'), "an airport"),
        (("at least 2 words in all capitals", "at most 2 capital letters"), "A1 B2 go"),
        (("no double quotes", "no punctuation marks"), "so"),
        (('a JSON object with the keys "a"', 'a JSON object with the keys "A"'), '{"a":1,"A":2}'),
    ],
)
def test_constraints_that_go_together(lines, answer):
    constraints = parse(*lines)
    assert len(constraints) == len(lines)
    assert all(constraint.holds(answer) for constraint in constraints)


HOSTILE = [
    "a" * 10**6,
    "a " * 50_000,
    "." * 100_000,
    ".)" * 50_000,
    "\n" * 99_000 + "a",
    "\n \t" * 33_000 + "a",
    "*a " * 33_000,
    "**" * 50_000,
    "**a " * 25_000,
    "__a " * 25_000,
    "[" * 100_000,
    "<<" * 50_000,
    "<<" + " " * 99_000,
    '"' * 100_000,
    "[" * 49_000 + "]" * 49_000,
    '{"a":' * 19_000 + "1" + "}" * 4_000,
    "[" + "9" * 90_000 + "]",
    "a'" * 50_000,
    "a\u0301\u0327" * 33_000,
    "\ud800\0\u202e" * 33_000,
    "1. a\n" * 19_000,
    "\u00df" * 100_000,
    "- " * 50_000,
    *(mark * 99_000 + "x" for mark in ".!)*<>["),
    *(mark + "a" * 99_000 for mark in ["<<", "*", "[", ".", '"', "1. "]),
    *(f"{mark}a " * 20_000 for mark in ["<<", "*", "[", ".", '"', "1. "]),
]


@pytest.mark.parametrize("line", dict.fromkeys(case[1] for case in CASES))
def test_hostile_answers_are_checked_fast(line):
    constraint = read(line)
    for answer in HOSTILE:
        assert_fast(partial(constraint.holds, answer), 0.2, answer[:20])


def test_hostile_queries_are_parsed_fast():
    for answer in HOSTILE:
        for query in (answer, f"Go.\nConstraints:\n- {answer}", f"Go.\nConstraints:\n{answer}"):
            assert parse_constraints(query) is None
            assert_fast(partial(parse_constraints, query), 0.2, answer[:20])


def test_the_template_shows_the_grammar_and_is_itself_invalid():
    assert len(CONSTRAINT_TEMPLATE) <= 2500
    assert "\nConstraints:\n- " in CONSTRAINT_TEMPLATE
    assert parse_constraints(CONSTRAINT_TEMPLATE) is None
    for shown in ("at least N", "RANGE words", "valid JSON", "do not include the word WORD"):
        assert shown in CONSTRAINT_TEMPLATE


def test_equal_lines_give_equal_constraints():
    constraint = read("at most 5 words")
    assert constraint == Constraint("words", (), 0, 5, "at most 5 words")
    assert hash(constraint) == hash(read("at most 5 words"))
