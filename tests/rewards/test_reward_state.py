"""Rewards keep their state in the checkpoint, so a resumed run equals an uninterrupted one."""

import json

import pytest
import torch
from handmade import playout
from lightning.pytorch import Callback
from small_game import SHORT_PROMPT, Checksum, tiny_trainer

from lsp_lightning import (
    Challenger,
    ConfigError,
    FunctionReward,
    Lora,
    NoveltyReward,
    Paper,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint
from lsp_lightning.models.policy import Policy
from lsp_lightning.rewards import query_rewards

ROUNDS = 4


@pytest.fixture(scope="module", autouse=True)
def short_memory():
    """NoveltyReward remembers seven queries, fewer than a run writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_rewards, "_REMEMBERED", 7)
        yield


@pytest.fixture(scope="module")
def base(brief_folder):
    return str(brief_folder)


def letters(query, answers, solution):
    """Far from 0 and 1, and other in every round."""
    return [100.0 + sum(map(ord, answer)) % 37 for answer in answers]


def rewards():
    """Two of one class with a scale each, and one with a memory."""
    return [
        FunctionReward(letters, standardize=True),
        FunctionReward(letters, name="second", weight=-0.5, enters="quality", standardize=True),
        NoveltyReward(near=0.0),
    ]


def make_module(base, **kwargs):
    torch.manual_seed(3)  # what seed_everything does for the adapter's first weights
    settings = {
        "lora": Lora(rank=2, alpha=4),
        "rewards": rewards(),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.02),
        "objective": Paper(),
        **kwargs,
    }
    return SelfPlayModule(base, **settings)


def make_data(**kwargs):
    settings = {
        "queries": Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=8)),
        "num_queries": 3,
        "group_size": 2,
        "solver": Sampling(max_new_tokens=6),
        "seed": 11,
        **kwargs,
    }
    return SelfPlayDataModule(**settings)


class Diary(Callback):
    """What was logged of each round, and the rounds themselves."""

    def __init__(self):
        self.metrics, self.rounds = {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rounds[batch.index] = batch
        self.metrics[batch.index] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("seconds/") and name != "tokens_per_second"
        }


class CrashBefore(Callback):
    """Ends the run in a way that nothing can prepare for."""

    def __init__(self, round_):
        self.round_ = round_

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch.index == self.round_:
            raise RuntimeError("the power went out")


def run(folder, base, rounds=ROUNDS, ckpt_path=None, callbacks=(), **kwargs):
    """A run to its end: all there is to compare about it."""
    diary, module = Diary(), make_module(base, **kwargs)
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), diary, *callbacks])
    trainer.fit(module, datamodule=make_data(), ckpt_path=ckpt_path)
    adapter = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    states = {reward.state_key: reward.state_dict() for reward in module.rewards}
    return {"metrics": diary.metrics, "adapter": adapter, "states": states}, diary.rounds


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def differences(whole, resumed):
    """Where a run that was resumed is not, to the bit, the one in one go."""
    found = {index for index in resumed["metrics"] if not same(whole["metrics"], resumed, index)}
    found |= {k for k, state in whole["states"].items() if state != resumed["states"].get(k)}
    return found | {
        name
        for name, tensor in whole["adapter"].items()
        if not torch.equal(tensor, resumed["adapter"][name])
    }


def same(metrics, resumed, index):
    ours, theirs = metrics[index], resumed["metrics"][index]
    return ours.keys() == theirs.keys() and all(
        ours[name] == theirs[name] or ours[name] != ours[name] for name in ours
    )


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """The run that nothing interrupts: what came of it, and its rounds."""
    return run(tmp_path_factory.mktemp("whole"), base)


@pytest.fixture(scope="module")
def half(base, tmp_path_factory):
    """The folder of a run that ended in the middle. Read only."""
    folder = tmp_path_factory.mktemp("half")
    run(folder, base, rounds=2)
    return folder


# -- what is remembered ----------------------------------------------------------------------------


def test_each_round_is_remembered_once(whole):
    result, rounds = whole
    scores = torch.cat([rounds[i].components["letters"].flatten() for i in range(ROUNDS)]).double()
    scale = result["states"]["FunctionReward[letters]"]["scale"]
    assert scale["count"] == scores.numel() == ROUNDS * 3 * 2
    assert scale["mean"] == pytest.approx(float(scores.mean()))
    spread = (scale["squares"] / scale["count"]) ** 0.5
    assert spread == pytest.approx(float(scores.std(unbiased=False)))
    texts = [t for i in range(ROUNDS) for t in rounds[i].playout.query_texts]
    normal = [" ".join(text.casefold().split()) for text in texts]
    newest = list(dict.fromkeys(normal[::-1]))[:7][::-1]
    assert result["states"]["NoveltyReward[novelty]"]["memory"] == newest


def test_rewards_were_standardised_over_the_rounds_so_far(whole):
    _, rounds = whole
    seen = []
    for index in range(ROUNDS):
        scores = rounds[index].components["letters"]
        seen.append(scores.double().flatten())
        everything = torch.cat(seen)
        expected = (scores - everything.mean()) / everything.std(unbiased=False)
        torch.testing.assert_close(rounds[index].rewards_NG, expected.float())
        torch.testing.assert_close(rounds[index].quality_NG, -0.5 * expected.float())


def test_novelty_was_measured_against_the_rounds_before(whole):
    _, rounds = whole
    reward = NoveltyReward(near=0.0)
    for index in range(ROUNDS):
        played = rounds[index]
        torch.testing.assert_close(
            played.components["novelty"], reward.score(played.playout).scores
        )
        reward.observe(played)


def test_a_round_is_scored_before_it_is_remembered(whole):
    _, rounds = whole
    first = rounds[0]
    fresh = NoveltyReward(near=0.0)
    torch.testing.assert_close(first.components["novelty"], fresh.score(first.playout).scores)
    assert first.components["novelty"].max() == 1


# -- checkpoints -----------------------------------------------------------------------------------


def plain(value):
    """Whether a value is one of the types that any reader of checkpoints knows."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(v) for key, v in value.items())
    return all(map(plain, value)) if isinstance(value, list) else type(value) in (int, float, str)


def test_a_checkpoint_holds_each_rewards_state_in_plain_values(half):
    states = torch.load(last(half), weights_only=True)["callbacks"]
    names = {"FunctionReward[letters]", "FunctionReward[second]", "NoveltyReward[novelty]"}
    assert names <= set(states)
    for name in names:
        assert plain(states[name]), name
        assert json.loads(json.dumps(states[name])) == states[name]
    assert states["FunctionReward[letters]"]["scale"]["count"] == 12
    assert len(states["NoveltyReward[novelty]"]["memory"]) <= 6


def test_a_resumed_run_is_the_run_in_one_go(whole, half, base, tmp_path):
    resumed, _ = run(tmp_path, base, ckpt_path=str(last(half)))
    assert sorted(resumed["metrics"]) == [2, 3]
    assert not differences(whole[0], resumed)


def test_a_run_that_crashed_goes_on_with_what_was_remembered(whole, base, tmp_path):
    with pytest.raises(RuntimeError, match="power"):
        run(tmp_path, base, callbacks=[CrashBefore(1)])
    resumed, _ = run(tmp_path / "on", base, ckpt_path=str(last(tmp_path)))
    assert sorted(resumed["metrics"]) == [1, 2, 3]
    assert not differences(whole[0], resumed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reward", "tamper"),
    [
        ("FunctionReward[letters]", lambda state: state["scale"].update(mean=90.0)),
        ("FunctionReward[letters]", lambda state: state["scale"].update(count=11)),
        ("FunctionReward[letters]", lambda state: state["scale"].update(squares=1.0)),
        ("FunctionReward[second]", lambda state: state["scale"].update(mean=90.0)),
        ("NoveltyReward[novelty]", lambda state: state.update(memory=["other"] * 6)),
    ],
)
def test_the_comparison_sees_a_state_that_is_not_what_it_was(
    whole, half, base, tmp_path, reward, tamper
):
    """A test of the test above: each part of the state matters, to the run and not only to it."""
    checkpoint = torch.load(last(half), weights_only=True)
    tamper(checkpoint["callbacks"][reward])
    torch.save(checkpoint, tmp_path / "tampered.ckpt")
    resumed, _ = run(tmp_path / "on", base, ckpt_path=str(tmp_path / "tampered.ckpt"))
    found = differences(whole[0], resumed)
    assert reward in found
    assert any("lora_" in str(name) for name in found)


def test_states_of_two_rewards_of_one_class_are_not_mixed_up(half, base, tmp_path):
    checkpoint = torch.load(last(half), weights_only=True)
    checkpoint["callbacks"]["FunctionReward[second]"]["scale"]["mean"] = 5000.0
    torch.save(checkpoint, tmp_path / "tampered.ckpt")
    resumed, _ = run(tmp_path / "on", base, rounds=3, ckpt_path=str(tmp_path / "tampered.ckpt"))
    first, second = (resumed["states"][f"FunctionReward[{n}]"] for n in ("letters", "second"))
    assert first["scale"]["mean"] < 200 < second["scale"]["mean"]


def test_a_reward_that_joins_later_starts_without_a_state(half, base, tmp_path):
    more = [*rewards(), FunctionReward(letters, name="joined", weight=0.0, standardize=True)]
    resumed, _ = run(tmp_path, base, rounds=3, ckpt_path=str(last(half)), rewards=more)
    counts = {
        name: resumed["states"][f"FunctionReward[{name}]"]["scale"]["count"]
        for name in ("letters", "joined")
    }
    assert counts == {"letters": 18, "joined": 6}


def test_held_out_tasks_and_their_scores_are_not_remembered(base, tmp_path):
    path = tmp_path / "heldout.jsonl"
    path.write_text("".join(json.dumps({"query": f"question {i}"}) + "\n" for i in range(3)))
    rewards = [FunctionReward(letters, standardize=True), NoveltyReward()]
    module = make_module(base, rewards=rewards)
    trainer = tiny_trainer(tmp_path / "run", 1, [RoundCheckpoint()])
    trainer.fit(module, datamodule=make_data(heldout=str(path)))
    assert float(trainer.callback_metrics["heldout/tasks"]) == 3
    assert rewards[0].state_dict()["scale"]["count"] == 6  # the round's answers
    assert not [text for text in rewards[1].state_dict()["memory"] if "question" in text]


# -- known solutions ----------------------------------------------------------


class Numbered(Checksum):
    """Needs a number to judge by."""

    def require(self, solution):
        if solution is not None and not isinstance(solution, int):
            raise ValueError(f"is {solution!r}, not a number")


@pytest.fixture
def no_model(monkeypatch):
    """No policy is loaded."""
    monkeypatch.setattr(Policy, "__init__", lambda *a, **k: pytest.fail("a model was loaded"))


def query_file(path, *solutions):
    lines = [{"query": f"question\n{i}", "reference": r} for i, r in enumerate(solutions)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def fit(base, folder, data, verifier):
    module = make_module(base, rewards=[VerifiableReward(verifier)])
    tiny_trainer(folder, 1).fit(module, datamodule=data)


@pytest.mark.parametrize("key", ["queries", "heldout", "test"])
@pytest.mark.usefixtures("no_model")
def test_a_solution_that_cannot_be_used_is_found_before_a_model_is_loaded(base, tmp_path, key):
    path = query_file(tmp_path / "queries.jsonl", 1, None, "two", "three")
    data = make_data(**{key: PromptFile(path) if key == "queries" else path})
    with pytest.raises(ConfigError) as error:
        fit(base, tmp_path / "run", data, Numbered())
    message = str(error.value)
    assert message.startswith(f"data.{key}: the solution of 'question\\n2' is 'two', not a number")
    assert "\n" not in message
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.usefixtures("no_model")
def test_of_a_long_query_the_beginning_is_shown(base, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text(json.dumps({"query": "long " * 50, "reference": "x"}) + "\n")
    with pytest.raises(ConfigError) as error:
        fit(base, tmp_path / "run", make_data(queries=PromptFile(str(path))), Numbered())
    assert "'long long" in str(error.value)
    assert len(str(error.value)) < 150


def test_usable_solutions_and_missing_ones_pass(base, tmp_path):
    path = query_file(tmp_path / "queries.jsonl", 1, None, 3)
    fit(base, tmp_path / "one", make_data(queries=PromptFile(path), test=path), Numbered())
    fit(base, tmp_path / "two", make_data(), Numbered())


def test_every_solution_of_every_file_is_checked(tmp_path):
    class Seeing(Numbered):
        def require(self, solution):
            seen.append(solution)

    seen = []
    paths = [query_file(tmp_path / f"{name}.jsonl", *r) for name, r in [("a", "ab"), ("b", [1, 2])]]
    data = make_data(queries=PromptFile(paths[0]), heldout=paths[1], test=paths[1])
    data.check_solutions(Seeing())
    assert seen == ["a", "b", 1, 2, 1, 2]


def test_outside_a_run_a_reward_needs_no_data():
    reward = VerifiableReward(Numbered())
    reward.setup(None, None, "fit")
    assert reward.score(playout(["q"], [["a", "b"]], solutions=["x"])).scores.shape == (1, 2)
