"""Models that take turns on one GPU: idle weights wait in CPU memory and come back unchanged.

On a CPU nothing would move, so a second device is pretended: tensors sent to it stay where they
are and only say that they are there. What a GPU adds is the last test's, where there is one.
"""

from contextlib import contextmanager

import pytest
import torch
from handmade import playout
from small_game import make_policy, stir, tiny_round
from test_preference import build
from tiny_models import build_llama
from torch.overrides import TorchFunctionMode

from lsp_lightning import ConfigError, Paper, PreferenceReward
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.models.policy import Policy
from lsp_lightning.rewards import score_all
from lsp_lightning.rewards.base import LoadedModel
from lsp_lightning.runtime.memory import TokenBudget, move_frozen, moved
from lsp_lightning.training.gradient import LossSettings
from lsp_lightning.training.update import RoundUpdate

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
PLAYED = playout(["ab", "a longer query"], [["x", "a long answer"], ["yes", "no"]])


class PretendedCard(TorchFunctionMode):
    """A pretended GPU: ``to`` makes a copy that reports it as its device, as do its views."""

    def __init__(self):
        self._there = {}  # by address; kept alive, so that no address is used again

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == torch.Tensor.device.__get__:
            with torch._C.DisableTorchFunction():
                return CARD if args[0].data_ptr() in self._there else args[0].device
        given = [*args[1:], *kwargs.values()]
        if function is torch.Tensor.to and (CARD in given or CPU in given):
            plain = [CPU if value == CARD else value for value in args[1:]]
            named = {k: CPU if value == CARD else value for k, value in kwargs.items()}
            sent = function(args[0], *plain, **named).detach().clone()
            if CARD in given:
                self._there[sent.data_ptr()] = sent
            return sent
        return function(*args, **kwargs)


def state_tensors(parameter):
    """A parameter and all tensors of its quantisation state, the nested one's too."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return [parameter]
    return [
        parameter,
        state.absmax,
        state.code,
        state.offset,
        state.state2.absmax,
        state.state2.code,
    ]


def places(model, trained=False):
    """The devices of a model's weights."""
    return {
        tensor.device
        for parameter in model.parameters()
        if parameter.requires_grad == trained
        for tensor in state_tensors(parameter)
    }


@pytest.fixture
def card():
    with PretendedCard() as card:
        yield card


@pytest.fixture(scope="module")
def base(brief_folder):
    return brief_folder


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory):
    """A reward model with layers that fit 4-bit storage."""
    folder = tmp_path_factory.mktemp("reward")
    build(folder, hidden_size=64, intermediate_size=128)
    return folder


