"""The laptop preset's evidence: its arms can play, and its figures are right."""

import json
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from small_game import make_policy, stir

from benchmarks import ifeval, laptop, laptop_score
from benchmarks.laptop_table import tables
from benchmarks.runs import folder
from lsp_lightning import InstructionVerifier, Paper, Query, Sampling, VerifiableReward
from lsp_lightning.checks.constraints import parse_constraints
from lsp_lightning.cli.main import main
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.game.known_queries import read_queries

TASKS = [Query(f"Write about {x}.\nConstraints:\n- at most 3 words") for x in ("tea", "rain", "me")]


@pytest.fixture
def command(monkeypatch):
    """The command; `fit` runs in this process."""

    def replaced(path, words):
        assert main(words[3:]) == 0

    monkeypatch.setattr(laptop.os, "execv", replaced)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored afterwards: train sets it

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["laptop.py", *map(str, words)])
        laptop.main()

    return run


@pytest.mark.parametrize(
    "arm",
    [
        pytest.param(arm, marks=() if arm in ("grpo", "fixed") else pytest.mark.slow)
        for arm in laptop.arms()
    ],
)
def test_each_arm_is_the_preset_with_its_changes(
    arm, command, tmp_path, tiny_llama_folder, monkeypatch
):
    """Everything that is checked before weights are loaded."""
    made = []
    monkeypatch.setattr(
        Trainer, "fit", lambda self, model, datamodule, **rest: made.append((model, datamodule))
    )
    command("train", arm, "--seed", 3, "--base", tiny_llama_folder, "--runs", tmp_path)
    [(module, data)] = made
    assert not data.heldout
    names = [reward.name for reward in module.rewards]
    assert data.queries.selfplay == (arm != "grpo")
    assert ("novelty" in names) == (arm not in ("grpo", "zero", "paper"))
    assert (data.gate is not None) == ("gate" in arm)
    assert (data.pool is not None) == ("pool" in arm)
    assert (getattr(data.queries, "documents", None) is not None) == (arm == "documents")
    quality = any(reward.enters == "quality" for reward in module.rewards)
    assert quality == (arm not in ("zero", "no-length"))
    assert isinstance(module.objective, Paper) == (arm in ("zero", "paper"))
    run = folder(tmp_path, arm, 3)
    config = yaml.safe_load(run.with_name(f"{run.name}.yaml").read_text())
    assert config["seed_everything"] == 3
    if arm == "fixed":
        fixed = read_queries(str(tmp_path / laptop.FOUR), "fixed")
        assert fixed == read_queries(laptop.EXAMPLES, "examples")[:4]


def test_a_third_of_the_tasks_has_kinds_that_no_example_has():
    tasks, examples = (read_queries(path, "") for path in (laptop.TASKS, laptop.EXAMPLES))
    unseen = laptop_score.unseen_kinds(tasks, examples)
    assert len(tasks) == 200
    assert unseen.nonzero().flatten().tolist() == [*range(134, 200)]


def exam(policy, draws=4):
    reward = VerifiableReward(InstructionVerifier())
    sampling = Sampling(max_new_tokens=6)
    return Exam.of(policy.codec, TASKS, reward, sampling, "{query}", draws, 0)


@pytest.fixture(scope="module")
def policy(brief_folder):
    policy = make_policy(brief_folder, reference="base")
    stir(policy)
    return policy


