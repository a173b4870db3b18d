"""Held-out prompts without a right answer: win rates against the reference."""

import json
import math
import re
import zlib
from pathlib import Path

import pytest
import torch
from small_game import make_policy, stir

from lsp_lightning import PreferenceReward, Reward, Sampling, SelfReward
from lsp_lightning.callbacks.closing import heldout_line
from lsp_lightning.callbacks.summary import parameter_counts
from lsp_lightning.cli.main import main
from lsp_lightning.evaluation.exam import Answered, Exam, Opponent
from lsp_lightning.evaluation.heldout import HeldOutBoard, HeldOutScore, score_wins
from lsp_lightning.game.known_queries import Query, read_queries
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.rewards import JudgeReward, RewardError

ROOT = Path(__file__).parents[2]
PROMPTS = "pkg:lsp_lightning/data/prompts.jsonl"
TASKS = [Query(f"question {i}") for i in range(12)]


class Taste(Reward):
    """Scores an answer by its text alone, like a reward model; cannot judge some texts."""

    comparable = True

    def __init__(self, blind=0, **kwargs):
        super().__init__(name="taste", **kwargs)
        self.blind = blind
        self.asked = 0

    def score(self, playout):
        self.asked += len(playout.answers)

        def of(text):
            value = zlib.crc32(text.encode()) % 1000
            return math.nan if value % 10 < self.blind else float(value)

        return torch.tensor([[of(a) for a in group] for group in playout.answer_groups()])


@pytest.fixture(scope="module")
def base(brief_folder):
    return str(brief_folder)


def play(policy, reward, opponent=None, draws=2, tasks=TASKS):
    player = Player.local(policy)
    sampling = Sampling(max_new_tokens=8)
    exam = Exam.of(player.codec, tasks, reward, sampling, "{query}", draws, seed=3)
    return score_wins(player, exam, FrozenPlayer(policy), opponent or Opponent())


# -- one answer against another --------------------------------------------------------------------


def answered(*pairs):
    return Answered(tuple((t,) for t, _ in pairs), torch.tensor([[s] for _, s in pairs]))


def test_a_win_is_one_a_tie_a_half_and_a_loss_nothing():
    mine = answered(("a", 2.0), ("b", 1.0), ("c", 0.0))
    theirs = answered(("x", 1.0), ("y", 1.0), ("z", 5.0))
    assert mine.wins_against(theirs).flatten().tolist() == [1.0, 0.5, 0.0]
    assert theirs.wins_against(mine).flatten().tolist() == [0.0, 0.5, 1.0]


def test_equal_answers_tie_whatever_the_last_digits_of_their_scores():
    assert answered(("a", 1.0000001)).wins_against(answered(("a", 1.0))).item() == 0.5


def test_an_unjudged_answer_neither_wins_nor_loses():
    for mine, theirs in ((math.nan, 1.0), (1.0, math.nan)):
        won = answered(("a", mine)).wins_against(answered(("b", theirs)))
        assert won.isnan().all()


def test_an_infinite_score_counts_as_unjudged(base):
    class Overflow(Taste):
        def score(self, playout):
            scores = super().score(playout)
            return torch.where(scores % 7 == 0, math.inf, scores)

    score = play(make_policy(base), Overflow(), draws=4)
    assert score.sampled.isnan().any()


def test_a_judge_that_can_judge_nothing_is_an_error(base):
    policy, board = make_policy(base), HeldOutBoard()
    player = Player.local(policy)
    exam = Exam.of(
        player.codec, TASKS, Taste(blind=10), Sampling(max_new_tokens=8), "{query}", 1, 0
    )
    board.score(player, exam, "win_rate", FrozenPlayer(policy))
    with pytest.raises(RewardError, match="'taste' could not judge any held-out answer"):
        board.close()


# -- a policy against its reference ----------------------------------------------------------------


def test_before_training_greedy_answers_tie_and_sampled_ones_are_even(base):
    score = play(make_policy(base), Taste(), draws=20)
    assert score.kind == "win_rate"
    assert score.greedy.tolist() == [0.5] * 12
    # 240 coins that fall even: four standard deviations are .13
    assert score.sampled.shape == (12, 20)
    assert float(score.sampled.mean()) == pytest.approx(0.5, abs=0.13)
    assert set(score.sampled.flatten().tolist()) >= {0.0, 1.0}


def test_the_policy_and_the_reference_draw_from_different_seeds(base):
    # from one seed all pairs would be alike
    score = play(make_policy(base), Taste(), draws=8)
    assert float((score.sampled != 0.5).float().mean()) > 0.5


