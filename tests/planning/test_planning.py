"""The plan: dry runs against real ones and against arithmetic, and what is said of it."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from architectures import build as build_architecture
from few import few
from small_game import Checksum
from torch import nn
from transformers import Gemma3TextConfig, MixtralConfig

from lsp_lightning import (
    Gate,
    Judged,
    Paper,
    Pool,
    PreferenceReward,
    SelfPlayDataModule,
    SelfPlayModule,
    SelfReward,
    VerifiableReward,
)
from lsp_lightning.cli.main import main
from lsp_lightning.errors import ConfigError
from lsp_lightning.functional import selfplay_loss
from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.queries import QuerySource
from lsp_lightning.generation import LocalEngine
from lsp_lightning.generation.settings import ServedRollouts
from lsp_lightning.models import loading
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.settings import Lora
from lsp_lightning.planning import check_model, estimate, lengths, memory_line, phases, settings
from lsp_lightning.planning.advice import advice
from lsp_lightning.planning.estimate import GIB, make_plan
from lsp_lightning.planning.lengths import (
    ASSUMED_QUERY,
    ASSUMED_TEMPLATE,
    PlannedRollout,
    _context,
)
from lsp_lightning.planning.models import (
    CLASSIFIER,
    ModelSpec,
    shares_prompts,
    short_models,
    sizes,
)
from lsp_lightning.planning.packed import PackedLinear
from lsp_lightning.planning.phases import cost
from lsp_lightning.planning.report import report
from lsp_lightning.planning.settings import read_settings
from lsp_lightning.planning.shapes import Shape, batch_shape, train_batch
from lsp_lightning.planning.tracking import LiveBytes, dry_run
from lsp_lightning.types import Sampling

ROOT = Path(__file__).parents[2]
WORLD = "pkg:lsp_lightning/tinyworld"
FLOAT = 4


@pytest.fixture
def module():
    """The tiny world's model, judged by a reward model and by its reference; nothing is loaded."""
    rewards = [PreferenceReward(f"{WORLD}/reward_model"), SelfReward()]
    return SelfPlayModule(f"{WORLD}/base", rewards, objective=Paper())


@pytest.fixture
def shallow(tiny_llama_folder):
    """A model of two layers, judged by its reference: dry runs take as long as it has layers."""
    rewards = [VerifiableReward(Checksum()), SelfReward()]
    return SelfPlayModule(str(tiny_llama_folder), rewards, objective=Paper())


@pytest.fixture
def data():
    """Two queries of at most 16 tokens, three answers of at most 8."""
    return SelfPlayDataModule(
        Challenger(sampling=Sampling(max_new_tokens=16)), 2, 3, Sampling(max_new_tokens=8)
    )


# -- the tracker -----------------------------------------------------------------------------------


def test_what_lives_at_once_is_counted():
    with LiveBytes() as tracker:
        a = torch.ones(1000)  # 4000
        b = a + 1  # 8000
        c = a * b  # 12000, the most
        del a, b
        d = c[:10]  # a view takes nothing
        e = d + c[10:20]  # 4040
    assert tracker.peak == 3 * 1000 * FLOAT
    assert tracker.live == 1000 * FLOAT + 10 * FLOAT
    assert e.shape == (10,)


def test_what_was_there_before_counts_for_nothing():
    before = torch.ones(1000)
    with LiveBytes() as tracker:
        before.view(10, 100).add_(1)
        assert tracker.peak == 0
        del before
    assert tracker.live == 0


def test_a_dry_run_computes_nothing_but_small_real_tensors():
    real = torch.tensor([True, False, True])
    with dry_run() as tracker:
        huge = torch.ones(2**20, 2**20) * 2  # 4 TB
        assert len(real.nonzero()) == 2
    assert tracker.peak == 2 * FLOAT * 2**40
    assert huge.shape == (2**20, 2**20)


def test_operations_are_counted():
    with dry_run() as tracker:
        torch.ones(3, 5) @ torch.ones(5, 7)
    assert tracker.flops == 2 * 3 * 5 * 7


# -- a dry run against a real one -----------------------------------------------------------------


@pytest.fixture
def shares_nothing(monkeypatch):
    """Models compute every row for itself, in plans and for real."""
    monkeypatch.setattr("lsp_lightning.prefix.sharing.ATTENTIONS", ())
    for cached in (phases._dry_model, cost, shares_prompts):
        cached.cache_clear()
    yield
    for cached in (phases._dry_model, cost, shares_prompts):
        cached.cache_clear()


