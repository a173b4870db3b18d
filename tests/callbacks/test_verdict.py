"""What the first round of a run promises: every symptom is counted, named, and given its key."""

import inspect
import re
from dataclasses import fields, replace

import pytest
import torch
from handmade import FixedReward, playout, rollouts, scored_round

from lsp_lightning import Challenger, LengthReward, PromptFile, Sampling, SelfPlayDataModule
from lsp_lightning.callbacks.groups import differing_groups
from lsp_lightning.callbacks.remedies import Remedies
from lsp_lightning.callbacks.verdict import pilot_verdict
from lsp_lightning.types import Written

NAN = float("nan")
CHALLENGER = SelfPlayDataModule(
    Challenger(sampling=Sampling(temperature=0.9, max_new_tokens=96)),
    solver=Sampling(max_new_tokens=48),
)


def reward(name="r", binary=True, span=None, **kwargs):
    made = FixedReward(None, name=name, **kwargs)
    made.binary, made.span = binary, span
    return made


RIGHT = reward()
JUDGE = reward("judge", binary=False, span=(0.0, 1.0), enters="quality")


def game(R, quality=None, malformed=None, cut=0, **round_):
    """A scored round with these R, and ``cut`` cut-off answers; by RIGHT, and by JUDGE if Q."""
    scores_NG = torch.tensor(R)
    played = scored_round(
        scores_NG.nan_to_num().tolist(), judged=(~scores_NG.isnan()).tolist(), **round_
    )
    answers = replace(played.playout.answers, truncated=torch.arange(scores_NG.numel()) < cut)
    return replace(
        played,
        playout=replace(played.playout, answers=answers),
        components={"r": scores_NG, "judge": torch.tensor(quality or R)},
        query_info={} if malformed is None else {"r/malformed": tuple(malformed)},
    )


def findings(played, *rewards, data=CHALLENGER, **kwargs):
    """The lines of a verdict by subject, and whether the game can start."""
    verdict = pilot_verdict(played, rewards or [RIGHT], data, **kwargs)
    return {f.subject: f for f in verdict.findings}, verdict.can_start


MIXED, WRONG, SAME = [1.0, 0.0, 1.0, 0.0], [0.0] * 4, [1.0] * 4


def test_a_good_round_is_ok_in_every_line_and_is_one_line_in_fit():
    played = game([MIXED] * 3 + [WRONG], quality=[[0.2, 0.9, 0.5, 0.4]] * 4, malformed=[False] * 4)
    seconds = {"queries": 10.0, "answers": 20.0, "rewards": 2.0, "update": 4.0}
    verdict = pilot_verdict(played, [RIGHT, JUDGE], CHALLENGER, seconds, rounds=200)
    assert verdict.can_start
    # 36 s times 200 rounds are two hours
    assert verdict.lines(200) == [
        "queries  ok       4 of 4 well-formed",
        "R        ok       differs in 3 of 4 groups (1 all wrong), mean 0.38",  # 6 of 16 are right
        # .3, .4, 0 and .1 from the mean: the root of .26 / 4
        "Q        ok       'judge' 0.20 to 0.90, standard deviation 0.25 in a group",
        "length   ok       0 of 4 queries, 0 of 16 answers cut off",
        "time     ok       36.0 s a round (queries 10.0, answers 20.0, rewards 2.0, update 4.0); "
        "200 rounds take about 2.0 h",
        "the game can start",
    ]
    assert verdict.lines(60)[6:9] == [
        "time     ok       36.0 s a round (queries 10.0, answers",
        "                  20.0, rewards 2.0, update 4.0); 200 rounds",
        "                  take about 2.0 h",
    ]
    assert pilot_verdict(played, [RIGHT, JUDGE], CHALLENGER).short() == [
        "pilot: queries 4 of 4 well-formed; R differs in 3 of 4 groups (1 all wrong), mean 0.38"
    ]


# -- queries ---------------------------------------------------------------------------------------