def test_a_policy_that_has_moved_wins_and_loses_greedily_too(base):
    policy = make_policy(base)
    stir(policy)
    score = play(policy, Taste())
    assert set(score.greedy.tolist()) >= {0.0, 1.0}


def test_the_reference_answers_once_and_does_not_move(base):
    policy, reward, opponent = make_policy(base), Taste(), Opponent()
    play(policy, reward, opponent)
    both = reward.asked
    stir(policy)
    moved = play(policy, reward, opponent)
    assert reward.asked == both + both // 2
    fresh = play(policy, Taste())
    assert torch.equal(moved.sampled, fresh.sampled)
    assert torch.equal(moved.greedy, fresh.greedy)


def test_the_cache_tells_prompts_apart(base):
    policy, opponent = make_policy(base), Opponent()
    stir(policy)
    play(policy, Taste(), opponent)
    others = [Query(f"another {i}") for i in range(12)]
    assert torch.equal(
        play(policy, Taste(), opponent, tasks=others).greedy,
        play(policy, Taste(), tasks=others).greedy,
    )


def test_the_cache_tells_numbers_of_draws_apart(base):
    policy, opponent = make_policy(base), Opponent()
    stir(policy)
    play(policy, Taste(), opponent)
    assert torch.equal(
        play(policy, Taste(), opponent, draws=3).sampled, play(policy, Taste(), draws=3).sampled
    )


def test_the_reference_is_where_training_began(base, tmp_path):
    policy = make_policy(base)
    stir(policy)
    policy.save(tmp_path / "start")
    greedy = {
        choice: play(
            make_policy(base, init_adapter=str(tmp_path / "start"), reference=choice), Taste()
        ).greedy
        for choice in ("start", "base")
    }
    assert greedy["start"].tolist() == [0.5] * 12
    assert set(greedy["base"].tolist()) >= {0.0, 1.0}


# -- the board -------------------------------------------------------------------------------------


def scores_of(*scores):
    board = HeldOutBoard()
    for score in scores:
        board.add(score)
    board.close()
    return {name: float(value) for name, value in board.scores.items()}, board.kind


def test_unjudged_answers_do_not_count():
    sampled = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [0.0, 0.0]])
    greedy = torch.tensor([math.nan, math.nan, 0.5])
    scores, kind = scores_of(HeldOutScore(sampled, greedy, "win_rate"))
    assert kind == "win_rate"
    # tasks are the unit: the first has mean 1 and the last 0; half of sqrt(2 * .25) each
    expected = {
        "heldout/sampled": 0.5,
        "heldout/sampled_se": 0.5,
        "heldout/greedy": 0.5,
        "heldout/greedy_se": math.nan,
        "heldout/tasks": 2,
    }
    assert scores == pytest.approx(expected, nan_ok=True)


def test_pass_at_k_is_for_solved_tasks_only():
    sampled, greedy = torch.tensor([[1.0, 0.0]]), torch.tensor([1.0])
    assert "heldout/pass@2" in scores_of(HeldOutScore(sampled, greedy))[0]
    for kind in ("win_rate", "mean"):
        assert "heldout/pass@2" not in scores_of(HeldOutScore(sampled, greedy, kind))[0]


# -- which rewards compare -------------------------------------------------------------------------


def test_reward_models_and_absolute_grades_compare_and_a_ring_does_not():
    assert PreferenceReward.comparable
    url = "http://127.0.0.1:1/v1"
    assert JudgeReward(url, "judge", mode="grade").comparable
    assert not JudgeReward(url, "judge", mode="compare").comparable
    assert not SelfReward().comparable


# -- the printed lines -----------------------------------------------------------------------------


def test_the_line_at_the_end_says_what_the_numbers_are():
    before = {"greedy": 0.5, "greedy_se": 0.071, "n": 50}
    after = {"greedy": 0.64, "greedy_se": 0.068, "n": 50}
    wins = heldout_line("greedy", before, {**after, "kind": "win_rate"}, "the start adapter")
    assert "win rate against the reference, greedy answers: 50.0% -> 64.0%" in wins
    error = "standard error 7.1% -> 6.8%"
    assert f"(50 prompts, {error}; the reference is the start adapter)" in wins
    solved = heldout_line("greedy", before, {**after, "kind": "solved"}, "the base")
    assert f"held-out tasks solved by greedy answers: 50.0% -> 64.0%  (50 tasks, {error})" in solved
    mean = heldout_line("greedy", before, {**after, "kind": "mean"}, "the base")
    assert mean == (
        "mean held-out reward of greedy answers: 0.500 -> 0.640  (50 tasks, standard error 0.071 "
        "-> 0.068)"
    )
    none = {"greedy": math.nan, "greedy_se": math.nan, "n": 0, "kind": "solved"}
    assert "50.0% -> not judged  (50 -> 0 tasks)" in heldout_line("greedy", before, none, "")


