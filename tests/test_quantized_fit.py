"""Self-play on a 4-bit base: the base stays, the adapter learns, and a run goes on as it was."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_game import tiny_trainer
from test_fit import Diary, differences, last, optimizer_state, weights

from lsp_lightning import (
    Challenger,
    ConfigError,
    Lora,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint
from lsp_lightning.cli.main import main
from lsp_lightning.models.loading import load_model
from lsp_lightning.models.quantization import linear_layers
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

ROOT = Path(__file__).parent.parent
WORLD = "pkg:lsp_lightning/tinyworld"
IDS = torch.tensor([[1, 20, 30, 40, 50, 7]])
ROUNDS = 2


def make_module(**kwargs):
    settings = {
        "lora": Lora(rank=4, alpha=8),
        "quantization": "nf4",
        "rewards": [VerifiableReward(TinyWorldVerifier())],
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    }
    torch.manual_seed(3)  # what seed_everything does for the adapter's first weights
    return SelfPlayModule(f"{WORLD}/base", **{**settings, **kwargs})


def run(folder, module, rounds=ROUNDS, ckpt_path=None):
    data = SelfPlayDataModule(
        queries=Challenger(
            prompt=f"{WORLD}/prompts/challenger.txt", sampling=Sampling(max_new_tokens=20)
        ),
        num_queries=4,
        group_size=3,
        solver=Sampling(max_new_tokens=8),
        seed=11,
    )
    diary = Diary()
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), diary])
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer, diary


def fresh_base(dtype=torch.float32):
    return load_model(f"{WORLD}/base", dtype, "nf4")


def packed(model):
    """All there is of each quantised layer: codes, scales, scales of scales."""
    return [
        {"codes": layer.weight.data, **layer.weight.quant_state.as_dict(packed=True)}
        for layer in linear_layers(model)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts: its trainer, module, diary and folder."""
    folder = tmp_path_factory.mktemp("whole")
    module = make_module()
    trainer, diary = run(folder, module)
    return trainer, module, diary, folder


# -- a run -----------------------------------------------------------------------------------------


def test_the_base_is_what_it_was_bit_for_bit_while_the_adapter_moves(whole):
    _, module, diary, _ = whole
    fresh = fresh_base()
    assert len(packed(fresh)) == 4 * 7
    assert not differences(packed(module.policy), packed(fresh))
    others = {n: p for n, p in fresh.named_parameters() if p.dtype == torch.float32}
    own = {n.replace(".base_layer", ""): p for n, p in module.policy.causal_lm.named_parameters()}
    assert not differences({n: own[n].data for n in others}, {n: p.data for n, p in others.items()})
    moved = [differences(diary.after[i], diary.played_from[i]) for i in range(ROUNDS)]
    assert all(moved)
    assert {len(m) for m in moved[1:]} == {2 * 4 * 7}  # lora_A has no gradient in the first round


def test_the_reference_is_the_untouched_base_bit_for_bit(whole):
    _, module, _, _ = whole
    with module.policy.reference() as model:
        logits = model(input_ids=IDS).logits
    with torch.no_grad():
        assert torch.equal(logits, fresh_base()(input_ids=IDS).logits)
        assert not torch.allclose(logits, module.policy.causal_lm(input_ids=IDS).logits, atol=1e-2)


def test_a_checkpoint_holds_the_adapter_and_nothing_of_the_base(whole):
    _, module, _, folder = whole
    checkpoint = torch.load(last(folder), weights_only=True)
    names = {name for name in checkpoint["state_dict"] if name.startswith("policy.")}
    assert names == set(weights(module))
    adapter = sum(p.nbytes for p in weights(module).values())
    assert last(folder).stat().st_size < 3 * adapter + sum(
        layer.weight.nbytes for layer in linear_layers(module)
    )


def test_a_run_made_longer_is_the_one_in_one_go_bit_for_bit(whole, tmp_path):
    trainer, module, diary, _ = whole
    run(tmp_path, make_module(), rounds=1)
    resumed = make_module()
    resumed_trainer, resumed_diary = run(tmp_path, resumed, ckpt_path=str(last(tmp_path)))
    assert sorted(resumed_diary.queries) == [1]
    assert not differences(
        [weights(module), optimizer_state(trainer), diary.metrics[1], diary.queries[1]],
        [
            weights(resumed),
            optimizer_state(resumed_trainer),
            resumed_diary.metrics[1],
            resumed_diary.queries[1],
        ],
    )