def test_a_model_that_writes_nothing_well_formed_is_told_what_to_change():
    found, can_start = findings(game([WRONG] * 4, malformed=[True] * 4))
    assert not can_start
    assert (found["queries"].word, found["R"].word) == ("none", "none")
    assert found["queries"].figure.startswith("0 of 4 well-formed (4 malformed): no query had a ")
    for words in (
        "the form that the verifier reads",
        "examples (data.queries.init_args.examples)",
        "opening (data.queries.init_args.opening)",
        "lower temperature (data.queries.init_args.sampling.temperature, now 0.9)",
    ):
        assert words in found["queries"].remedy
    assert found["R"].remedy == "this follows from the queries"


def test_examples_and_an_opening_that_are_given_are_not_asked_for(tmp_path):
    (tmp_path / "examples.txt").write_text("a\nb\nc\n")
    source = Challenger(examples=str(tmp_path / "examples.txt"), num_examples=2, opening="Write")
    remedy = Remedies(SelfPlayDataModule(source)).queries_in_form
    assert "give more examples (data.queries.init_args.num_examples), another prompt" in remedy
    assert "opening" not in remedy


def test_every_setting_that_a_remedy_names_exists():
    texts = " ".join(
        getattr(Remedies(CHALLENGER), name)
        for name, value in vars(Remedies).items()
        if isinstance(value, property)
    )
    named = set(re.findall(r"data\.queries\.init_args\.([\w.]+\w)", texts))
    settings = set(inspect.signature(Challenger).parameters)
    settings |= {f"sampling.{field.name}" for field in fields(Sampling)}
    assert {"examples", "opening", "sampling.stop", "sampling.temperature"} <= named
    assert named <= settings
    of_data = set(re.findall(r"data\.(?!queries|solver)(\w+)", texts))
    assert of_data <= set(inspect.signature(SelfPlayDataModule).parameters)


@pytest.mark.parametrize(
    ("good", "total", "word", "can_start"),
    [
        (0, 12, "none", False),
        (1, 12, "low", True),  # 12 // 10 = 1
        (1, 20, "too few", False),  # 20 // 10 = 2
        (2, 20, "low", True),
        (1, 3, "low", True),
        (1, 2, "ok", True),
    ],
)
def test_one_query_in_ten_must_be_well_formed(good, total, word, can_start):
    malformed = [i >= good for i in range(total)]
    found, can = findings(game([MIXED] * total, malformed=malformed))
    assert (found["queries"].word, can) == (word, can_start)
    assert found["queries"].figure.startswith(f"{good} of {total} well-formed")


def test_a_query_is_counted_as_written():
    """Of six written rows two are answered: one invalid, one malformed; four sorted out."""
    written = Written(
        rollouts("abcdef"),
        valid_C=torch.tensor([True, False, True, True, True, True]),
        answered_C=torch.tensor([0, 1, -1, -1, -1, -1]),
        baseline_C=torch.zeros(6, dtype=torch.long),
    )
    played = game([WRONG, MIXED], malformed=[True, False])
    played = replace(played, playout=replace(played.playout, written=written))
    found, can_start = findings(played)
    assert found["queries"].figure.startswith("0 of 6 well-formed (5 invalid, 1 malformed)")
    assert not can_start


def test_without_a_verifier_the_form_rules_alone_count():
    found, _ = findings(game([MIXED] * 4, valid=[True, True, False, True]))
    assert found["queries"].text == "3 of 4 well-formed (1 invalid)"


def test_a_verifier_that_only_logs_says_nothing_about_queries():
    logged = reward("true", weight=0.0)
    played = game([MIXED] * 4)
    played = replace(played, query_info={"true/malformed": (True,) * 4})
    found, can_start = findings(played, RIGHT, logged)
    assert found["queries"].text == "4 of 4 well-formed"
    assert can_start


