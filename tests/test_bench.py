"""The speed benchmark measures equal work and computes right. Its figures are not tested."""

import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from benchmarks import (
    bf16_noise,
    speed,
    speed_bound,
    speed_gpu,
    speed_overlap,
    speed_peer,
    speed_profile,
    speed_scaling,
    speed_sharing,
)
from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import Game, Size
from benchmarks.speed_peer import check_equal, summary, table, tokens
from benchmarks.speed_scaling import straight_line
from benchmarks.speed_work import Side, Step, Stopwatch, Work, make_queries
from lsp_lightning import Policy

SHAPE = Shape(64, 1, 128)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    make_random_model(folder, SHAPE)
    return folder


def test_a_random_model_has_the_given_shape(tmp_path):
    count = make_random_model(tmp_path, Shape(64, 2, 130, intermediate=96, heads=4, kv_heads=1))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.num_hidden_layers, config.vocab_size, config.num_key_value_heads) == (2, 130, 1)
    # a layer: q and o 64 x 64, k and v 64 x 16, three matrices 64 x 96, two norms of 64;
    # then the tied embeddings and the last norm
    assert count == 2 * (2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96 + 2 * 64) + 130 * 64 + 64


def test_prompts_have_the_given_length(model):
    queries = make_queries(8, 70)
    codec = Policy(str(model)).codec
    assert {len(codec.encode("{query}", {"query": query})) for query in queries} == {70}
    assert len(set(queries)) == 8


def test_an_inner_phase_is_not_counted_in_the_outer_one(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0, 12.0, 20.0])
    monkeypatch.setattr("benchmarks.speed_work.CLOCKS", {"wall": lambda: next(now)})
    sent = []
    pipe = SimpleNamespace(recv=lambda: "go", send=sent.append)
    watch = Stopwatch(pipe, Work("", (), 1, 1, steps=1))
    inner = watch.timed("inner", lambda: None)  # from 3 to 7
    outer = watch.timed("outer", inner)  # from 1 to 12
    watch.wait()  # at 0
    outer()
    watch.report([[1, 2], [1, 2]], [[3]])  # at 20
    assert sent[0].seconds == {"inner": 4.0, "outer": 7.0, "rest": 9.0, "step": 20.0}
    assert sent[0].prompts == {(1, 2)}
    assert sent[0].lengths == (1,)


def step(seconds=1.0, prompt=(1, 2), lengths=(4, 4)):
    parts = {"generation": 2.0, "reference": 2.0, "policy": seconds, "rest": 1.0}
    return Step({**parts, "step": sum(parts.values())}, frozenset([prompt]), lengths)


def test_unequal_work_ends_the_comparison():
    work = Work("", ("x",), group_size=2, new_tokens=4, steps=2)
    check_equal({"trl": [step()], "ours": [step()]}, work, prompt=2)
    unequal = [(step(lengths=(4, 3)), 2), (step(prompt=(1, 3)), 2), (step(), 3)]
    for ours, prompt in unequal:
        with pytest.raises(SystemExit, match="unequal work"):
            check_equal({"trl": [step()], "ours": [ours]}, work, prompt)


def test_a_ratio_is_of_medians():
    found = summary({"trl": [step(9.0), step(3.0), step(2.0)], "ours": [step(1.0), step(1.0)]})
    assert found["ratio"]["policy"] == 3.0
    assert found["ratio"]["step"] == 8 / 6
    assert found["steps"]["trl"] == [14.0, 8.0, 7.0]


def test_the_tokens_of_each_side_are_counted():
    work = Work("", ("x", "y"), group_size=3, new_tokens=4, steps=1)
    # TRL: 6 rows of 10 + 4 tokens; ours: 2 prompts of 10 and 6 answers without their last token
    assert tokens(work, prompt=10) == {
        "trl": {"generation": 78, "reference": 84, "policy": 84, "step": 246},
        "ours": {"generation": 38, "reference": 38, "policy": 38, "step": 114},
    }


