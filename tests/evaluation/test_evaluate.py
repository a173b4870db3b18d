"""Win rates against the reference and pass@k: what they find, and that work is never done twice."""

import itertools
import json
import math

import pytest
import torch
from small_game import Checksum, make_policy, stir

from lsp_lightning import Reward, Sampling, VerifiableReward
from lsp_lightning.evaluation import answers as kept_answers
from lsp_lightning.evaluation import scores as kept_scores
from lsp_lightning.evaluation.answers import Answer, Contestant
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.identity import settings_of, weights_of
from lsp_lightning.evaluation.ledger import Ledger, digest
from lsp_lightning.evaluation.scores import Case, Scorer
from lsp_lightning.evaluation.solved import TaskSet, solved
from lsp_lightning.evaluation.win_rate import win_rate
from lsp_lightning.game.known_queries import Query, read_queries
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.rewards import RewardError
from lsp_lightning.types import Rollouts

PROMPTS = [Query(f"question {i}", subset="even" if i % 2 == 0 else "odd") for i in range(60)]
SAMPLING = Sampling(max_new_tokens=8)


class Length(Reward):
    """Prefers the longer answer."""

    comparable = True

    def score(self, playout):
        return torch.tensor([[float(len(a)) for a in g] for g in playout.spoken_groups()])


class FirstPlace(Reward):
    """Prefers whatever it is shown first."""

    needs_group = True

    def score(self, playout):
        return torch.tensor([[1.0, 0.0]]).expand(len(playout.query_texts), 2)


class Marked(Reward):
    """Prefers answers with the mark of the better player."""

    comparable = True
    blind = False

    def score(self, playout):
        def of(text):
            return math.nan if self.blind and len(text) % 2 else float("!" in text)

        return torch.tensor([[of(a) for a in group] for group in playout.spoken_groups()])


class Writer:
    """A player whose answers to a prompt follow a rule of the draw's seed; counts them."""

    def __init__(self, codec, rule):
        self.codec, self.rule, self.asked = codec, rule, 0
        self.pad_id = 0

    def respond(self, prompts, draws, sampling, seeds):
        texts = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed % 2**60)
            texts += [self.rule(torch.rand(2, generator=generator).tolist()) for _ in range(draws)]
        self.asked += len(texts)
        ids = [[*self.codec.encode_plain(text), 2] for text in texts]
        width = max(map(len, ids))
        mask = torch.tensor([[j < len(row) for j in range(width)] for row in ids])
        rows = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        n = len(texts)
        return Rollouts(
            torch.ones(n, 1, dtype=torch.long),
            torch.ones(n, 1, dtype=torch.bool),
            rows,
            mask,
            torch.zeros(n, width),
            torch.zeros(n, dtype=torch.bool),
            tuple(texts),
            sampling.temperature,
        )


def words(u):
    return "w " * (1 + int(20 * u[0]))


def longer_words(u):
    return "w " * (9 + int(20 * u[0]))


def often_marked(u):
    return "w " * (1 + int(9 * u[1])) + ("!" if u[0] < 0.7 else "")


def seldom_marked(u):
    return "w " * (1 + int(9 * u[1])) + ("!" if u[0] < 0.3 else "")


class Told(list):
    def __call__(self, *what):
        self.append(what)


@pytest.fixture
def codec(tiny_policy):
    return tiny_policy.codec


def compare(codec, folder, reward, mine, theirs, prompts=PROMPTS, draws=2, told=None):
    exam = Exam.of(codec, prompts, reward, SAMPLING, "{query}", draws, seed=3)
    policy, base = (w if isinstance(w, Writer) else Writer(codec, w) for w in (mine, theirs))
    return win_rate(
        exam,
        Contestant("policy answers", policy, policy.rule.__name__),
        Contestant("base answers", base, f"base {base.rule.__name__}"),
        Scorer(reward, type(reward).__name__, codec, 0, 1.0),
        Ledger(folder / "answers.jsonl"),
        Ledger(folder / "judgements.jsonl"),
        told or Told(),
        "a judge",
        "the base",
    ).evaluation


# -- what is found ---------------------------------------------------------------------------------


def test_a_true_judge_finds_the_better_player(codec, tmp_path):
    found = compare(codec, tmp_path, Marked(), often_marked, seldom_marked, draws=8).results
    # wins .7 * .7, losses .3 * .3, the rest are ties: .49 + .42 / 2
    every = found["all"]
    assert every["win_rate"]["low"] < 0.7 < every["win_rate"]["high"]
    assert every["strict_win_rate"]["low"] < 0.49 < every["strict_win_rate"]["high"]
    assert every["ties"] == pytest.approx(0.42, abs=0.08)
    even = found["control"]["win_rate"]
    assert even["low"] < 0.5 < even["high"]