def test_queries_that_are_cut_off_need_more_tokens():
    played = game([MIXED] * 4, valid=[False, False, False, True])
    cut = rollouts("abcd", truncated=[True, True, True, False])
    written = Written.all_answered(cut, [False, False, False, True])
    played = replace(played, playout=replace(played.playout, written=written))
    found, can_start = findings(played)
    assert can_start
    assert (found["queries"].word, found["length"].word) == ("low", "cut off")
    for name in ("queries", "length"):
        assert "data.queries.init_args.sampling.max_new_tokens" in found[name].remedy


def test_the_cause_of_most_bad_queries_is_named():
    """Nothing follows the opening in three of four; the fourth has no right answer."""
    source = Challenger(opening="Write", sampling=Sampling(stop="\n"))
    data = SelfPlayDataModule(source)
    played = game([WRONG] * 4, malformed=[True] * 4, valid=[False, False, False, True])
    written = Written.all_answered(rollouts(["", " ", "", "a"]), [False, False, False, True])
    played = replace(played, playout=replace(played.playout, written=written))
    found, can_start = findings(played, data=data)
    assert not can_start
    assert found["queries"].text == (
        "0 of 4 well-formed (3 invalid, 1 malformed); shorten the opening "
        "(data.queries.init_args.opening), or change data.queries.init_args.prompt"
    )


def test_a_stop_text_that_is_given_is_not_asked_for():
    data = SelfPlayDataModule(Challenger(sampling=Sampling(stop="\n")))
    assert Remedies(data).longer_queries == ("raise data.queries.init_args.sampling.max_new_tokens")


def test_queries_of_a_file_are_not_written(tmp_path):
    path = tmp_path / "tasks.txt"
    path.write_text("a\nb\n")
    data = SelfPlayDataModule(PromptFile(str(path)))
    found, can_start = findings(game([MIXED, WRONG], from_file=True), data=data)
    assert found["queries"].word == "-"
    assert found["length"].figure == "0 of 8 answers cut off"
    assert can_start
    hard, can_start = findings(game([WRONG, WRONG], from_file=True), data=data)
    assert hard["R"].remedy == "ask for easier queries (data.queries.init_args.path)"
    assert not can_start
    played = game([WRONG, WRONG], from_file=True, malformed=[True, True])
    found, can_start = findings(played, data=data)
    assert found["queries"].remedy.startswith("change data.queries.init_args.path")
    assert not can_start


# -- R ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "figure", "word", "remedy"),
    [
        ([WRONG] * 3 + [SAME], "0 of 4 groups (3 all wrong, 1 all right)", "none", "medium"),
        ([WRONG] * 4, "0 of 4 groups (4 all wrong)", "none", "easier"),
        ([SAME] * 4, "0 of 4 groups (4 all right)", "none", "harder"),
        ([[NAN] * 4] * 4, "0 of 4 groups (4 not judged)", "none", "change the reward"),
        ([MIXED] + [WRONG] * 5, "1 of 6 groups (5 all wrong)", "low", "easier"),
        ([MIXED] + [SAME] * 5, "1 of 6 groups (5 all right)", "low", "harder"),
        ([MIXED] + [[NAN] * 4] * 5, "1 of 6 groups (5 not judged)", "low", "change the reward"),
        ([MIXED] + [WRONG] * 19, "1 of 20 groups (19 all wrong)", "too few", "easier"),
        ([MIXED] + [WRONG] * 3, "1 of 4 groups (3 all wrong)", "ok", ""),
    ],
)
def test_groups_are_counted_by_what_makes_them_alike(groups, figure, word, remedy):
    found, can_start = findings(game(groups))
    assert found["R"].figure.startswith(f"differs in {figure}")
    assert found["R"].word == word
    assert remedy in found["R"].remedy
    assert bool(found["R"].remedy) == bool(remedy)
    assert can_start == (word in ("ok", "low"))