def assert_an_update_is_planned(folder, checkpointing, shared):
    shape = Shape(5, 20, 30, draws=2)
    policy = Policy(str(folder), activation_checkpointing=checkpointing)
    assert policy.shares_prompts == shared
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    batch = train_batch(shape, shared)
    assert batch.input_ids.numel() == (20 + 19 + 20 + 5 * 29 if shared else 5 * 49)
    ones = torch.ones(5)
    with LiveBytes() as tracker:
        logprobs, _ = policy.completion_logprobs(batch)
        zeros = torch.zeros_like(logprobs)
        selfplay_loss(logprobs, zeros, batch.mask, ones, ones, 0.0).backward()
    spec = ModelSpec(str(folder), torch.float32, lora=Lora(), checkpointing=checkpointing)
    planned = cost(phases.update, spec, shape)
    assert planned.peak == pytest.approx(tracker.peak, rel=0.02)
    assert planned.flops == pytest.approx(tracker.flops, rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_update_takes_what_the_plan_says(tiny_qwen3_folder, checkpointing):
    assert_an_update_is_planned(tiny_qwen3_folder, checkpointing, shared=True)


@pytest.mark.slow
@pytest.mark.usefixtures("shares_nothing")
def test_an_update_of_plain_rows_takes_what_the_plan_says(tiny_qwen3_folder):
    assert_an_update_is_planned(tiny_qwen3_folder, checkpointing=True, shared=False)


@pytest.mark.parametrize(
    "new",
    # room for 64, 128 and 256 tokens of a completion
    [50, *(pytest.param(new, marks=pytest.mark.slow) for new in (1, 131, 140, 200))],
)
def test_a_rollout_takes_what_the_plan_says(tiny_qwen3_folder, new, monkeypatch):
    """Of full length: no token ends a completion, so no row leaves, and none is copied then."""
    shape = Shape(40, 20, new, draws=10)
    monkeypatch.setattr(phases, "COMPACT_AT", 1 / shape.rows)
    policy = Policy(str(tiny_qwen3_folder))
    engine = LocalEngine(policy.causal_lm, [], 0)
    with LiveBytes() as tracker:
        engine.generate(shape.prompt_ids(), shape.draws, Sampling(max_new_tokens=new), 0)
    spec = ModelSpec(str(tiny_qwen3_folder), torch.float32, lora=Lora())
    first, last = (cost.__wrapped__(p, spec, shape) for p in (phases.prefill, phases.decode))
    # the engine's notes, 20 bytes a token, are not planned: 4 % of so small a model's cache
    assert max(first.peak, last.peak) == pytest.approx(tracker.peak, rel=0.06)
    assert last.peak > first.peak


@pytest.mark.slow
def test_rows_that_leave_are_planned(tiny_qwen3_folder):
    spec = ModelSpec(str(tiny_qwen3_folder), torch.float32, lora=Lora())
    planned = cost(phases.decode, spec, Shape(40, 20, 200, draws=10))
    layer = 40 * 200 * 2 * 2 * 16 * FLOAT  # rows, tokens, (keys, values), heads, numbers
    assert planned.peak > planned.cache + 0.875 * layer
    assert cost(phases.decode, spec, Shape(1, 20, 200)).cache  # of one row, none goes on


@pytest.mark.parametrize("name", ["llama", "qwen3.5", "gemma3", "gpt-oss", "granite-hybrid"])
def test_the_plan_knows_which_models_share_prompts(name, tmp_path):
    folder = str(build_architecture(name, tmp_path))
    assert shares_prompts(ModelSpec(folder, torch.float32)) == Policy(folder).shares_prompts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen3.5", "gemma3", "gpt-oss", "granite-hybrid"])
def test_every_phase_of_an_architecture_is_planned(name, tmp_path):
    spec = ModelSpec(str(build_architecture(name, tmp_path)), torch.float32, lora=Lora())
    for phase in (phases.update, phases.reference, phases.judging, phases.prefill, phases.decode):
        assert cost(phase, spec, Shape(4, 6, 5, draws=2)).peak > 0


@pytest.mark.slow
def test_cards_that_compute_in_float16_keep_the_scores_of_attention_without_a_mask():
    def kept(shape):
        """Bytes that an update takes more than where no scores are kept."""
        half, brain = (
            cost(phases.update, ModelSpec(f"{WORLD}/base", dtype, lora=Lora()), shape).peak
            for dtype in (torch.float16, torch.bfloat16)
        )
        return half - brain

    scores = 4 * 64 * 64 * 2  # heads, places, places, bytes of one layer and row
    alone = kept(Shape(8, 32, 33))  # 64 places of each are read
    behind = kept(Shape(8, 32, 33, draws=4))  # two prompts without a mask, a quarter of a row each
    assert alone > 4 * 8 * scores  # of all four layers
    assert 4 * 2 * scores / 4 * 0.9 < behind < alone / 4


@pytest.mark.slow
def test_checkpointing_takes_less(tiny_llama_folder):
    spec = ModelSpec(str(tiny_llama_folder), torch.float32, lora=Lora())
    shape = Shape(4, 100, 100, draws=2)
    less = cost(phases.update, replace(spec, checkpointing=True), shape).peak
    assert less < 0.7 * cost(phases.update, spec, shape).peak


def test_the_weights_are_those_of_the_policy(tiny_llama_folder):
    policy = Policy(str(tiny_llama_folder), lora=Lora(rank=4))
    own = sizes(ModelSpec(str(tiny_llama_folder), torch.float32, lora=Lora(rank=4)))
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert own.trained == sum(p.numel() * FLOAT for p in trained)
    assert own.trained_parameters == sum(p.numel() for p in trained)
    tensors = [*policy.parameters(), *policy.buffers()]
    assert own.frozen + own.trained == sum(t.numel() * t.element_size() for t in tensors)


def test_a_start_adapter_has_a_frozen_twin(tiny_llama_folder, tmp_path):
    Policy(str(tiny_llama_folder), lora=Lora(rank=4)).save(tmp_path)
    spec = ModelSpec(str(tiny_llama_folder), torch.float32, lora=Lora(), init_adapter=str(tmp_path))
    own, bare = sizes(spec), sizes(replace(spec, reference="base"))
    assert (
        own.trained
        == bare.trained
        == sizes(ModelSpec(str(tiny_llama_folder), torch.float32, lora=Lora(rank=4))).trained
    )
    assert own.frozen - bare.frozen == own.trained


def test_a_packed_layer_takes_what_bitsandbytes_takes():
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit

    real = Linear4bit(256, 512, bias=False, quant_type="nf4", compress_statistics=True)
    real = real.to("cpu")
    real.weight = real.weight.to("cpu")
    state = real.weight.quant_state
    tensors = [real.weight, state.absmax, state.state2.absmax]
    taken = sum(t.numel() * t.element_size() for t in tensors)
    packed = PackedLinear(nn.Linear(256, 512, bias=False), torch.bfloat16)
    assert packed.weight.numel() == pytest.approx(taken, rel=0.01)


def test_a_packed_layer_is_unpacked_forward_and_backward():
    with dry_run() as tracker:
        layer = PackedLinear(nn.Linear(64, 128, bias=False), torch.bfloat16)
        given = torch.zeros(2, 64, dtype=torch.bfloat16, requires_grad=True)
        start = tracker.live
        tracker.reset_peak()
        layer(given).sum().backward()
    assert given.grad.shape == given.shape
    assert tracker.peak - start >= 2 * 64 * 128  # the weight in bfloat16, for a while


# -- few layers stand for many ---------------------------------------------------------------------


@pytest.fixture
def by_config(monkeypatch):
    """Models by a config that is nowhere on disk."""
    found = {}
    monkeypatch.setattr(loading, "load_config", lambda base, key="": found[base])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase", [phases.update, phases.reference, phases.judging, phases.prefill, phases.decode]
)
def test_few_layers_tell_what_all_take(by_config, phase):
    """Two layers with a window of 16 tokens, then one without, and again."""
    by_config["gemma"] = Gemma3TextConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=9,
        layer_types=(["sliding_attention"] * 2 + ["full_attention"]) * 3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=16,
    )
    spec = ModelSpec("gemma", torch.bfloat16, packed=True, lora=Lora(), checkpointing=True)
    assert len(short_models(spec)) == 3
    few, whole = (cost(phase, spec, Shape(6, 20, 30, draws=3), whole=w) for w in (False, True))
    assert few.peak == pytest.approx(whole.peak, rel=0.03)
    assert few.cache == pytest.approx(whole.cache, rel=0.01)
    assert few.flops == pytest.approx(whole.flops, rel=0.01)