def step(policy, played):
    """One update of the policy. -> how far its weights moved."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten() for p in trained])
    update = RoundUpdate(policy, LossSettings(0.1, "k1_in_reward", 1.0), TokenBudget("m", 10**6))
    optimizer = torch.optim.SGD(trained, lr=0.1)
    update.gradient(played, Paper().advantages(played), optimizer, lambda x: x.backward(), seed=0)
    optimizer.step()
    return torch.cat([p.detach().flatten() for p in trained]) - before


# -- the policy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_parked_policy_has_its_frozen_weights_on_the_cpu_and_its_trained_ones_not(
    base, card, quantization
):
    policy = make_policy(base, quantization=quantization)
    if quantization:
        assert any(len(state_tensors(p)) > 1 for p in policy.parameters())
    policy.to(CARD)
    names = {id(p): n for n, p in policy.named_parameters()}
    assert places(policy) == places(policy, trained=True) == {CARD}
    with policy.parked():
        assert places(policy) == {CPU}
        assert places(policy, trained=True) == {CARD}
        assert policy.device == CARD  # rewards read this to choose their device
    assert places(policy) == places(policy, trained=True) == {CARD}
    assert names == {id(p): n for n, p in policy.named_parameters()}


def test_weights_come_back_after_an_exception_even_where_only_some_had_left(
    base, card, monkeypatch
):
    policy = make_policy(base)
    policy.to(CARD)
    with pytest.raises(ValueError, match="judge"), policy.parked():
        raise ValueError("the judge broke")
    assert places(policy) == {CARD}
    moves = []
    own = torch.Tensor.to

    class Refusing(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is own and CPU in args[1:]:
                moves.append(1)
                if len(moves) == 3:
                    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return function(*args, **(kwargs or {}))

    with pytest.raises(RuntimeError, match="can't allocate"), Refusing(), policy.parked():
        pytest.fail("it is not parked")
    assert len(moves) == 3
    assert places(policy) == {CARD}


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_after_parking_the_policy_computes_and_learns_what_it_would_have(base, quantization):
    plain, parked = (make_policy(base, quantization=quantization) for _ in range(2))
    for policy in (plain, parked):
        stir(policy, scale=0.05)
    played = tiny_round(plain)
    expected = step(plain, played)
    with PretendedCard():
        parked.to(CARD)
        with parked.parked():
            pass
        assert places(parked) == {CARD}
    moved_by = step(parked, played)
    assert torch.equal(moved_by, expected)
    assert moved_by.norm() > 0


def test_an_optimiser_made_before_parking_still_moves_the_policy(base, card):
    policy = make_policy(base)
    policy.to(CARD)
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    with policy.parked():
        pass
    before = [p.detach().clone() for p in trained]
    for p in trained:
        p.grad = torch.ones_like(p)
    optimizer.step()
    now = [p for p in policy.parameters() if p.requires_grad]
    assert all(torch.equal(new, old - 1) for new, old in zip(now, before, strict=True))


def test_without_lora_the_frozen_copy_waits(base, card):
    policy = Policy(str(base), lora=None)
    policy.to(CARD)
    [copy] = policy._copies
    move_frozen(copy, CARD)
    with policy.parked():
        assert places(copy) == {CPU}
        assert places(policy, trained=True) == {CARD}
    assert places(copy) == {CARD}


# -- the reward model ------------------------------------------------------------------------------


@contextmanager
def watched(reward, policy):
    """The devices of both models at each forward pass of the reward model."""
    seen, forward = [], reward._model.forward

    def noted(**inputs):
        seen.append((places(reward._model), places(policy)))
        return forward(**inputs)

    reward._model.forward = noted
    yield seen
    reward._model.forward = forward


@pytest.mark.parametrize(
    ("placement", "idle", "policy_meanwhile"),
    [("resident", CARD, CARD), ("offload", CPU, CARD), ("exclusive", CPU, CPU)],
)
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_where_the_reward_model_waits_and_works(
    base, reward_folder, placement, idle, policy_meanwhile, quantization
):
    policy = make_policy(base)
    plain = PreferenceReward(str(reward_folder), quantization=quantization)
    plain.connect(FrozenPlayer(policy))
    expected = plain.score(PLAYED).scores
    # load it on the CPU first, because quantisation looks for a real GPU
    reward = PreferenceReward(str(reward_folder), quantization=quantization, placement=placement)
    reward.connect(FrozenPlayer(policy))
    with PretendedCard():
        policy.to(CARD)
        reward.connect(FrozenPlayer(policy))
        assert places(reward._model) == {idle}
        with watched(reward, policy) as seen:
            scores = reward.score(PLAYED).scores
        assert seen == [({CARD}, {policy_meanwhile})]
        assert places(reward._model) == {idle}
        assert places(policy) == {CARD}
    assert torch.equal(scores, expected)


def test_an_exclusive_reward_model_is_loaded_while_the_policy_makes_room(
    base, reward_folder, monkeypatch
):
    policy, seen = make_policy(base), []
    load = PreferenceReward._load

    def watched_load(reward, device):
        seen.append(places(policy))
        load(reward, device)

    monkeypatch.setattr(PreferenceReward, "_load", watched_load)
    with PretendedCard():
        policy.to(CARD)
        for placement in ("resident", "exclusive"):
            reward = PreferenceReward(str(reward_folder), placement=placement)
            reward.connect(FrozenPlayer(policy))
        assert places(policy) == {CARD}
    assert seen == [{CARD}, {CPU}]


def test_weights_that_travelled_in_inference_mode_can_be_trained_with(base):
    policy = make_policy(base)
    with PretendedCard():
        policy.to(CARD)
        with torch.inference_mode(), policy.parked():
            pass
    assert not any(p.is_inference() or p.data.is_inference() for p in policy.parameters())


@pytest.mark.parametrize("placement", ["offload", "exclusive"])
def test_a_judgement_that_fails_leaves_all_weights_where_they_belong(
    base, reward_folder, placement
):
    policy = make_policy(base)
    reward = PreferenceReward(str(reward_folder), placement=placement)
    reward.connect(FrozenPlayer(policy))
    with PretendedCard():
        policy.to(CARD)

        def broken(**inputs):
            raise ValueError("a fault")

        reward._model.forward = broken
        with pytest.raises(ValueError, match="a fault"):
            reward.score(PLAYED)
        assert places(reward._model) == {CPU}
        assert places(policy) == {CARD}


def test_four_bits_change_a_reward_models_scores_little_and_leave_its_head(base, reward_folder):
    policy = make_policy(base)
    rewards = [
        PreferenceReward(str(reward_folder), quantization=quantization, name=str(quantization))
        for quantization in (None, "nf4")
    ]
    for reward in rewards:
        reward.connect(FrozenPlayer(policy))
    scored = score_all(rewards, PLAYED).components
    whole, packed = scored["None"].flatten(), scored["nf4"].flatten()
    assert not torch.equal(whole, packed)
    assert float(torch.corrcoef(torch.stack([whole, packed]))[0, 1]) > 0.9
    assert rewards[1]._model.score.weight.is_floating_point()
    assert len({id(p) for p in rewards[1]._model.parameters() if p.dtype == torch.uint8}) == 2 * 7
    assert not any(p.requires_grad for r in rewards for p in r._model.parameters())


def test_what_planning_reads_is_there_before_anything_is_loaded(reward_folder):
    reward = PreferenceReward(
        str(reward_folder), max_tokens=99, quantization="nf4", placement="offload"
    )
    assert reward.loads() == LoadedModel(str(reward_folder), "nf4", "offload", 99)


def test_an_unknown_placement_is_refused_in_one_line(reward_folder):
    with pytest.raises(ConfigError, match=r"\.placement: is 'attic'; set one of resident, offload"):
        PreferenceReward(str(reward_folder), placement="attic")


def test_a_reward_model_that_does_not_fit_is_said_so_in_one_line(base, reward_folder, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("lsp_lightning.rewards.preference.load_classifier", full)
    with pytest.raises(ConfigError, match="does not fit into memory beside the policy") as error:
        PreferenceReward(str(reward_folder)).connect(FrozenPlayer(make_policy(base)))
    assert "\n" not in str(error.value)


# -- a real GPU ------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_on_a_gpu_parking_frees_it_and_changes_nothing(tmp_path, quantization):
    folder = build_llama(tmp_path / "model", hidden=512, layers=4)
    policy = make_policy(folder, quantization=quantization, device=CARD)
    prompts = [[1, 20, 30, 40]]
    expected, held = policy.next_token_logprobs(prompts), torch.cuda.memory_allocated()
    frozen = sum(p.numel() * p.element_size() for p in policy.parameters() if not p.requires_grad)
    with moved(policy, CPU):
        assert torch.cuda.memory_allocated() < held - 0.9 * frozen
    assert torch.equal(policy.next_token_logprobs(prompts), expected)
