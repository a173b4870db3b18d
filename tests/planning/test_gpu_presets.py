"""The presets for GPUs of 8 to 24 GB are short, agree, and fit according to plan."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from published_sizes import published_config

from lsp_lightning.cli.main import main
from lsp_lightning.models import loading as pretrained
from lsp_lightning.planning.models import layer_kinds
from lsp_lightning.planning.report import USABLE

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs").glob("gpu*.yaml"))
#: Parameters of the models as their pages and reports count them; reward models have a head of one
#: row in place of the tied one.
PARAMETERS = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 4_300_079_472,
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": 596_049_920 + 1024,
    "Skywork/Skywork-Reward-V2-Qwen3-1.7B": 1_720_574_976 + 2048,
    "Skywork/Skywork-Reward-V2-Llama-3.2-1B": 1_235_814_400 + 2048,
}

pytestmark = pytest.mark.usefixtures("untouched_process", "published")


def card(path):
    """The GB of the GPU, from a preset's name."""
    return int(re.match(r"gpu(\d+)_", path.stem)[1])


def planned(path, gib, capsys):
    """The output of plan for a preset and a GPU."""
    arguments = ["--config", str(path), "--gpu_gib", str(gib), "--trainer.accelerator", "cpu"]
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("base", PARAMETERS)
def test_the_written_sizes_have_the_known_number_of_parameters(base):
    kind = "AutoModelForCausalLM"
    config = published_config(base)
    if "Reward" in base:
        kind, config.num_labels = "AutoModelForSequenceClassification", 1
    model = pretrained.skeleton(config, torch.bfloat16, kind)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[base]


def test_there_are_presets_for_each_card():
    assert {card(path) for path in PRESETS} == {8, 12, 16, 24}
    assert len(PRESETS) == 8


@pytest.mark.slow
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_fits_its_card_and_not_one_of_half_the_size(path, capsys):
    shown = planned(path, card(path), capsys)
    assert re.search(rf"^fits on {card(path)} GiB: yes, [\d.]+ GiB to spare$", shown, re.MULTILINE)
    said = float(re.search(r"plan` estimates ([\d.]+) GiB", path.read_text())[1])
    peak = max(float(n) for n in re.findall(r"^  [a-z].* +([\d.]+)$", shown, re.MULTILINE))
    assert said == pytest.approx(peak, abs=0.15)  # the header is right
    assert peak > USABLE * card(path) / 2


@pytest.mark.slow
def test_a_card_of_half_the_size_is_refused_with_advice(capsys):
    shown = planned(ROOT / "configs/gpu8_qwen3_1.7b.yaml", 4, capsys)
    assert "fits on 4 GiB: no" in shown
    assert re.search(r"^  set [\w.]+ .*: [\d.]+ -> [\d.]+ GiB$", shown, re.MULTILINE)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_presets_header_names_the_licence_and_that_it_was_not_run(path):
    text = path.read_text()
    base = yaml.safe_load(text)["model"]["base"]
    if base.startswith(("meta-llama/", "google/")):
        assert f"https://huggingface.co/{base}" in text
    else:
        assert "No licence to accept" in text
    assert "Not yet run on a GPU" in text
    assert yaml.safe_load(text)["trainer"]["default_root_dir"] == f"runs/{path.stem}"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_has_at_most_20_settings_lines(path):
    lines = path.read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 20


def test_presets_agree_on_all_that_does_not_depend_on_the_model_or_the_gpu():
    """A preset stands alone so that one file is enough; this keeps the eight alike."""
    shared = []
    for path in PRESETS:
        config = yaml.safe_load(path.read_text())
        model, trainer = config["model"], dict(config["trainer"])
        del trainer["default_root_dir"]
        optimizer = model["optimizer"]["init_args"]
        rewards = [reward["class_path"] for reward in model["rewards"]]
        sampling = config["data"]["queries"]["init_args"]["sampling"]
        rest = (model["objective"], model["alpha_ch"], rewards, model["rewards"][1])
        standardized = model["rewards"][0]["init_args"]["standardize"]
        rest = (*rest, standardized, sampling["temperature"], config["data"]["heldout"])
        shared.append((optimizer, trainer, model["activation_checkpointing"], *rest))
    assert all(settings == shared[0] for settings in shared)


def test_no_preset_puts_a_model_below_a_billion_parameters_into_4_bits():
    """What 4 bits cost grows as models get smaller: .28 nats a token at 135M parameters."""
    packed = set()
    for path in (ROOT / "configs").rglob("*.yaml"):
        model = yaml.safe_load(path.read_text()).get("model", {})
        rewards = [reward.get("init_args", {}) for reward in model.get("rewards", [])]
        for arguments in (model, *rewards):
            if arguments.get("quantization"):
                packed.add(arguments.get("base") or arguments["model"])
    assert len(packed) >= 4
    assert all(PARAMETERS[base] >= 1e9 for base in packed)


def test_layers_of_the_published_models_are_told_apart():
    # Gemma: five layers of a window, then one without; SmolLM3: no position codes in every fourth
    assert [
        len(set(layer_kinds(base, "model.base"))) for base in PARAMETERS if "Reward" not in base
    ] == [
        1,
        1,
        1,
        2,
        1,
        1,
        2,
        2,
    ]