def test_the_table_shows_bfloat16_if_it_was_measured():
    both = {"trl": [step(9.0)], "ours": [step(3.0)]}
    work = Work("", ("x", "y"), group_size=3, new_tokens=4, steps=1)
    case = {"parameters": 135e6, "prompt": 10, "tokens": tokens(work, 10)}
    of_two = table({**case, **summary(both)}).splitlines()
    assert of_two[-1].startswith("| step | 14.000 (14.000-14.000) | 8.000 (8.000-8.000)")
    assert of_two[-1].endswith("| 1.75 | 246 | 114 | 2.16 |")
    of_three = table({**case, **summary({**both, "ours_bfloat16": [step(1.5)]})}).splitlines()
    assert of_three[2].startswith("| phase | TRL, s | ours, s | ours in bfloat16, s | ratio |")
    assert len({line.count("|") for line in of_three[2:]}) == 1


def test_a_straight_line_is_found_and_a_bent_one_shows():
    line = straight_line([1, 2, 4, 8], [5.0, 7.0, 11.0, 19.0])
    assert (line["a"], line["b"]) == (pytest.approx(3.0), pytest.approx(2.0))
    assert line["largest_error"] < 1e-9
    # at 0 the a that makes 2 (a - 1)^2 + (a/4 - 1)^2 least is 12/11, which misses 4 by 8/11 of it
    bent = straight_line([0, 0, 0, 1], [1.0, 1.0, 4.0, 5.0])
    assert bent["largest_error"] == pytest.approx(8 / 11)


def test_a_game_writes_answers_of_the_given_length_and_learns(model):
    game = Game(model)
    before = {k: v.clone() for k, v in game.policy.trained_state().items()}
    for answers in (1, 3):
        played = game.play(Size(queries=2, answers=answers, new_tokens=64, prompt=16))
        rollouts = played.playout.answers
        assert rollouts.completion_mask.sum(1).tolist() == [64] * 2 * answers
        assert rollouts.prompt_mask.sum(1).tolist() == [16] * 2 * answers
        game.learn(played)
    after = game.policy.trained_state()
    assert any(not before[k].equal(after[k]) for k in before)


@pytest.mark.slow
def test_our_side_steps_on_command(model, tmp_path):
    work = Work(str(model), make_queries(2, 16), group_size=2, new_tokens=3, steps=2)
    side = Side("speed_ours", tmp_path)
    try:
        side.begin(work)
        for _ in range(work.steps):
            done = side.step()
            assert done.lengths == (3,) * 4
            assert {len(ids) for ids in done.prompts} == {16}
            assert len(done.prompts) == 2
            parts = [done.seconds[name] for name in speed_peer.PHASES[:-1]]
            assert min(parts) > 0
            assert sum(parts) == pytest.approx(done.seconds["step"])
    finally:
        side.close()


@pytest.mark.slow
def test_a_side_that_fails_says_why(tmp_path):
    side = Side("speed_ours", tmp_path)
    side.begin(Work(str(tmp_path / "nothing"), ("x",), 2, 3, 1))
    for _ in range(2):  # while the process ends, and after it has ended
        with pytest.raises(SystemExit, match=r"speed_ours failed:[^$]*nothing"):
            side.step()
        side.begin(Work("", (), 1, 1, 1))
    side.close()


def test_scaling_plays_each_value(capsys):
    tables = speed_scaling.scaling(**speed_scaling.QUICK)
    assert [row["value"] for row in tables["answers"]["rows"]] == [1, 2, 4]
    assert [row["value"] for row in tables["vocabulary"]["rows"]] == [128, 256]
    assert "| answers | rollouts, s |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_gpu_section_runs_on_a_cpu_though_its_figures_mean_nothing_there():
    rows = speed_gpu.gpu(**speed_gpu.QUICK, device="cpu")
    assert [row["weights"] for row in rows] == ["bf16", "nf4"]
    assert rows[1]["bytes"] < rows[0]["bytes"]
    assert all(row["bound"] > 0 for row in rows)


