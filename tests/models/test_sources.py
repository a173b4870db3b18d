"""Folders and files that are no causal LM: one line that says what it is and what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_game import make_policy
from tiny_models import build_llama
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from lsp_lightning import ConfigError, Policy, PreferenceReward
from lsp_lightning.models.loading import check_policy

TINY = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def copy(tiny_llama_folder, tmp_path) -> Path:
    """A complete model folder to spoil."""
    return Path(shutil.copytree(tiny_llama_folder, tmp_path / "model"))


def refusal(base, **more) -> str:
    """What is said of a base before anything is loaded: one line."""
    with pytest.raises(ConfigError) as error:
        check_policy(str(base), True, **{"init_adapter": None, **more})
    assert "\n" not in str(error.value)
    return str(error.value)


def renamed(folder: Path, name: str) -> Path:
    """The weights of a folder under another name."""
    return (folder / "model.safetensors").rename(folder / name)


def with_config(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def cut(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def overwritten(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def without(folder: Path, *patterns: str) -> Path:
    for path in [p for pattern in patterns for p in folder.glob(pattern)]:
        path.unlink()
    return folder


def sharded(folder: Path) -> Path:
    """The index of two files, one of which is missing."""
    renamed(folder, "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    return overwritten(folder, "model.safetensors.index.json", json.dumps({"weight_map": places}))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
FOLDERS = {
    "weights in place of a folder": (
        lambda f: f / "model.safetensors",
        "model.safetensors' is a file; give its folder, ",
    ),
    "pickled weights": (lambda f: renamed(f, "pytorch_model.bin"), "is a file; give its folder, "),
    "an empty folder": (lambda f: without(f, "*"), "is empty, without config.json; give the folde"),
    "no tokenizer": (lambda f: without(f, "tokenizer*"), "has no tokenizer; copy tokenizer.json"),
    "no weights": (lambda f: without(f, "*.safetensors"), "has no safetensors weights"),
    "cut weights": (cut, "model.safetensors' is damaged or incomplete; copy or download it again"),
    "empty weights": (
        lambda f: overwritten(f, "model.safetensors", ""),
        "is damaged or incomplete; copy or download it again",
    ),
    "a pointer": (
        lambda f: overwritten(f, "model.safetensors", POINTER),
        "model.safetensors' is a Git LFS pointer; run git lfs pull there",
    ),
    "a missing shard": (sharded, "lacks model-00002-of-00002.safetensors; copy or download"),
    "a config of no JSON": (
        lambda f: overwritten(f, "config.json", "{"),
        "config.json' is not JSON; restore it",
    ),
    "a config that is a list": (
        lambda f: overwritten(f, "config.json", "[1]"),
        "config.json' is not a JSON mapping; restore it",
    ),
    "a config without a type": (
        lambda f: overwritten(f, "config.json", "{}"),
        "names no model_type; give a Hugging Face model",
    ),
    "a diffusion pipeline": (
        lambda f: overwritten(without(f, "config.json"), "model_index.json", "{}"),
        "is a diffusion pipeline; give the folder of a causal LM",
    ),
    "a type of the future": (
        lambda f: with_config(f, model_type="llama9"),
        "(model type llama9) is of a kind that the installed transformers does not know; check mod",
    ),
    "code of its own": (
        lambda f: with_config(f, model_type="own", auto_map={"AutoConfig": "x.y"}),
        "is a model with custom code, which is never run; give a model that transf",
    ),
    "a billion layers": (
        lambda f: with_config(f, num_hidden_layers=10**9),
        "has num_hidden_layers 1,000,000,000, its weights 21 tensors; restore it from the model's",
    ),
    "a billion layers of text": (
        lambda f: with_config(f, text_config={"num_hidden_layers": 10**9}),
        "has num_hidden_layers 1,000,000,000, its weights",
    ),
    "already quantized": (
        lambda f: with_config(f, quantization_config={"quant_method": "bitsandbytes"}),
        "is already quantized; give the original model",
    ),
    "pictures and text": (
        lambda f: with_config(f, model_type="llava", architectures=["X"]),
        "(model type llava) is a model for pictures and text; give a causal (decoder-only)",
    ),
    "pictures": (
        lambda f: with_config(f, model_type="vit", architectures=["ViTModel"]),
        "(model type vit) is not a language model that writes text; give a causal",
    ),
    "an encoder-decoder": (
        lambda f: with_config(f, model_type="t5", architectures=["T5ForConditionalGeneration"]),
        "(model type t5) is an encoder-decoder model; give a causal (decoder-only) language model",
    ),
    "an encoder-decoder of a family with decoders": (
        lambda f: with_config(f, model_type="bart", architectures=["BartModel"]),
        "(model type bart) is an encoder-decoder model; give a causal (decoder-only)",
    ),
    "a masked language model": (
        lambda f: with_config(f, model_type="roberta", architectures=["RobertaForMaskedLM"]),
        "is a masked language model, which does not write from left to right; give a causal",
    ),
    "a reward model": (
        lambda f: with_config(f, architectures=["LlamaForSequenceClassification"]),
        "is a classifier or reward model; use it as the model of a PreferenceReward",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_is_no_model_folder_is_named_before_anything_is_loaded(kind, copy, no_model):
    spoil, said = FOLDERS[kind]
    message = refusal(spoil(copy))
    assert message.startswith("model.base: ")
    assert said in message


def test_real_folders_of_other_kinds_are_refused(tmp_path, no_model):
    t5 = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    BertForMaskedLM(BertConfig(intermediate_size=32, **TINY)).save_pretrained(tmp_path / "bert")
    assert "(model type t5) is an encoder-decoder model" in refusal(tmp_path / "t5")
    assert "(model type bert) is a masked language model" in refusal(tmp_path / "bert")


def test_weights_that_a_folder_lacks_are_not_made_up(tiny_llama_folder, tmp_path, caplog):
    """transformers would fill the head with random numbers, without an error."""
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "headless"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    names = {k: v for k, v in model.state_dict().items() if "lm_head" not in k}
    save_file(names, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"no weights for lm_head\.weight of a LlamaForCausalLM"):
        Policy(str(folder))
    assert "LOAD REPORT" not in caplog.text


def test_a_weight_that_is_not_a_number_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"contain NaN or infinity \(.*norm\.weight\); copy"):
        Policy(str(copy))


def test_a_config_that_does_not_fit_the_weights_is_one_line(copy):
    with_config(copy, hidden_size=32)
    with pytest.raises(
        ConfigError, match=r"model\.base: the weights of .* have other sizes"
    ) as error:
        Policy(str(copy))
    assert "\n" not in str(error.value)


def test_a_reward_model_may_be_a_classifier_and_is_checked_too(tmp_path, tiny_llama_folder):
    folder = Path(shutil.copytree(tiny_llama_folder, tmp_path / "reward"))
    LlamaForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    PreferenceReward(str(folder))
    cut(folder)
    with pytest.raises(ConfigError, match=r"PreferenceReward\.model: .* is damaged or incomplete"):
        PreferenceReward(str(folder))


# -- adapters ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    return str(build_llama(tmp_path_factory.mktemp("base"), layers=1))


def adapter(base, folder, config) -> str:
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return str(folder)


def lora(**more) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **more})


def test_an_adapter_as_base_names_its_base_and_what_to_set(base, tmp_path, no_model):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "a/b"}))
    assert refusal(folder) == (
        f"model.base: {str(folder)!r} is an adapter of a/b; "
        f"set model.base to a/b and model.init_adapter to {folder}"
    )


def test_an_adapter_on_the_hub_is_told_too(monkeypatch, tmp_path):
    """Its repository has no config.json; the adapter's own is cached, or asked for."""
    from lsp_lightning.models import hub
    from lsp_lightning.models.loading import load_config

    found = tmp_path / "adapter_config.json"
    found.write_text(json.dumps({"base_model_name_or_path": "a/b"}))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr("transformers.utils.cached_file", lambda *args, **kwargs: str(found))
    with pytest.raises(ConfigError) as error:
        load_config("somebody/an-adapter")
    assert str(error.value) == (
        "model.base: 'somebody/an-adapter' is an adapter of a/b; set model.base to a/b and "
        "model.init_adapter to a folder (hf download somebody/an-adapter)"
    )