def test_the_cache_is_each_prompts_and_each_completions_keys_and_values(tiny_qwen3_folder):
    spec = ModelSpec(str(tiny_qwen3_folder), torch.float32, lora=Lora())
    # 2 layers x (keys, values) x 2 heads x 16 numbers x tokens: 2 prompts, 6 completions
    expected = 2 * 2 * 2 * 16 * (2 * 7 + 6 * 9) * FLOAT
    assert cost(phases.decode, spec, Shape(6, 7, 9, draws=3)).cache == expected


@pytest.mark.usefixtures("shares_nothing")
def test_the_cache_of_plain_rows_has_a_prompt_for_each(tiny_qwen3_folder):
    spec = ModelSpec(str(tiny_qwen3_folder), torch.float32, lora=Lora())
    expected = 2 * 2 * 2 * 16 * 6 * (7 + 9 - 1) * FLOAT  # all tokens but the last one
    taken = cost(phases.decode, spec, Shape(6, 7, 9, draws=3)).cache
    assert expected <= taken <= 1.05 * expected


@pytest.mark.slow
def test_a_mixture_of_experts_is_planned(by_config):
    by_config["moe"] = MixtralConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    assert (
        cost(phases.update, ModelSpec("moe", torch.float32, lora=Lora()), Shape(2, 5, 5)).peak > 0
    )