@pytest.mark.parametrize(
    ("groups", "malformed", "counts", "remedy"),
    [
        ([MIXED] + [WRONG] * 3 + [SAME] * 5, 3, "3 not well-formed, 5 all right", "harder"),
        ([MIXED] + [WRONG] * 5, 2, "2 not well-formed, 3 all wrong", "easier"),
        ([MIXED] + [WRONG] * 5, 4, "4 not well-formed, 1 all wrong", "follows from the queries"),
        # half are well-formed, which is enough: the others tell what to change
        ([MIXED] + [WRONG] * 4 + [SAME] * 3, 4, "4 not well-formed, 3 all right", "harder"),
    ],
)
def test_answers_to_queries_without_form_say_nothing_about_difficulty(
    groups, malformed, counts, remedy
):
    """The malformed queries are the first after the group that differs; R is 0 for all of them."""
    verdicts = [0 < i <= malformed for i in range(len(groups))]
    found, _ = findings(game(groups, malformed=verdicts))
    mean = sum(map(sum, groups)) / (4 * len(groups))
    assert found["R"].figure == f"differs in 1 of {len(groups)} groups ({counts}), mean {mean:.2f}"
    assert found["R"].word == "low"
    assert remedy in found["R"].remedy


def test_answers_to_invalid_queries_are_counted_as_such():
    played = game([MIXED] + [WRONG] * 2 + [SAME] * 5, valid=[True, False, False] + [True] * 5)
    found, _ = findings(played)
    counts = "differs in 1 of 8 groups (2 not well-formed, 5 all right)"
    assert found["R"].figure == f"{counts}, mean 0.69"  # 22 of 32
    assert "harder" in found["R"].remedy


def test_an_answer_that_was_not_judged_makes_no_spread():
    groups = [[NAN, 1.0, NAN, 1.0], [NAN, NAN, NAN, 1.0], [NAN, 0.0, NAN, 1.0]]
    assert differing_groups(game(groups), [RIGHT]).tolist() == [False, False, True]
    found, _ = findings(game(groups))
    assert found["R"].figure == "differs in 1 of 3 groups (2 all right), mean 0.80"  # 4 of 5


def test_on_a_scale_a_difference_must_exceed_that_of_a_judge_that_tells_nothing_apart():
    """2.5 % of the span: here .025, and the standard deviation of [a, b, a, b] is |a - b| / 2."""
    scale = reward(binary=False, span=(0.0, 1.0))
    groups = [[0.5, 0.54, 0.5, 0.54], [0.5, 0.58, 0.5, 0.58]]
    assert differing_groups(game(groups), [scale]).tolist() == [False, True]
    found, _ = findings(game(groups), scale)
    # means .52 and .54, deviations .02 and .04
    assert found["R"].figure == (
        "differs in 1 of 2 groups (1 all alike), mean 0.53, standard deviation 0.03 in a group"
    )
    unlimited = reward(binary=False)
    assert differing_groups(game(groups), [unlimited]).tolist() == [True, True]


def test_the_ends_of_a_scale_are_not_right_and_wrong():
    penalty = reward(binary=False, span=(0.0, 2.0), weight=-1.0)
    played = game([[0.0, -1.0, -2.0, 0.0], [-2.0] * 4, [0.0] * 4, [-1.0] * 4])
    found, _ = findings(played, penalty)
    counts = "differs in 1 of 4 groups (1 all lowest, 1 all highest, 1 all alike)"
    assert found["R"].figure.startswith(counts)


def test_a_single_answer_to_a_query_cannot_be_compared():
    found, can_start = findings(game([[1.0], [0.0]]))
    assert not can_start
    assert found["R"].remedy.startswith("raise data.group_size")


def test_answers_that_are_one_text_need_a_higher_temperature():
    played = game([WRONG, WRONG])
    same = playout(["q", "p"], [["a"] * 4] * 2)
    found, _ = findings(replace(played, playout=same))
    assert found["R"].remedy.startswith("raise data.solver.temperature (now 1)")


# -- Q, length and time ----------------------------------------------------------------------------