def test_packed_weights_are_counted_as_what_they_stand_for(tiny_llama_folder):
    pytest.importorskip("bitsandbytes")
    plain = make_policy(tiny_llama_folder)
    packed = make_policy(tiny_llama_folder, quantization="nf4")
    assert sum(p.numel() for p in packed.parameters()) < sum(p.numel() for p in plain.parameters())
    assert parameter_counts(packed) == parameter_counts(plain)
    every, trained = parameter_counts(plain)
    assert every == sum(p.numel() for p in plain.parameters())
    assert trained == sum(t.numel() for t in plain.trained_state().values())


# -- the prompts of the package --------------------------------------------------------------------


def test_the_prompts_of_the_package_are_fifty_different_ones_without_solutions():
    prompts = read_queries(PROMPTS, "data.heldout")
    assert len({prompt.text.lower() for prompt in prompts}) == len(prompts) == 50
    assert all(prompt.solution is None for prompt in prompts)
    assert all(40 <= len(prompt.text) <= 400 for prompt in prompts)
    # any tokenizer knows their characters
    assert all(prompt.text.isascii() and prompt.text.isprintable() for prompt in prompts)


# -- a run -----------------------------------------------------------------------------------------


def fit_args(folder, tasks, rewards, *more):
    return [
        "fit",
        *("--config", str(ROOT / "configs" / "tiny_preference.yaml")),
        *("--model.rewards", json.dumps(rewards)),
        *("--trainer.default_root_dir", str(folder)),
        *("--trainer.max_steps", "2", "--data.num_queries", "3", "--data.group_size", "2"),
        *("--data.heldout", str(tasks), "--data.test", str(tasks)),
        *("--data.heldout_reward", "null"),
        *more,
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
def test_a_run_with_a_reward_model_ends_with_its_win_rate(tmp_path, capfd):
    lines = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()[:8]
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("\n".join(lines) + "\n")
    model = {"model": "pkg:lsp_lightning/tinyworld/reward_model", "standardize": True}
    rewards = [{"class_path": "lsp_lightning.PreferenceReward", "init_args": model}]
    fast = ["--model.optimizer.init_args.lr", "0.1"]
    assert main(fit_args(tmp_path / "run", tasks, rewards, *fast)) == 0
    shown = capfd.readouterr().out
    found = re.findall(r"win rate against the reference, (\w+) answers: \S+ -> (\S+)%", shown)
    assert [name for name, _ in found] == ["sampled", "greedy"]
    assert "solved" not in shown
    assert (
        len(re.findall(r"\(8 prompts, standard error .*; the reference is the base\)", shown)) == 2
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = summary["heldout_before"], summary["heldout_after"]
    expected = {"greedy": 0.5, "greedy_se": 0.0, "n": 8, "kind": "win_rate"}
    assert before == expected | {name: before[name] for name in ("sampled", "sampled_se")}
    assert after["n"] == 8
    assert after["greedy"] != 0.5
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint]) == 0
    scores = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert scores["kind"] == "win_rate"
    assert scores["tasks"] == 8
    assert scores["heldout/greedy"] == after["greedy"]
    assert scores["heldout/sampled"] == after["sampled"]


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.slow
def test_a_run_scores_the_prompts_of_the_package(base, tmp_path, capfd):
    rewards = [{"class_path": f"{__name__}.Taste"}]
    small = ["--model.base", base, "--data.solver.max_new_tokens", "6"]
    assert main(fit_args(tmp_path / "run", PROMPTS, rewards, *small)) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_before"]["n"] == summary["heldout_after"]["n"] == 50
    assert summary["heldout_before"]["greedy"] == 0.5
    assert summary["gpu_peak_gib"] is None
    assert "win rate against the reference" in capfd.readouterr().out


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.slow
def test_scores_of_another_kind_are_not_compared_after_a_resume(base, tmp_path, capfd):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"query": "one"}\n{"query": "two"}\n')
    small = ["--model.base", base]
    taste = [{"class_path": f"{__name__}.Taste"}]
    assert main(fit_args(tmp_path / "run", tasks, taste, *small)) == 0
    checksum = {"class_path": "lsp_lightning.VerifiableReward"}
    checksum["init_args"] = {"verifier": "small_game.Checksum"}
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    more = ["--trainer.max_steps", "3", "--model.rewards", json.dumps([checksum])]
    assert main(["fit", "--ckpt_path", checkpoint, "--trust", *more]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_before"] is None
    assert summary["heldout_after"]["kind"] == "solved"