def test_an_interrupted_scoring_continues(policy, tmp_path, monkeypatch):
    whole = laptop_score.take(policy, exam(policy), {}, tmp_path / "whole")
    assert len(whole) == 3 * 4
    monkeypatch.setattr(laptop_score, "_ROWS_AT_ONCE", 1)
    answered, asked = laptop_score._answered, []

    def interrupted(policy, part):
        if len(asked) == 1:
            raise KeyboardInterrupt
        return counted(policy, part)

    def counted(policy, part):
        asked.append([task.text for task in part.tasks])
        return answered(policy, part)

    monkeypatch.setattr(laptop_score, "_answered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        laptop_score.take(policy, exam(policy), {}, tmp_path / "parts")
    monkeypatch.setattr(laptop_score, "_answered", counted)
    parts = laptop_score.take(policy, exam(policy), {}, tmp_path / "parts")
    assert asked == [[task.text] for task in TASKS]
    nats = [[row.pop("nats") for row in rows] for rows in (whole, parts)]
    assert parts == whole
    known = [[x for x in of_rows if x is not None] for of_rows in nats]
    assert known[0] == pytest.approx(known[1], rel=1e-4)
    assert len(known[0]) == 3 * 2
    other = replace(exam(policy), seed=1)  # other answers are not continued
    laptop_score.take(policy, other, {}, tmp_path / "parts")
    assert len(asked) == 6


def test_answers_are_read_by_the_base_and_not_by_the_policy(policy):
    asked = exam(policy, draws=1)
    ids = [*asked.prompts[0]]
    row = laptop_score._answered(policy, asked)[0]
    answers = laptop_score.Player.local(policy).respond(
        ids and [ids], 1, asked.sampling, asked.task_seeds[:1]
    )
    tokens = answers.completion_ids[0][answers.completion_mask[0]]
    with torch.no_grad(), policy.model.disable_adapter():
        logits = policy.model(torch.tensor([[*ids, *tokens.tolist()]])).logits[0].log_softmax(-1)
    expected = -logits[len(ids) - 1 : -1].gather(1, tokens[:, None]).sum()
    assert row["tokens"] == len(tokens)
    assert row["nats"] == pytest.approx(float(expected), rel=1e-4)


def answer(text, solved, tokens=4, nats=8.0, truncated=False):
    return {
        "query": TASKS[0].text,
        "answer": text,
        "solved": solved,
        "tokens": tokens,
        "truncated": truncated,
        "nats": nats,
    }


def test_figures_are_means_over_tasks_with_intervals():
    rows = [answer("one two", 1.0), answer("one", 0.0, tokens=2, nats=None)]
    rows += [answer("a b c", 1.0), answer("a b c d", 1.0, truncated=True)]
    found = laptop_score.figures(rows, 2, torch.tensor([False, True]))
    # tasks .5 and 1: mean .75, standard error (.25 * sqrt 2) / sqrt 2
    assert found["solved"] == [0.75, pytest.approx(1.96 * 0.25)]
    assert found["solved, unseen kinds"][0] == 1.0
    assert found["pass@2"] == [1.0, 0.0]
    assert found["words"][0] == 2.5  # of 1.5 and 3.5
    assert found["tokens"][0] == 3.5
    assert found["truncated"][0] == 0.25
    assert found["nats a token"] == [2.0, 0.0]  # of 8/4 (the second answer was not read) and 16/8
    assert found["right"] == "12"


def test_answers_are_tried_on_the_other_tasks():
    commas, two_words, names = (
        {"query": f"Write.\nConstraints:\n- {constraint}", "answer": text}
        for constraint, text in (
            ("no commas", "one, two"),
            ("exactly 2 words", "one two"),
            ('include the word "tea"', "Tea, tea, tea."),
        )
    )
    # without commas: one of two; of two words: one of two; with tea: none of two
    assert laptop_score.solves_others([commas, two_words, names]).tolist() == [0.5, 0.5, 0.0]
    assert laptop_score.solves_others([names]).isnan().all()


def test_the_game_is_described_by_its_first_and_last_rounds(tmp_path):
    lines = ["step,queries/verifiable/malformed,reward,seconds/answers,seconds/update"]
    lines += [f"{i},{float(i < 5)},{i / 12},{30 if i else 3000},5" for i in range(12)]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    (tmp_path / "config.yaml").write_text("data: {group_size: 2}\nckpt_path:\n")
    (tmp_path / "transcripts").mkdir()
    topics = ["tea", "Tea", "the old  sea", "rain"]
    rows = [
        {
            "round": i,
            "query": f"Write about {topics[i % 4] if i > 1 else i}.\nConstraints:\n- {i + 1} words",
            "answer": answer,
        }
        for i in range(12)
        for answer in ("one two three", "four five six seven")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "transcripts/open.jsonl").write_text(text)
    found = laptop_score.run_figures(tmp_path)
    assert found == {
        "rounds": 12,
        "seconds a round": 35.0,  # the first one was paused
        "malformed, first": 1.0,
        "malformed, last": 0.3,  # rounds 2, 3 and 4 of 2 to 11
        "R": round(sum(range(2, 12)) / 10 / 12, 4),
        "solved, last": 0.1,  # in rounds 2 and 3, of 20 answers
        "queries": 10,
        "distinct queries": 1.0,
        "topics": 3,
    }


def way(right):
    return {"solved": [sum(map(int, right)) / 8 / len(right), 0.1], "right": right}


def test_differences_to_the_base_are_paired_by_task():
    def row(arm, seed, right):
        return {
            "arm": arm,
            "seed": seed,
            "T 1": way(right),
            "T .7": way(right),
            "greedy": way("00"),
        }

    rows = [row("base", 0, "04"), row("recommended", 0, "48"), row("recommended", 1, "86")]
    rows += [row("recommended without seed 0", 1, "86"), row("pool", 0, "88")]
    scores, kinds, *_ = tables(rows, ["base", "grpo", "recommended"], torch.tensor([False, True]))
    base, recommended, without, pool = scores.splitlines()[2:]
    assert base.startswith("| base | 1 | 0.250 | - | - | - | 0.250 |")
    # tasks: .75 - 0 and .875 - .5; mean .5625, standard error .1875
    assert recommended.startswith(
        "| recommended | 2 | 0.812 ± 0.088 | +0.562 [+0.195, +0.930] | - | - | 0.812"
    )
    # to the mean of both seeds: 1 - .75 and 1 - .875; mean .1875, standard error .0625
    assert "| +0.188 [+0.065, +0.310] |" in pool
    assert without.split(" | ")[5] == "-"
    assert "+0.375 [" in kinds.splitlines()[2]
    assert "grpo" not in scores


def test_more_room_for_answers_is_compared_with_the_same_room():
    arms = {"base": "00", "base, 128 tokens": "44", "recommended, 128 tokens": "84"}
    rows = [{"arm": arm, "seed": 0, "T 1": way(right)} for arm, right in arms.items()]
    scores = tables(rows, ["base"], torch.tensor([False, True]))[0].splitlines()
    assert scores[3].startswith("| base, 128 tokens | 1 | 0.500 | - | - | - |")
    # tasks: 1 - .5 and .5 - .5; mean .25, standard error .25
    assert scores[4].startswith("| recommended, 128 tokens | 1 | 0.750 | +0.250 [-0.240, +0.740] |")


def test_the_tables_of_the_results_are_printed_from_the_rows(command, capsys):
    command("table")
    printed = capsys.readouterr().out.strip().split("\n\n")
    page = (laptop.ROOT / "docs/results.md").read_text("utf-8")
    assert len(printed) == 4
    rows = json.loads(laptop.RESULT.read_text())
    shares = [rows[f"recommended-{seed}"]["T 1"]["solved"][0] for seed in (1, 2)]
    assert f"| recommended without seed 0 | 2 | {sum(shares) / 2:.3f} ±" in printed[0]
    assert [table for table in printed if table not in page] == []


def test_rows_in_two_compute_types_are_not_averaged(command, tmp_path, monkeypatch):
    rows = json.loads(laptop.RESULT.read_text())
    rows["grpo-0"]["dtype"] = "bfloat16"
    monkeypatch.setattr(laptop, "RESULT", tmp_path / "laptop.json")
    laptop.RESULT.write_text(json.dumps(rows))
    with pytest.raises(SystemExit, match="rows in bfloat16 and float32 cannot stand in one table"):
        command("table")


def test_without_ifeval_the_command_says_how_to_get_it(command, tmp_path, monkeypatch):
    monkeypatch.setattr(ifeval, "instructions", lambda: None)
    with pytest.raises(SystemExit, match="error: IFEval is not installed: pip install"):
        command("agree", tmp_path)


def check(line, answer):
    [constraint] = parse_constraints(f"Write.\nConstraints:\n- {line}")
    found = ifeval.check_of(constraint)
    return found and found(answer)


@pytest.mark.skipif(ifeval.instructions() is None, reason="needs IFEval")
@pytest.mark.parametrize(
    ("line", "kept", "broken"),
    [
        ("at least 3 words", "a b c", "a b"),
        ("between 2 and 3 words", "a b c", "a b c d"),
        ("at most 2 words", "a b", "a b c"),
        ("exactly 2 bullet points", "* a\n* b", "* a"),
        ("at least 2 bullet points", "* a\n* b\n* c", "* a"),
        ('include the word "light"', "the light", "the dark"),
        ('do not include the word "light"', "the dark", "the light"),
        ('do not include the letter "q"', "tea", "quay"),
        ('include the letter "q" at least 2 times', "q Q", "q"),
        ("no commas", "a b", "a, b"),
        ('end with "The end."', "It was so. The end.", "The end. No"),
        ("all lower case", "this is a quiet day in the village", "This is a quiet day"),
        ("wrapped in double quotes", '"a"', "a"),
        ("a title in <<double angle brackets>>", "<<Tea>> a", "Tea a"),
        ("exactly 2 parts separated by ***", "a\n***\nb", "a"),
        ("at least 1 placeholder in square brackets", "[name] a", "a"),
        ("at least 1 highlighted section *like this*", "*a b* c", "a"),
    ],
)
def test_ifeval_checks_the_same_constraint(line, kept, broken):
    assert check(line, kept)
    assert not check(line, broken)


@pytest.mark.skipif(ifeval.instructions() is None, reason="needs IFEval")
def test_both_checkers_are_compared():
    query = 'Write.\nConstraints:\n- include the word "light"\n- at most 3 words'
    found = ifeval.compare([(query, "light it"), (query, "slightly so"), (query, "")])
    assert found.verdicts["word"] == {(True, True): 1, (False, True): 1, (False, False): 1}
    assert found.answers == {(True, True): 1, (False, True): 1, (False, False): 1}
    assert found.figures() == {
        "pairs": 6,
        "agree": 0.8333,
        "answers": 3,
        "InstructionVerifier": 0.3333,
        "IFEval": 0.6667,
    }
    assert "'slightly so'" in "\n".join(found.lines(1))


@pytest.mark.slow
def test_an_arm_is_played_scored_and_printed(command, tmp_path, brief_folder, monkeypatch, capsys):
    monkeypatch.setattr(laptop, "RESULT", tmp_path / "laptop.json")
    small = ["--data.num_queries", "2", "--data.group_size", "2", "--trainer.max_steps", "2"]
    common = ["--base", brief_folder, "--runs", tmp_path / "runs"]
    command("train", "recommended", *common, "--", *small)
    command("train", "recommended", *common)
    assert "is finished" in capsys.readouterr().out
    command("score", "recommended", *common, "--tasks", "2")
    assert '"right": "00"' in capsys.readouterr().out
    assert not laptop.RESULT.exists()
    tasks = read_queries(laptop.TASKS, "tasks")[:2]
    monkeypatch.setattr(laptop, "read_queries", lambda path, key: tasks)
    command("score", "recommended", *common)
    command("score", "base", *common)
    command("score", "recommended", *common, "--room", "50")
    rows = json.loads(laptop.RESULT.read_text())
    roomy = rows.pop("recommended, 50 tokens-0")
    assert roomy["arm"] == "recommended, 50 tokens"
    assert roomy["T 1"]["tokens"][0] > rows["recommended-0"]["T 1"]["tokens"][0]  # none ends
    assert not {"run", "T .7", "greedy"} & {*roomy}
    assert [*rows] == ["base-0", "recommended-0"]
    assert rows["recommended-0"]["run"]["rounds"] == 2
    command("table")
    assert "| recommended | 1 | 0.000 |" in capsys.readouterr().out
    monkeypatch.setattr(laptop, "read_queries", lambda path, key: tasks[:1])
    with pytest.raises(SystemExit, match="base-0, recommended, 50 tokens-0, recommended-0; score"):
        command("table")
    with pytest.raises(SystemExit, match="error: run: no folder"):
        command("score", "zero", *common)