@pytest.mark.slow
def test_a_start_adapter_frozen_beside_the_trained_one_is_in_the_checkpoint(whole, tmp_path):
    _, _, _, folder = whole
    start = str(folder / "adapter")
    module = make_module(init_adapter=start)
    run(tmp_path, module, rounds=1)
    state = torch.load(last(tmp_path), weights_only=True)["state_dict"]
    frozen = {n: t for n, t in state.items() if ".reference." in n}
    assert len(frozen) == len([n for n in state if ".default." in n]) == 2 * 4 * 7
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    start_of = {
        n.removeprefix("policy.model.").replace(".reference", ""): t for n, t in frozen.items()
    }
    assert not differences(start_of, saved)
    assert set(state) == {f"policy.{n}" for n in module.policy.trained_state()}
    resumed = make_module(init_adapter=start)
    trainer, _ = run(tmp_path, resumed, rounds=2, ckpt_path=str(last(tmp_path)))
    assert trainer.global_step == 2


@pytest.mark.slow
@pytest.mark.parametrize(("before", "now"), [("nf4", None), (None, "nf4")])
def test_a_run_goes_on_with_the_same_quantization_only(whole, tmp_path, before, now):
    folder = whole[3]
    if before is None:
        folder = tmp_path / "plain"
        run(folder, make_module(quantization=None), rounds=1)
    with pytest.raises(ConfigError, match=r"^model\.quantization: ") as error:
        run(tmp_path, make_module(quantization=now), ckpt_path=str(last(folder)))
    assert "\n" not in str(error.value)


# -- 8-bit and paged optimisers --------------------------------------------------------------------


@pytest.fixture(scope="module")
def overlays(tmp_path_factory):
    """A config for each optimiser: rank 32, so that every matrix is large enough for 8 bits."""
    folder = tmp_path_factory.mktemp("overlays")
    tasks = folder / "tasks.jsonl"
    lines = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()
    tasks.write_text("\n".join(lines[:4]) + "\n")
    paths = {}
    for name in ("AdamW8bit", "PagedAdamW8bit"):
        optimizer = {"class_path": f"bitsandbytes.optim.{name}", "init_args": {"lr": 0.002}}
        model = {"quantization": "nf4", "lora": {"rank": 32}, "optimizer": optimizer}
        data = {"num_queries": 4, "group_size": 3, "heldout": str(tasks), "test": str(tasks)}
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump({"model": model, "data": data}))
    return paths


def fit_args(overlay, folder, rounds, *more):
    config = ("--config", str(ROOT / "configs" / "tiny_lsp.yaml"), "--config", str(overlay))
    rest = ("--trainer.max_steps", str(rounds), "--trainer.default_root_dir", str(folder))
    return ["fit", *config, *rest, *more]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit"])
@pytest.mark.usefixtures("untouched_process")
def test_an_8_bit_optimiser_of_a_config_trains_and_goes_on_bit_for_bit(name, overlays, tmp_path):
    assert main(fit_args(overlays[name], tmp_path / "whole", 2)) == 0
    assert main(fit_args(overlays[name], tmp_path / "parts", 1)) == 0
    parts = str(last(tmp_path / "parts"))
    one = torch.load(parts, weights_only=True)
    assert main(["fit", "--ckpt_path", parts, "--trainer.max_steps", "2"]) == 0
    checkpoints = [
        torch.load(last(tmp_path / run_), weights_only=True) for run_ in ("whole", "parts")
    ]
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert not differences(checkpoints[1][part], checkpoints[0][part])
    moments = checkpoints[0]["optimizer_states"][0]["state"]
    states = [m["__bnb_optimizer_quant_state__"] for m in moments.values()]
    assert len(states) == 2 * 4 * 7
    assert {s[key].dtype for s in states for key in ("state1", "state2")} == {torch.uint8}
    assert differences(one["state_dict"], checkpoints[0]["state_dict"])