def test_a_judge_that_prefers_a_place_finds_no_difference(codec, tmp_path):
    found = compare(codec, tmp_path, FirstPlace(), longer_words, words, draws=2).results
    ties = found["all"]["ties"]
    assert found["all"]["win_rate"]["value"] == pytest.approx(0.5, abs=ties / 2 + 1e-6)
    assert found["control"]["win_rate"]["value"] == pytest.approx(0.5, abs=0.06)


def test_a_judge_that_loves_length_is_even_at_equal_length(codec, tmp_path):
    found = compare(codec, tmp_path, Length(), longer_words, words, draws=4).results["all"]
    assert found["win_rate"]["low"] > 0.7
    assert found["length_controlled"]["low"] < 0.5 < found["length_controlled"]["high"]
    assert found["words"] > found["base_words"] + 6


def test_a_subset_is_a_row_of_its_own(codec, tmp_path):
    found = compare(codec, tmp_path, Marked(), often_marked, seldom_marked)
    assert [row[0] for row in found.rows] == ["all", "even", "odd", "base vs base"]
    assert [row[1] for row in found.rows] == ["60", "30", "30", "60"]
    assert all(len(row) == len(found.columns) for row in found.rows)
    means = [found.results["subsets"][name]["win_rate"]["value"] for name in ("even", "odd")]
    assert sum(means) / 2 == pytest.approx(found.results["all"]["win_rate"]["value"])


def test_the_name_of_a_subset_cannot_control_a_terminal(codec, tmp_path):
    hostile = [Query("q", subset="\x1b[31m" + "x" * 99)]
    row = compare(codec, tmp_path, Length(), words, words, hostile).rows[1]
    assert "\x1b" not in row[0]
    assert len(row[0]) <= 24


def test_a_prompts_result_depends_on_no_other_prompt(codec, tmp_path):
    whole = compare(codec, tmp_path / "a", Length(), longer_words, words)
    part = compare(codec, tmp_path / "b", Length(), longer_words, words, PROMPTS[::-2])
    expected = whole.results["subsets"]["odd"]
    for name in ("win_rate", "strict_win_rate", "length_controlled"):
        assert part.results["all"][name] == pytest.approx(expected[name]), name
    for name in ("ties", "words", "base_words"):
        assert part.results["all"][name] == pytest.approx(expected[name]), name


def test_unjudged_pairs_are_left_out_counted_and_tried_again(codec, tmp_path):
    judge = Marked()
    judge.blind = True
    blind = compare(codec, tmp_path, judge, often_marked, seldom_marked).results["all"]
    assert 0 < blind["unjudged"] < blind["pairs"]
    judge.blind = False
    seeing = compare(codec, tmp_path, judge, often_marked, seldom_marked).results["all"]
    assert seeing["unjudged"] == 0


def test_a_judge_that_can_judge_nothing_is_an_error(codec, tmp_path):
    class Blind(Length):
        def score(self, playout):
            return torch.full((len(playout.query_texts), 2), math.nan)

    with pytest.raises(RewardError, match="could not judge any answer"):
        compare(codec, tmp_path, Blind(), longer_words, words)


# -- pass@k ----------------------------------------------------------------------------------------


def solve(codec, folder, mine, theirs, draws, tasks=PROMPTS[:6]):
    reward = VerifiableReward(Checksum())
    exam = Exam.of(codec, tasks, reward, SAMPLING, "{query}", draws, seed=3)
    evaluation = solved(
        [TaskSet("tasks", exam)],
        Contestant("policy answers", Writer(codec, mine), mine.__name__),
        Contestant("base answers", Writer(codec, theirs), f"base {theirs.__name__}"),
        Scorer(reward, "checksum", codec, 0, 1.0),
        Ledger(folder / "answers.jsonl"),
        Ledger(folder / "judgements.jsonl"),
        Told(),
        "the base",
    )
    return evaluation.results["tasks"], exam


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(codec, tmp_path):
    found, exam = solve(codec, tmp_path, often_marked, words, draws=5)
    assert list(found) == ["greedy", "pass@1", "pass@2", "pass@4"]
    right = []
    player = Contestant("", Writer(codec, often_marked), "again")
    groups = player.answers(exam.drawn_from("solved"), Ledger(tmp_path / "x"), Told())
    for task, group in zip(exam.tasks, groups, strict=True):
        right.append(Checksum().check(task.text, [a.spoken for a in group], None))
    for k in (1, 2, 4):
        shares = [
            sum(any(s) for s in itertools.combinations(row, k)) / math.comb(5, k) for row in right
        ]
        assert found[f"pass@{k}"]["policy"]["value"] == pytest.approx(sum(shares) / 6, abs=1e-6)
    gain = found["pass@1"]["difference"]["value"]
    means = [found["pass@1"][name]["value"] for name in ("policy", "base")]
    assert gain == pytest.approx(means[0] - means[1], abs=1e-6)