# -- a run's settings ------------------------------------------------------------------------------


def test_shapes_follow_from_the_settings(module, data):
    found = read_settings(module, data, "cpu")
    queries, answers = found.rollout("queries"), found.rollout("answers")
    assert (queries.prompts, queries.draws) == (1, 2)
    assert (answers.prompts, answers.draws) == (2, 3)
    assert answers.prompt > 16  # the longest query, in its frame
    assert queries.prompt > 16
    assert found.judge_prompt > answers.length
    assert [r.spec.kind for r in found.reward_models] == [CLASSIFIER]
    assert found.optimizer.bytes_each == pytest.approx(8, rel=0.01)  # AdamW's two moments


def test_a_micro_batch_holds_as_many_completions_as_may_be_together():
    rollout = PlannedRollout("answers", 3, 4, 90, Sampling(max_new_tokens=100), "k")
    assert batch_shape(rollout, 1000, shared=False) == Shape(5, 90, 100)  # 5 x 190
    # all twelve, if each has (1000 - 3 x 90) // 12 tokens: none can be longer
    assert batch_shape(rollout, 1000, shared=True) == Shape(12, 90, 60, 4)
    assert batch_shape(rollout, 10_000, shared=True) == Shape(12, 90, 100, 4)
    # not even their first tokens: 2 x (90 + 4 x 1) and 91 + 1 of the third
    assert batch_shape(rollout, 280, shared=True) == Shape(10, 90, 1, 4)
    assert batch_shape(rollout, 50, shared=True) == Shape(1, 90, 100)  # goes by itself


@pytest.mark.slow
def test_whole_weights_are_trained_beside_a_frozen_copy(data):
    reward = PreferenceReward(f"{WORLD}/reward_model")
    whole = SelfPlayModule(f"{WORLD}/base", [reward], None, objective=Paper())
    plan = make_plan(read_settings(whole, data, "cpu"))
    assert plan.parts["frozen copy"] == plan.parts["weights"]
    assert plan.parts["gradients"] == pytest.approx(plan.parts["weights"], rel=0.01)
    assert plan.parts["optimiser"] == pytest.approx(2 * plan.parts["gradients"], rel=0.01)
    [step] = [phase for phase in plan.phases if phase.name == "optimiser step"]
    assert step.temporary == pytest.approx(plan.parts["gradients"], rel=0.01)  # torch's own copies


