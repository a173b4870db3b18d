"""The speed benchmark: it measures equal work, and its sums are right. What it finds is no test."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from benchmarks import speed_gpu, speed_peer, speed_scaling, speed_sharing
from benchmarks.random_model import Shape, make_random_model
from benchmarks.speed_game import Game, Size
from benchmarks.speed_peer import check_equal, summary
from benchmarks.speed_scaling import straight_line
from benchmarks.speed_work import Side, Step, Stopwatch, Work, make_queries
from lsp_lightning import Policy

SHAPE = Shape(64, 1, 128)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    make_random_model(folder, SHAPE)
    return folder


def test_the_maker_makes_the_shape_it_is_asked_for(tmp_path):
    count = make_random_model(tmp_path, Shape(64, 2, 130, intermediate=96, heads=4, kv_heads=1))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.num_hidden_layers, config.vocab_size, config.num_key_value_heads) == (2, 130, 1)
    # a layer: q and o 64 x 64, k and v 64 x 16, three matrices 64 x 96, two norms of 64;
    # then the tied embeddings and the last norm
    assert count == 2 * (2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96 + 2 * 64) + 130 * 64 + 64


def test_prompts_have_the_length_that_is_asked_for(model):
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


def test_a_straight_line_is_found_and_a_bent_one_shows():
    line = straight_line([1, 2, 4, 8], [5.0, 7.0, 11.0, 19.0])
    assert (line["a"], line["b"]) == (pytest.approx(3.0), pytest.approx(2.0))
    assert line["largest_error"] < 1e-9
    # at 0 the a that makes 2 (a - 1)^2 + (a/4 - 1)^2 least is 12/11, which misses 4 by 8/11 of it
    bent = straight_line([0, 0, 0, 1], [1.0, 1.0, 4.0, 5.0])
    assert bent["largest_error"] == pytest.approx(8 / 11)


def test_a_game_writes_exactly_what_it_is_asked_for_and_learns(model):
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


def test_our_side_steps_on_command(model, tmp_path):
    work = Work(str(model), make_queries(2, 16), group_size=2, new_tokens=3, steps=2)
    side = Side("speed_ours", tmp_path)
    try:
        side.begin(work)
        for _ in range(work.steps):
            side.go()
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
    with pytest.raises(SystemExit, match=r"speed_ours failed:[^$]*nothing"):
        side.step()
    side.close()


def test_scaling_plays_each_value(capsys):
    tables = speed_scaling.scaling(**speed_scaling.QUICK)
    assert [row["value"] for row in tables["answers"]["rows"]] == [1, 2, 4]
    assert [row["value"] for row in tables["vocabulary"]["rows"]] == [128, 256]
    assert "| answers | rollouts, s |" in capsys.readouterr().out


def test_the_gpu_section_runs_though_what_a_cpu_makes_of_it_says_nothing():
    rows = speed_gpu.gpu(**speed_gpu.QUICK, device="cpu")
    assert [row["weights"] for row in rows] == ["bf16", "nf4"]
    assert rows[1]["bytes"] < rows[0]["bytes"]
    assert all(row["bound"] > 0 for row in rows)


@pytest.mark.slow
def test_sharing_measures_time_and_memory_of_both_ways(capsys):
    found = speed_sharing.sharing(**speed_sharing.QUICK)
    for way in ("shared", "separate"):
        assert all(found[way][key] > 0 for key, _ in speed_sharing.ROWS)
    assert "2 prompts shared | 4 separate" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs TRL, the bench extra")
def test_both_sides_do_equal_work():
    [case] = speed_peer.peer(**speed_peer.QUICK, rounds=1)
    assert case["prompt"] == 16
    for phase in ("generation", "reference", "policy"):
        assert case["trl"][phase] > 0
        assert case["ours"][phase] > 0


@pytest.mark.slow
def test_the_command_writes_what_it_found(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    root = str(pytest.importorskip("benchmarks").__path__[0]).rpartition("/")[0]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", "--only", "scaling", "gpu", "--quick"],
        cwd=tmp_path,
        env={"PYTHONPATH": root, "PYTHONSAFEPATH": "1", "PATH": ""},
        check=True,
    )
    found = json.loads((tmp_path / "benchmarks" / "latest.json").read_text())
    assert {"machine", "versions", "clock", "scaling", "gpu", "seconds"} == set(found)