KINDS = {
    "IA3": (IA3Config(target_modules=["q_proj"], feedforward_modules=[]), "is of peft type IA3"),
    "prefix tuning": (
        PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
        "is of peft type PREFIX_TUNING; give a LoRA or DoRA adapter",
    ),
    "whole modules": (lora(modules_to_save=["lm_head"]), "is not plain LoRA (it sets modules_to_s"),
    "biases": (lora(bias="all"), "is not plain LoRA (it sets bias)"),
    "a bias of its own": (lora(lora_bias=True), "is not plain LoRA (it sets lora_bias)"),
    "token rows": (lora(trainable_token_indices=[1]), "(it sets trainable_token_indices)"),
    "PiSSA": (
        lora(init_lora_weights="pissa"),
        "changes the base's weights (init_lora_weights: pis",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_adapters_are_refused_before_anything_is_loaded(
    kind, base, tmp_path, request
):
    config, said = KINDS[kind]
    folder = adapter(base, tmp_path / "a", config)
    request.getfixturevalue("no_model")
    message = refusal(base, init_adapter=folder)
    assert message.startswith("model.init_adapter: ")
    assert said in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: overwritten(f, "adapter_config.json", "no"), "is not JSON"),
        (lambda f: overwritten(f, "adapter_model.safetensors", "x" * 50), "damaged or incomplete"),
        (lambda f: without(f, "*.safetensors"), "is not a peft adapter"),
    ],
    ids=["config", "weights", "none"],
)
def test_a_damaged_adapter_is_one_line(change, said, base, tmp_path):
    folder = Path(adapter(base, tmp_path / "a", lora()))
    message = refusal(base, init_adapter=str(change(folder)))
    assert message.startswith("model.init_adapter: ")
    assert said in message


@pytest.mark.parametrize(
    ("made", "why"),
    [({"hidden": 32, "layers": 1}, "size mismatch"), ({"layers": 2}, "only one of them has ")],
    ids=["other sizes", "more layers"],
)
def test_an_adapter_of_another_model_does_not_fit(made, why, base, tmp_path):
    other = adapter(str(build_llama(tmp_path / "other", **made)), tmp_path / "a", lora())
    with pytest.raises(ConfigError, match=r"model\.init_adapter: .* does not fit this ") as error:
        make_policy(base, init_adapter=other)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_rank_stabilised_lora_keeps_its_scale(base, tmp_path):
    config = lora(use_rslora=True, lora_alpha=8, init_lora_weights=False)
    torch.manual_seed(3)
    folder = adapter(base, tmp_path / "a", config)
    policy = make_policy(base, init_adapter=folder)
    layer = policy.causal_lm.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(8 / 2**0.5)


@pytest.mark.parametrize("base", ["~nosuchuser/model", "~nosuchuser/model.gguf", "a" * 300])
def test_what_cannot_be_a_path_is_one_line(base, tiny_llama_folder):
    assert refusal(base).startswith(f"model.base: no path {base!r} (")
    said = refusal(tiny_llama_folder, init_adapter=base)
    assert said.startswith(f"model.init_adapter: no path {base!r} (")