@pytest.mark.slow
def test_the_bound_counts_the_operations_of_products(capsys):
    a, b = torch.randn(30, 40), torch.randn(40, 50)
    found = speed_bound.operations(lambda: (a @ b).relu())
    assert found["flops"] == 2 * 30 * 40 * 50
    assert found["products"] > 0 < found["other"]
    rows = speed_bound.bound(**speed_bound.QUICK)
    assert [row["phase"] for row in rows] == ["rollouts", "update"]
    assert all(row["attention"] > 0 and row["bound"] > 0 for row in rows)
    assert "M, update |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_profile_counts_the_operations_of_each_pass(capsys):
    [case] = speed_profile.breakdown(**speed_profile.QUICK, repeats=1)
    flops = case["flops"]
    # q, k, v and o are 64 x 64, three more matrices 64 x 168; 2 operations a parameter
    token = 2 * (4 * 64 * 64 + 3 * 64 * 168)
    # 2 prompts of 16 tokens; then 6 answers, whose first token comes from the prompts
    assert flops["prompts"]["frozen weights"] == 2 * 16 * token
    assert flops["decoding"]["frozen weights"] == 6 * 3 * token
    assert flops["decoding"]["head"] == 6 * 3 * 2 * 64 * 130
    assert flops["policy"]["LoRA"] > 0 == flops["reference"]["LoRA"]
    for kinds in case["seconds"].values():
        # some seconds were added; less the cost of timing, they can be below 0 at this size
        assert 0 not in [kinds[name] for name in ("frozen weights", "head", "attention")]
    [plain] = case["rounds"]
    total = sum(sum(kinds.values()) for kinds in case["seconds"].values())
    assert total == pytest.approx(sum(plain.values()))
    printed = capsys.readouterr().out
    assert f"6 rows {case['products']['decoding'] / 1e9:.0f} GF/s" in printed
    assert "| frozen weights |" in printed


def test_the_profile_times_an_operation():
    timer, matrix = speed_profile.Timer(Shape(64, 1, 130)), torch.randn(640, 640)
    with timer:
        start = time.thread_time()
        matrix @ matrix
        took = time.thread_time() - start
    product = "decoding", "frozen weights"
    assert timer.flops[product] == sum(timer.flops.values()) == 2 * 640**3
    assert timer.seconds[product] == pytest.approx(took, rel=0.2)