@pytest.mark.slow
@pytest.mark.parametrize(
    "placement", [pytest.param("resident", marks=pytest.mark.slow), "offload", "exclusive"]
)
def test_a_reward_model_waits_where_it_is_told(tiny_llama_folder, data, placement):
    reward = PreferenceReward(f"{WORLD}/reward_model")
    module = SelfPlayModule(str(tiny_llama_folder), [reward], objective=Paper())
    found = read_settings(module, data, "cpu")
    [reward] = found.reward_models
    moved = replace(found, reward_models=(replace(reward, placement=placement),))
    plans = {p.name: p for p in make_plan(moved).phases}
    own, policy = sizes(reward.spec).frozen, sizes(found.policy).frozen
    base = plans["update"].resident
    judging = plans["judging by preference"].resident
    expected = {"resident": 0, "offload": own, "exclusive": own - policy}[placement]
    assert judging - base == expected
    assert ("reward model preference" in make_plan(moved).parts) == (placement == "resident")


@pytest.mark.slow
def test_a_gpu_has_a_context_and_bfloat16(shallow, data):
    found = read_settings(shallow, data, "cuda")
    assert found.policy.dtype == torch.bfloat16
    assert make_plan(found, brief=True).parts["CUDA context"] > 0.5 * GIB


@pytest.mark.slow
def test_what_a_server_draws_takes_nothing_here(data):
    rewards = [PreferenceReward(f"{WORLD}/reward_model"), SelfReward(reading="sampled")]
    rollouts = ServedRollouts("http://127.0.0.1:1/v1", "base", "adapters")
    here = SelfPlayModule(f"{WORLD}/base", rewards)
    served = SelfPlayModule(f"{WORLD}/base", rewards, rollouts=rollouts)
    all_here, found = (read_settings(model, data, "cpu") for model in (here, served))
    names = {phase.name for phase in make_plan(all_here).phases}
    assert {"answers", "judgements", "update"} <= names
    left = {phase.name for phase in make_plan(found).phases}
    assert left == names - {"queries", "answers", "held-out"}
    assert "without the server's rollouts" in report(found, None)
    assert memory_line(served, data, torch.device("cpu")).startswith("memory: about")
    assert advice(make_plan(found), 0.5 * make_plan(found).peak)


def test_the_line_of_a_run(shallow, data):
    line = memory_line(shallow, data, torch.device("cpu"))
    assert re.match(r"memory: about [\d.]+ (GiB|MiB) at most \(\w+\): weights \d+ MiB, ", line)
    assert "\n" not in line