def test_equal_players_have_no_difference(codec, tmp_path):
    found, _ = solve(codec, tmp_path, words, words, draws=2)
    for score in found.values():
        assert score["policy"] == score["base"]
        assert score["difference"]["value"] == 0


# -- work is done once -----------------------------------------------------------------------------


def test_a_second_evaluation_asks_nobody_and_finds_the_same(codec, tmp_path):
    first = compare(codec, tmp_path, Length(), longer_words, words)
    told = Told()
    mine, theirs = Writer(codec, longer_words), Writer(codec, words)
    again = compare(codec, tmp_path, Length(), mine, theirs, told=told)
    assert again == first
    assert mine.asked == theirs.asked == 0
    assert told == []


def test_results_are_those_of_any_batch_size(codec, tmp_path, monkeypatch):
    first = compare(codec, tmp_path / "a", Length(), longer_words, words)
    monkeypatch.setattr(kept_answers, "_BATCH", 14)
    monkeypatch.setattr(kept_scores, "_BATCH", 22)
    assert compare(codec, tmp_path / "b", Length(), longer_words, words) == first


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 2, 4, 6])
def test_a_stopped_evaluation_goes_on_where_it_was(codec, tmp_path, monkeypatch, after):
    monkeypatch.setattr(kept_answers, "_BATCH", 40)
    whole = compare(codec, tmp_path / "a", Length(), longer_words, words)
    calls = itertools.count()

    def stop(*what):
        if next(calls) == after:
            raise Stopped

    mine, theirs = Writer(codec, longer_words), Writer(codec, words)
    with pytest.raises(Stopped):
        compare(codec, tmp_path / "b", Length(), mine, theirs, told=stop)
    assert compare(codec, tmp_path / "b", Length(), mine, theirs) == whole
    assert (mine.asked, theirs.asked) == (120, 240)  # 60 prompts, 2 draws; base and control


def test_damaged_lines_are_skipped_and_done_again(codec, tmp_path, recwarn):
    first = compare(codec, tmp_path, Length(), longer_words, words)
    path = tmp_path / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[2])
    lines[0], lines[1] = b"\xff\x00{\n", b"[" * 9999 + b"\n"
    lines[2] = json.dumps({"key": entry["key"], "value": [["text", 1]]}).encode() + b"\n"
    path.write_bytes(b"".join(lines)[:-20])  # the last line is cut off
    mine, theirs = Writer(codec, longer_words), Writer(codec, words)
    assert compare(codec, tmp_path, Length(), mine, theirs) == first
    assert mine.asked + theirs.asked == 4 * 2  # four lines, two draws each
    assert any("3 damaged lines are skipped" in str(w.message) for w in recwarn)
    assert compare(codec, tmp_path, Length(), Writer(codec, longer_words), words) == first


def test_other_weights_prompts_or_sampling_have_other_keys(codec, tmp_path):
    ledger, told = Ledger(tmp_path / "x.jsonl"), Told()

    def asked(identity="a", draws=2, sampling=SAMPLING, seed=3, prompts=PROMPTS[:2]):
        writer = Writer(codec, words)
        exam = Exam.of(codec, prompts, Length(), sampling, "{query}", draws, seed)
        Contestant("", writer, identity).answers(exam, ledger, told)
        return writer.asked

    assert asked() == 4
    assert asked() == 0
    changed = ({"identity": "b"}, {"draws": 3}, {"seed": 4}, {"prompts": PROMPTS[2:4]})
    for change in (*changed, {"sampling": Sampling(max_new_tokens=9)}):
        assert asked(**change) > 0, change


# -- identities ------------------------------------------------------------------------------------


def test_the_checksum_changes_with_what_is_trained_and_the_references_does_not(brief_folder):
    policy = make_policy(brief_folder)
    before = weights_of(policy)
    assert weights_of(make_policy(brief_folder)) == before
    stir(policy)
    after = weights_of(policy)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_the_checksum_of_a_start_adapter_is_that_of_the_reference(brief_folder, tmp_path):
    policy = make_policy(brief_folder)
    stir(policy)
    policy.save(tmp_path / "start")
    start = str(tmp_path / "start")
    found = {
        choice: weights_of(make_policy(brief_folder, init_adapter=start, reference=choice))
        for choice in ("start", "base")
    }
    assert found["start"][1] != found["base"][1]