@pytest.mark.slow
def test_judging_during_sampling_is_compared_with_judging_after_it(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.speed_overlap.shutil.which", lambda name: None)
    found = speed_overlap.overlap(**speed_overlap.QUICK)
    assert list(found) == ["final answers"]
    for ways in found.values():
        assert list(ways) == ["after", "meanwhile"]
        assert all(seconds > 0 for way in ways.values() for seconds in way.values())
    assert "| final answers, meanwhile |" in capsys.readouterr().out


@pytest.mark.slow
def test_sharing_measures_time_and_memory_of_both_ways(capsys):
    found = speed_sharing.sharing(**speed_sharing.QUICK)
    for way in ("shared", "separate"):
        assert all(found[way][key] > 0 for key, _ in speed_sharing.ROWS)
    assert "2 prompts shared | 4 separate" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs TRL, the bench extra")
@pytest.mark.parametrize("has_units", [True, False])
def test_both_sides_do_equal_work(has_units, monkeypatch, capsys):
    monkeypatch.setattr(speed_peer, "cpu_has_bfloat16", lambda: has_units)
    [case] = speed_peer.smollm2(**speed_peer.QUICK | {"rounds": 1})
    assert case["prompt"] == 16
    assert ("bfloat16 is not measured" in capsys.readouterr().out) is not has_units
    sides = ("trl", "ours", "ours_bfloat16") if has_units else ("trl", "ours")
    assert set(case["steps"]) == set(sides)
    for name in sides:
        assert min(case[name][phase] for phase in ("generation", "reference", "policy")) > 0


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command in an empty folder; it does not change settings of the process."""
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "QUIET", {})
    monkeypatch.setattr(speed, "THREADS", torch.get_num_threads())

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["speed.py", *args])
        speed.main()
        return json.loads(speed.RESULT.read_text()) if speed.RESULT.is_file() else None

    return run


def section(monkeypatch, name, result, **fixed):
    """Let a section return ``result``; ``--quick`` makes its size small."""

    def found(size=Size(), rounds=5, clock="wall"):  # noqa: B008 (frozen)
        return result

    monkeypatch.setitem(speed.SECTIONS, name, (found, {"size": Size(1, 1, 1, 9)}, fixed))


def test_a_section_replaces_its_own_figures_only(command, monkeypatch):
    section(monkeypatch, "peer", [1])
    section(monkeypatch, "scaling", [2])
    before = command("--only", "peer", "scaling")
    section(monkeypatch, "scaling", [3])
    section(monkeypatch, "peer", None)  # as if TRL were not installed
    after = command("--only", "scaling", "peer")
    assert after["scaling"]["result"] == [3]
    assert after["peer"] == before["peer"]


def test_a_section_that_cannot_run_writes_nothing(command, monkeypatch, capsys):
    section(monkeypatch, "gpu", None)
    assert command("--only", "gpu") is None
    assert "benchmarks/latest.json: nothing\n" in capsys.readouterr().out


def test_a_failure_keeps_the_figures_measured_before_it(command, monkeypatch):
    def failing(clock):
        sys.exit("unequal work")

    section(monkeypatch, "peer", [1])
    monkeypatch.setitem(speed.SECTIONS, "scaling", (failing, {}, {}))
    with pytest.raises(SystemExit, match="unequal work"):
        command("--only", "peer", "scaling")
    assert json.loads(speed.RESULT.read_text())["peer"]["result"] == [1]


def test_a_quick_run_writes_no_file_and_says_so(command, monkeypatch, capsys):
    section(monkeypatch, "peer", [1])
    before = command("--only", "peer")
    section(monkeypatch, "peer", [2])
    assert command("--only", "peer", "--quick") == before
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "written to benchmarks/latest.json: nothing (--quick is a smoke test)"


def test_figures_are_stored_with_settings_versions_and_machine(command, monkeypatch):
    section(monkeypatch, "peer", [1], warm_up=1)
    peer = command("--only", "peer", "--rounds", "3", "--cpu-time")["peer"]
    assert peer["settings"] == {
        "size": {"queries": 8, "answers": 8, "new_tokens": 64, "prompt": 70},
        "rounds": 3,
        "clock": "cpu",
        "warm_up": 1,
        "threads": torch.get_num_threads(),
    }
    assert peer["versions"]["torch"] == importlib.metadata.version("torch")
    assert peer["machine"]["cores"] == os.cpu_count()


@pytest.mark.parametrize("name", speed.SECTIONS)
def test_the_settings_of_a_section_are_its_arguments_and_its_constants(name):
    measured, quick, fixed = speed.SECTIONS[name]
    arguments = set(inspect.signature(measured).parameters)
    assert set(quick) <= arguments
    assert not set(fixed) & arguments
    assert {"warm_up", "clock"} <= arguments | set(fixed)


@pytest.mark.parametrize("rounds", ["0", "-3"])
def test_rounds_are_one_or_more(command, capsys, rounds):
    with pytest.raises(SystemExit):
        command("--rounds", rounds)
    assert "error: --rounds: set 1 or more\n" in capsys.readouterr().err


def test_the_docstring_names_every_option(command, capsys):
    with pytest.raises(SystemExit):
        command("--help")
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"--[a-z-]+", speed.__doc__))


@pytest.mark.slow
def test_the_command_measures_a_preset_and_writes_its_figures(command):
    root = Path(speed.__file__).parents[1]
    config = str(root / "configs" / "tiny_lsp.yaml")
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.speed", "--only", "preset", "gpu"),
            *("--rounds", "1", "--config", config),
        ],
        env={"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    found = json.loads(speed.RESULT.read_text())
    assert set(found) == {"preset"}
    settings = {"config": config, "rounds": 1, "warm_up": 2, "clock": "wall", "threads": 1}
    assert found["preset"]["settings"] == settings
    parts = found["preset"]["result"]["seconds"].values()
    assert sum(parts) == pytest.approx(found["preset"]["result"]["total"])


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 1e-4), ("float32", 0.0)])
def test_the_noise_of_the_kl_term_is_the_samplers_alone(dtype, least):
    found = bf16_noise.measure(bf16_noise.TINY, dtype, queries=2, answers=3, tokens=8)
    assert found["kl_std_sampler"] >= least
    assert found["noise_share_sampler"] >= least
    for name in ("kl_trainer", "kl_std_trainer", "noise_share_trainer", "noise_share_k2_loss"):
        assert found[name] == 0
    assert "noise_share_sampler" in bf16_noise.table({dtype: found})