def test_the_line_never_ends_a_run(module, data, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(settings, "planned_config", fails)
    assert memory_line(module, data, torch.device("cpu")) == "memory: not planned (no luck)"


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_fits_is_said_and_what_does_not_gets_advice(shallow, data):
    found = read_settings(shallow, data, "cuda")
    plan = make_plan(found)
    assert "yes" in report(found, 2 * plan.peak / GIB).splitlines()[-1]
    shown = report(found, 0.97 * plan.peak / GIB)
    assert f"too much in {plan.largest.name}" in shown
    assert "set " in shown.splitlines()[-1] or "smaller model" in shown.splitlines()[-1]


@pytest.mark.slow
def test_advice_lowers_the_peak_until_it_fits(module, data):
    module.budgets.micro_batches.tokens = 8192
    data.num_queries, data.group_size = 64, 8
    plan = make_plan(read_settings(module, data, "cpu"))
    steps = [
        (float(a), float(b))
        for line in advice(plan, 0.3 * plan.peak)
        for a, b in re.findall(r": ([\d.]+) -> ([\d.]+) GiB", line)
    ]
    assert steps
    assert all(after <= before for before, after in steps)


def test_the_command_prints_the_plan(untouched_process, capsys, tiny_llama_folder):
    tiny = [
        "--config",
        str(ROOT / "configs/tiny_grpo.yaml"),
        "--model.base",
        str(tiny_llama_folder),
    ]
    assert main(["plan", *tiny, "--gpu_gib", "8"]) == 0
    shown = capsys.readouterr().out
    for word in ("weights", "adapters", "optimiser", "KV cache", "update", "fits on 8 GiB: yes"):
        assert word in shown


def test_a_model_that_cannot_be_run_dry_is_one_line(shallow, data, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("its code asks what is in a tensor")

    monkeypatch.setattr(estimate, "cost", fails)
    found = replace(read_settings(shallow, data, "cuda"), micro_batch_tokens=77)
    with pytest.raises(ConfigError, match=r"model\.base.*cannot be planned"):
        report(found, 8)


@pytest.mark.parametrize("size", few(1, ["0", "-1", ".nan", ".inf"]))
def test_a_card_of_no_size_is_one_line(size, untouched_process, capsys):
    tiny = str(ROOT / "configs" / "tiny_lsp.yaml")
    assert main(["plan", "--config", tiny, "--gpu-gib", size]) == 2
    assert capsys.readouterr().err.startswith("error: gpu_gib: is ")


# -- the context -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ropes", "expected"),
    [
        ({"rope_type": "default"}, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        ({"rope_type": "longrope", "original_max_position_embeddings": 128}, 128),
        ({"rope_type": "dynamic", "factor": 4.0}, 512),
        ({"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 64}}, 64),
    ],
)
def test_rotary_embeddings_that_change_with_a_batch_count_to_where_they_do(ropes, expected):
    config = SimpleNamespace(max_position_embeddings=512, rope_parameters=ropes)
    assert _context(config)[0] == expected


def test_a_completion_that_the_context_cannot_hold_is_refused(module, data):
    prompt = f"{WORLD}/prompts/challenger.txt"  # the default one alone is too long for this model
    data.queries = Challenger(prompt=prompt, sampling=Sampling(max_new_tokens=16))
    module.rewards[1] = SelfReward(prompt=f"{WORLD}/prompts/judge.txt")
    check_model(module, data)
    data.solver = Sampling(max_new_tokens=100_000)
    with pytest.raises(ConfigError, match=r"data\.solver\.max_new_tokens: is 100000"):
        check_model(module, data)
    data.solver = Sampling(max_new_tokens=8)
    module.rewards[1] = SelfReward()  # its own prompt is too long for this model
    with pytest.raises(ConfigError, match=r"'self_reward' would judge up to \d+ tokens"):
        check_model(module, data)
    data.queries.sampling = Sampling(max_new_tokens=100_000)
    with pytest.raises(ConfigError, match=r"data\.queries\.init_args\.sampling\.max_new_tokens"):
        check_model(module, data)


def test_a_gates_judge_whose_prompt_the_context_cannot_hold_is_refused(module, tmp_path):
    (tmp_path / "judge.txt").write_text("{instruction}" + "." * 100)
    short = f"{WORLD}/prompts/challenger.txt"

    def check(template, tokens):
        module.rewards[1] = SelfReward(prompt=f"{WORLD}/prompts/judge.txt")
        source = Challenger(prompt=short, sampling=Sampling(max_new_tokens=tokens))
        gate = Gate([Judged(least=0.1, prompt=template)])
        check_model(module, SelfPlayDataModule(source, 2, 3, Sampling(max_new_tokens=8), gate=gate))

    check(str(tmp_path / "judge.txt"), 16)
    line = (
        r"^data\.gate\.checks\.Judged\.prompt: makes prompts of up to \d+ tokens, but the context "
    )
    with pytest.raises(
        ConfigError, match=line + r".* is 256 tokens; set a file with a shorter tem"
    ):
        check(None, 16)
    with pytest.raises(ConfigError, match=line):
        check(str(tmp_path / "judge.txt"), 160)


@pytest.mark.parametrize(
    ("words", "new", "remedy"),
    [
        # of 256 tokens, a passage of 40 words has 119
        (40, {"queries": 200}, "set N or less, or lower data.queries.init_args.passage_words"),
        (40, {"answers": 200}, "set N or less, or lower data.queries.init_args.passage_words"),
        (
            99,
            {},
            "lower data.queries.init_args.passage_words, use shorter prompts and queries, or "
            "another model",
        ),
        (
            40,
            {"answers": 100, "judged": True},
            "lower data.queries.init_args.passage_words, shorten queries or answers, or use "
            "another model",
        ),
        (40, {"answers": 300, "hidden": True}, "set N or less"),  # the Solver sees no passage
    ],
)
def test_a_passage_that_the_context_cannot_hold_is_named(module, tmp_path, words, new, remedy):
    def file(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    source = Challenger(
        prompt=file("ask.txt", "{passage}="),
        documents=file("long.txt", "12 " * 2000),
        passage_words=words,
        sampling=Sampling(max_new_tokens=new.get("queries", 16)),
    )
    prompt = None if "hidden" in new else file("solve.txt", "{passage}={query}")
    solver = Sampling(max_new_tokens=new.get("answers", 8))
    data = SelfPlayDataModule(source, 4, 3, solver, passage_prompt=prompt)
    judge = "{passage}={instruction}={response}" if "judged" in new else "{instruction}={response}"
    module.rewards[1] = SelfReward(prompt=file("judge.txt", judge))
    with pytest.raises(ConfigError) as error:
        check_model(module, data)
    assert re.sub(r"set \d+", "set N", str(error.value)).endswith(f" tokens; {remedy}")


@pytest.mark.parametrize("of_pool", [False, True])
def test_examples_that_the_context_cannot_hold_are_named(module, tmp_path, of_pool):
    (tmp_path / "ask.txt").write_text("ask")
    (tmp_path / "seen.txt").write_text("1+1=?\n" + "12+" * 50 + "\n")
    # of 256 tokens, the longer example has about 150, and a query of the pool up to 100
    source = Challenger(
        prompt=str(tmp_path / "ask.txt"),
        examples=None if of_pool else str(tmp_path / "seen.txt"),
        num_examples=4 if of_pool else 1,
        examples_from_pool=of_pool,
        sampling=Sampling(max_new_tokens=100 if of_pool else 200),
    )
    pool = Pool() if of_pool else None
    data = SelfPlayDataModule(source, 8, 3, Sampling(max_new_tokens=8), pool=pool)
    more = "use shorter prompts and queries, or another model"
    first = "lower data.queries.init_args.num_examples"
    remedy = f"{first}, {more}" if of_pool else f"set N or less, or {first}"
    with pytest.raises(ConfigError) as error:
        check_model(module, data)
    assert re.sub(r"set \d+", "set N", str(error.value)).endswith(f" tokens; {remedy}")


class Stranger(QuerySource):
    """A source that tells no lengths. It must never be run by a plan, only by a round."""

    selfplay = True
    sampling = Sampling(max_new_tokens=16)

    def draw(self, player, num_queries, index, seed):
        raise AssertionError("a plan ran the user's code")


class Teller(Stranger):
    """The same source, but it tells them."""

    def longest_prompt(self, codec):
        return 20

    def longest_query(self, codec):
        return 10


def test_a_query_source_is_asked_for_its_lengths_and_never_run(module, data):
    data.queries = Teller()
    found = read_settings(module, data, "cpu")
    frame = len(Policy(f"{WORLD}/base").codec.encode(data.solver_prompt, {}))
    assert (found.rollout("queries").prompt, found.rollout("answers").prompt) == (20, frame + 10)
    assert not found.assumptions


@pytest.mark.slow
def test_unknown_lengths_are_assumed_and_the_report_says_so(shallow, data):
    data.queries = Stranger()
    found = read_settings(shallow, data, "cpu")
    assert found.rollout("queries").prompt == ASSUMED_TEMPLATE
    [line] = [line for line in report(found, None).splitlines() if "assumed" in line]
    assert line == (
        f"  prompts of the Challenger are assumed to have {ASSUMED_TEMPLATE} tokens: Stranger does "
        "not report their length"
    )


def test_queries_of_unknown_length_are_assumed(shallow, data):
    data.queries = Stranger()
    data.queries.sampling = None  # what it writes, it writes in its own way
    assert read_settings(shallow, data, "cpu").assumptions == (
        f"queries are assumed to have {ASSUMED_QUERY} tokens: Stranger does not report their "
        "length",
        "writing queries is not included: Stranger does not report its sampling",
    )


def test_without_a_tokenizer_lengths_are_assumed(shallow, data, monkeypatch):
    def missing(*args, **kwargs):
        raise ConfigError("model.base", "no tokenizer", "add one")

    monkeypatch.setattr(lengths, "load_codec", missing)
    assert read_settings(shallow, data, "cpu").assumptions == (
        "prompt lengths are assumed: the tokenizer could not be loaded",
    )


def test_rows_of_unknown_length_are_not_checked_against_the_context(module, data):
    module.rewards[1] = SelfReward(prompt=f"{WORLD}/prompts/judge.txt")
    data.queries = Teller()
    check_model(module, data)
    data.queries.sampling = Sampling(max_new_tokens=100_000)
    with pytest.raises(ConfigError, match=r"data\.queries\.init_args\.sampling\.max_new_tokens"):
        check_model(module, data)
    data.queries = Stranger()
    data.queries.sampling = None
    data.solver = Sampling(max_new_tokens=100_000)
    check_model(module, data)  # how long the queries are is not known