def test_all_weights_have_a_checksum_without_an_adapter(brief_folder):
    policy = make_policy(brief_folder, lora=None)
    before = weights_of(policy)
    stir(policy)
    after = weights_of(policy)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_a_judge_is_known_by_all_of_its_settings_and_files(tmp_path):
    from lsp_lightning import JudgeReward, LocalJudge, PreferenceReward

    world = "pkg:lsp_lightning/tinyworld"
    prompt = tmp_path / "compare.txt"
    prompt.write_text("{instruction}{first}{second}")
    url = "http://127.0.0.1:1/v1"
    made = [
        lambda: PreferenceReward(f"{world}/reward_model"),
        lambda: PreferenceReward(f"{world}/reward_model", max_tokens=99),
        lambda: LocalJudge(),
        lambda: LocalJudge(model=f"{world}/base"),
        lambda: LocalJudge(prompt=str(prompt)),
        lambda: JudgeReward(url, "a"),
        lambda: JudgeReward(url, "b"),
        lambda: JudgeReward(url, "b", mode="compare"),
        lambda: VerifiableReward(Checksum()),
        lambda: Length(),
    ]
    found = [digest(settings_of(make())) for make in made]
    assert [digest(settings_of(make())) for make in made] == found
    assert len(set(found)) == len(made)
    prompt.write_text("{instruction}{second}{first}")
    assert digest(settings_of(LocalJudge(prompt=str(prompt)))) != found[4]


# -- a real policy ---------------------------------------------------------------------------------


def test_a_real_policy_before_training_is_even(brief_folder, tmp_path):
    policy = make_policy(brief_folder)
    reward = Length()
    mine, theirs = weights_of(policy)
    found = win_rate(
        Exam.of(policy.codec, PROMPTS[:20], reward, SAMPLING, "{query}", 4, 3),
        Contestant("policy", Player.local(policy), mine),
        Contestant("base", FrozenPlayer(policy), theirs),
        Scorer(reward, "length", policy.codec, policy.pad_id, 1.0),
        Ledger(tmp_path / "a.jsonl"),
        Ledger(tmp_path / "j.jsonl"),
        Told(),
        "length",
        "the base",
    )
    for row in ("all", "control"):
        rate = found.evaluation.results[row]["win_rate"]
        assert abs(rate["value"] - 0.5) < 0.2
    assert len(found.policy) == len(found.base) == 20


def test_a_reward_sees_the_kept_answers_as_they_were_sampled(brief_folder, tmp_path):
    policy, seen = make_policy(brief_folder), []

    class Watching(Length):
        def score(self, playout):
            seen.append(playout.answers)
            return super().score(playout)

    reward = Watching()
    exam = Exam.of(policy.codec, PROMPTS[:3], reward, SAMPLING, "{query}", 2, 3)
    player = Player.local(policy)
    groups = Contestant("", player, "x").answers(exam, Ledger(tmp_path / "a"), Told())
    cases = [Case(*row) for row in zip(exam.tasks, exam.prompts, groups, strict=True)]
    scorer = Scorer(reward, "y", policy.codec, policy.pad_id, 1.0)
    scorer.scores(cases, Ledger(tmp_path / "j"), Told())
    drawn = player.respond(exam.prompts, 2, SAMPLING, exam.task_seeds)
    (kept,) = seen
    assert kept.texts == drawn.texts
    assert kept.spoken == drawn.spoken
    assert torch.equal(kept.completion_mask, drawn.completion_mask)
    mask = drawn.completion_mask
    assert torch.equal(kept.completion_ids[mask], drawn.completion_ids[mask])
    assert torch.equal(kept.prompt_ids, drawn.prompt_ids)
    assert torch.equal(kept.truncated, drawn.truncated)
    assert kept.logprobs[kept.completion_mask].isnan().all()  # not kept, so not made up


def test_an_answer_is_read_as_it_was_written():
    answer = Answer("<think>x</think>a", "a", (1, 2), True)
    assert Answer.read(json.loads(json.dumps(answer.entry))) == answer
    for entry in (None, [], ["a", "a", [1.5], True], ["a", "a", [True], True], {"a": 1}):
        with pytest.raises(ValueError, match="not an answer"):
            Answer.read(entry)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"instruction": "q", "dataset": "koala", "output": "x", "generator": "g"}]'),
        ("a.jsonl", '{"query": "q", "subset": "koala", "dataset": "other"}'),
        ("a.csv", "query,Dataset\nq,koala"),
    ],
)
def test_a_file_names_the_subset_of_a_query(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (query,) = read_queries(str(tmp_path / name), "prompts")
    assert (query.text, query.solution, query.subset) == ("q", None, "koala")