def test_a_judge_that_gives_one_score_to_everything_is_to_be_left_out():
    quality = [[0.51, 0.56, 0.53, 0.54]] * 2
    found, can_start = findings(game([MIXED] * 2, quality=quality), RIGHT, JUDGE)
    assert can_start  # R can be learned without it
    assert found["Q"].word == "flat"
    assert found["Q"].figure.startswith(
        "'judge' 0.51 to 0.56, standard deviation 0.02 in a group: "
    )
    assert found["Q"].remedy.startswith("in model.rewards leave it out")


def test_a_quality_reward_may_judge_some_answers_or_none():
    quality = [[NAN, 0.1, 0.9, NAN], [NAN] * 4]
    found, _ = findings(game([MIXED] * 2, quality=quality), RIGHT, JUDGE)
    assert found["Q"].text == "'judge' 0.10 to 0.90, standard deviation 0.40 in a group"
    found, _ = findings(game([MIXED] * 2, quality=[[NAN] * 4] * 2), RIGHT, JUDGE)
    assert found["Q"].text == "'judge' judged nothing"


def test_without_a_quality_reward_there_is_nothing_to_look_at():
    found, _ = findings(game([MIXED] * 2))
    assert (found["Q"].word, found["Q"].remedy) == ("-", "")


@pytest.mark.parametrize(("cut", "word"), [(0, "ok"), (2, "ok"), (3, "cut off"), (7, "cut off")])
def test_more_than_a_quarter_of_cut_off_answers_is_named(cut, word):
    found, can_start = findings(game([MIXED] * 2, cut=cut))
    assert found["length"].word == word
    assert found["length"].figure == f"0 of 2 queries, {cut} of 8 answers cut off"
    assert found["length"].remedy == ("" if word == "ok" else "raise data.solver.max_new_tokens")
    assert can_start


@pytest.mark.parametrize(
    ("high", "settings", "shortens"),
    [
        (1, {}, True),
        (1, {"enters": "task"}, True),
        (2, {}, False),  # the answers have two tokens
        (1, {"unit": "words"}, False),
        (1, {"weight": -1.0}, False),
        (1, {"enters": "challenger"}, False),
    ],
)
def test_answers_that_a_reward_shortens_need_no_more_tokens(high, settings, shortens):
    settings = {"unit": "tokens", "enters": "quality", **settings}
    length = LengthReward(0, high, name="judge", **settings)
    found, _ = findings(game([MIXED] * 2, cut=8), RIGHT, length)
    remedy = "" if shortens else "raise data.solver.max_new_tokens"
    assert found["length"].remedy == remedy
    assert (", and 'judge' pays for shorter answers" in found["length"].figure) == shortens


@pytest.mark.parametrize(
    ("seconds", "word", "whole"),
    [
        (0.9, "ok", "less than a minute"),
        (30.0, "ok", "about 30 min"),
        (90.0, "ok", "about 1.5 h"),
        (1500.0, "long", "about 25.0 h"),
    ],
)
def test_the_time_of_the_run_is_that_of_its_rounds(seconds, word, whole):
    found, can_start = findings(game([MIXED] * 2), seconds={"answers": seconds}, rounds=60)
    assert found["time"].word == word
    assert found["time"].figure.endswith(f"60 rounds take {whole}")
    assert can_start


def test_a_run_of_one_round_is_one_round():
    found, _ = findings(game([MIXED] * 2), seconds={"answers": 30.0}, rounds=1)
    assert found["time"].figure.endswith("; 1 round takes less than a minute")


def test_in_fit_only_what_is_wrong_is_said():
    played = game([WRONG] * 4, quality=[[0.1, 0.2, 0.3, 0.9]] * 4, malformed=[True] * 4)
    lines = pilot_verdict(played, [RIGHT, JUDGE], CHALLENGER).short()
    assert [line.split(":")[1] for line in lines] == [
        " queries none",
        " R none",
        " the game cannot start like this; the run goes on",
    ]
