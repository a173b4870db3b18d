"""A GGUF file is the model that it was made from; what cannot be read is one line."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from few import few
from gguf_files import FAMILIES, build_byte_model, dequantised, write_gguf
from small_game import make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lsp_lightning import ConfigError, gguf_folder
from lsp_lightning.errors import _warned
from lsp_lightning.models import gguf_folder as folders
from lsp_lightning.models.gguf import content_hash
from lsp_lightning.models.loading import check_policy, load_classifier, load_codec, load_model

IDS = torch.arange(8, 40).view(2, 16)
TEXT = "the user <think>asks</think> for <|im_start|>user\n\u00fcn\u00ef \u4f60 42<|im_end|>"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a model, ``model``, and the same as ``tiny.F32.gguf``. Read only."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(build_byte_model(folder / "model"), folder / "tiny.F32.gguf")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """The folder that converted files are kept in."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "lsp-lightning" / f"gguf-{folders._FORMAT}"


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


# -- the same model --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", few(2, ["F32", "Q8_0", "F16", "BF16"]))
def test_a_file_has_the_logits_of_the_weights_that_it_can_hold(made, tmp_path, kind):
    file = write_gguf(made / "model", tmp_path / f"tiny.{kind}.gguf", kind)
    loaded, original = load_model(str(file), torch.float32), made / "model"
    assert torch.equal(logits(loaded), logits(dequantised(original, kind)))
    same = torch.equal(logits(loaded), logits(LlamaForCausalLM.from_pretrained(original)))
    assert same == (kind == "F32")
    assert loaded.config.rms_norm_eps == 2.0**-17
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"llama"}))
def test_a_file_of_another_family_has_the_logits_of_the_original(family, tmp_path):
    folder = build_byte_model(tmp_path / "model", family)
    loaded = load_model(str(write_gguf(folder, tmp_path / f"{family}.gguf")), torch.float32)
    assert loaded.config.model_type == family.replace("mistral", "llama")  # llama.cpp's name
    assert torch.equal(logits(loaded), logits(AutoModelForCausalLM.from_pretrained(folder)))


def test_weights_are_rounded_to_the_compute_type(made):
    file = str(made / "tiny.F32.gguf")
    loaded = load_model(file, torch.bfloat16)
    original = LlamaForCausalLM.from_pretrained(made / "model").state_dict()
    assert loaded.state_dict().keys() == original.keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, original[name].to(torch.bfloat16))


def test_the_tokenizer_is_the_one_that_was_written(made):
    codec, pad_id = load_codec(str(made / "tiny.F32.gguf"), None, {})
    original, _ = load_codec(str(made / "model"), None, {})
    found, wanted = codec.tokenizer, original.tokenizer
    assert found.get_vocab() == wanted.get_vocab()
    assert found(TEXT)["input_ids"] == wanted(TEXT)["input_ids"]
    assert found.decode(found(TEXT)["input_ids"]) == TEXT
    assert codec.encode("{q}", {"q": TEXT}) == original.encode("{q}", {"q": TEXT})
    # what a player writes never becomes a control token: those of the template are all there are
    controls = [wanted.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>", "<think>")]
    hostile, harmless = (codec.encode("{q}", {"q": text}) for text in (TEXT, "42"))
    assert (
        [hostile.count(i) for i in controls] == [harmless.count(i) for i in controls] == [2, 1, 0]
    )
    assert codec.stop_ids == original.stop_ids == (wanted.eos_token_id,)
    assert pad_id == wanted.pad_token_id


@pytest.mark.slow
def test_four_bits_are_those_of_the_dequantised_weights(made, tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    file = write_gguf(made / "model", tmp_path / "tiny.gguf", "Q8_0")
    whole = tmp_path / "whole"
    dequantised(made / "model", "Q8_0").save_pretrained(whole)
    AutoTokenizer.from_pretrained(made / "model").save_pretrained(whole)
    found, wanted = (make_policy(base, quantization="nf4") for base in (file, whole))
    assert torch.equal(logits(found.causal_lm), logits(wanted.causal_lm))
    told = [x for x in capsys.readouterr().out.splitlines() if x.startswith("4 bits: ")]
    assert len(told) == 2
    assert told[0] == told[1]


def test_the_rotary_embedding_of_llama_3_is_read_from_its_frequencies(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = build_byte_model(tmp_path / "model", rope_parameters=rope, head_dim=64)
    model = LlamaForCausalLM.from_pretrained(folder)
    plain = 500_000.0 ** -(np.arange(0, 64, 2, dtype=np.float32) / 64)
    factors = plain / model.model.rotary_emb.inv_freq.numpy()
    assert factors.min() == pytest.approx(1)
    assert factors.max() == pytest.approx(32)
    name = "rope_freqs.weight"
    good = write_gguf(folder, tmp_path / "good.gguf", tensors=lambda t: t.update({name: factors}))
    found = load_model(str(good), torch.float32)
    assert found.config.rope_parameters == pytest.approx(rope)
    assert torch.allclose(logits(found), logits(model), atol=1e-5)
    plainly = load_model(str(write_gguf(folder, tmp_path / "plain.gguf")), torch.float32)
    assert not torch.allclose(logits(plainly), logits(model), atol=1e-3)
    other = factors**0.5
    bad = write_gguf(folder, tmp_path / "bad.gguf", tensors=lambda t: t.update({name: other}))
    assert "1 tensors that transformers does not read (rope_freqs.weight)" in refusal(bad)


# -- converted once --------------------------------------------------------------------------------


def test_a_file_is_converted_once_and_known_by_its_content(made, tmp_path, cache, capsys):
    file = Path(shutil.copy(made / "tiny.F32.gguf", tmp_path / "once.gguf"))
    folder = gguf_folder(str(file), "float16")
    assert folder.parent == cache
    told = capsys.readouterr().out.splitlines()
    assert f"converting {file} to float16 once, to be kept in {folder}" in told
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / file.name)
    load_model(str(moved), torch.float16)
    assert gguf_folder(str(moved), "float16") == folder
    assert capsys.readouterr().out == ""
    changed = write_gguf(made / "model", file, tensors=lambda t: t["output_norm.weight"].fill(2))
    assert gguf_folder(str(changed), "float16") != folder
    assert (load_model(str(changed), torch.float16).model.norm.weight == 2).all()


@pytest.mark.parametrize("dtype", ["fp16", "int8", "float64"])
def test_weights_are_written_in_a_compute_type(made, dtype):
    with pytest.raises(ConfigError, match=f"dtype: is '{dtype}'; set one of float32, "):
        gguf_folder(str(made / "tiny.F32.gguf"), dtype)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "sizes.json"]
)
def test_a_folder_that_lacks_something_is_written_again(made, tmp_path, name):
    file = Path(shutil.copy(made / "tiny.F32.gguf", tmp_path / "freed.gguf"))
    folder = gguf_folder(str(file), "bfloat16")
    if name == "config.json":
        (folder / name).write_text("{")  # cut off
    elif name == "sizes.json":
        (folder / name).write_text("[]")
    else:
        (folder / name).unlink()  # by someone who needs the space
    assert gguf_folder(str(file), "bfloat16") == folder
    assert logits(load_model(str(file), torch.bfloat16)).isfinite().all()


def test_a_file_without_an_ending_is_known_by_its_first_bytes(made, tmp_path):
    blob = Path(shutil.copy(made / "tiny.F32.gguf", tmp_path / "sha256-of-ollama"))
    loaded = load_model(str(blob), torch.float32)
    assert torch.equal(logits(loaded), logits(LlamaForCausalLM.from_pretrained(made / "model")))


def test_other_files_beside_it_are_not_read(made, tmp_path):
    file = Path(shutil.copy(made / "tiny.F32.gguf", tmp_path / "tiny-with-neighbours.gguf"))
    for name in ("config.json", "adapter_config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text('{"model_type": "bert", "peft_type": "LORA"}')
    model = load_model(str(file), torch.float32)
    assert torch.equal(logits(model), logits(LlamaForCausalLM.from_pretrained(made / "model")))


def test_two_at_once_write_one_folder(tmp_path):
    started, written = threading.Barrier(2), []

    def write(partial):
        written.append(partial)
        (partial / "a").write_text("whole")

    def ask():
        started.wait()
        folders._written_once(tmp_path / "folder", write, "x.gguf", "model.base")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert (tmp_path / "folder" / "a").read_text() == "whole"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("bad tensor"), "cannot read 'x.gguf' (bad tensor); give the model as a"),
        (OSError(28, "full"), "cannot be converted to "),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_conversion_that_fails_leaves_no_folder(tmp_path, error, said):
    (tmp_path / "folder.partial").mkdir()  # of a process that was killed
    (tmp_path / "folder.partial" / "half").touch()

    def write(partial):
        assert list(partial.iterdir()) == []
        (partial / "a").touch()
        raise error

    with pytest.raises((ConfigError, KeyboardInterrupt)) as raised:
        folders._written_once(tmp_path / "folder", write, "x.gguf", "model.base")
    assert said in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.lock"]


def test_a_cache_that_cannot_be_written_is_one_line(made, tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = refusal(made / "tiny.F32.gguf")
    assert "cannot be converted to " in said
    assert said.endswith("; free space there, or set XDG_CACHE_HOME to another folder")


# -- what cannot be read ---------------------------------------------------------------------------


def refusal(file, **more) -> str:
    """What is said of a file before any weights are loaded: one line."""
    with pytest.raises(ConfigError) as error:
        check_policy(str(file), True, **{"init_adapter": None, **more})
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model.base: ")
    return str(error.value)


def text(key, value):
    return lambda writer: writer.add_string(key, value)


def number(key, value):
    return lambda writer: writer.add_uint32(key, value)


def without_tokenizer(writer):
    for name in [n for n in writer.kv_data[0] if n.startswith("tokenizer.")]:
        del writer.kv_data[0][name]


def architecture(name):
    def change(writer):
        del writer.kv_data[0]["general.architecture"]
        writer.add_string("general.architecture", name)

    return change


def billion_layers(writer):
    del writer.kv_data[0]["llama.block_count"]
    writer.add_block_count(10**9)


KEYS = {
    "a part": (
        lambda w: (w.add_uint16("split.no", 0), w.add_uint16("split.count", 3)),
        "is part 1 of 3 of a model; merge the parts first: llama-gguf-split --merge",
    ),
    "an adapter": (text("general.type", "adapter"), "is an adapter; give a whole model; "),
    "a projector": (architecture("clip"), "is a projector for pictures, not a language model; "),
    "an embedding": (number("llama.pooling_type", 3), "is an embedding model (architecture llama)"),
    "a bert": (architecture("nomic-bert"), "is an embedding model (architecture nomic-bert)"),
    "an encoder-decoder": (architecture("t5"), "is an encoder-decoder model; give a causal"),
    "of the future": (
        architecture("llama9"),
        "(GGUF model with architecture llama9 is not supported yet.); give the model as a Hugging",
    ),
    "without tokenizer": (without_tokenizer, "has no tokenizer; give the GGUF of a causal"),
    "a strange tokenizer": (
        lambda w: w.kv_data[0]["tokenizer.ggml.model"].__setattr__("value", "rwkv"),
        "(Cannot build a tokenizer from a GGUF file stating tokenizer 'rwkv'.",
    ),
    "a scaled rotary embedding": (
        text("llama.rope.scaling.type", "yarn"),
        "scales its rotary embedding (yarn), which is not read from GGUF; give the model as a",
    ),
    "a billion layers": (billion_layers, "has num_hidden_layers 1,000,000,000, its weights 21 "),
}


@pytest.mark.parametrize("kind", few(5, KEYS))
def test_a_file_of_another_kind_is_named_before_its_weights_are_read(
    kind, made, tmp_path, cache, no_model
):
    change, said = KEYS[kind]
    file = write_gguf(made / "model", tmp_path / f"{kind[:5]}.gguf", change=change)
    assert said in refusal(file)
    assert not [path for path in cache.glob(f"*{content_hash(file)[:16]}*") if path.is_dir()]


FILES = {
    "cut": (lambda data: data[:-1000], "is a damaged or incomplete GGUF file, or of a newer for"),
    "cut header": (lambda data: data[:500], "is a damaged or incomplete GGUF file, or of a newer"),
    "first bytes": (lambda data: data[:4], "is a damaged or incomplete GGUF file, or of a newer"),
    "empty": (lambda data: b"", "is not a GGUF file; download it again"),
    "other": (lambda data: b"PK\3\4" + data, "is not a GGUF file; download it again"),
    "pointer": (lambda data: b"version https://git-lfs", "is a Git LFS pointer; run git lfs pull"),
    "version": (lambda data: data[:4] + b"\1\0\0\0" + data[8:], "or of a newer format (Sorry, "),
    "counts": (lambda data: data[:8] + b"\xff" * 16 + data[24:], "is a damaged or incomplete GG"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_one_line(kind, made, tmp_path, no_model):
    spoil, said = FILES[kind]
    file = tmp_path / "spoilt.gguf"
    file.write_bytes(spoil((made / "tiny.F32.gguf").read_bytes()))
    assert said in refusal(file)


def test_a_type_of_weights_that_cannot_be_dequantised_is_named(made, tmp_path, no_model):
    def shorts(tensors):
        tensors["blk.0.ffn_up.weight"] = tensors["blk.0.ffn_up.weight"].astype(np.int16)

    file = write_gguf(made / "model", tmp_path / "shorts.gguf", tensors=shorts)
    assert "has weights of type I16, which cannot be dequantised; give another" in refusal(file)


def test_tensors_that_would_be_left_out_are_named(made, tmp_path, no_model):
    bias = {"blk.0.attn_q.bias": np.ones(64, np.float32)}
    file = write_gguf(made / "model", tmp_path / "bias.gguf", tensors=lambda t: t.update(bias))
    assert "1 tensors that transformers does not read (blk.0.attn_q.bias); " in refusal(file)


def test_weights_of_other_shapes_are_one_line(made, tmp_path):
    name = "blk.0.ffn_up.weight"
    narrow = write_gguf(
        made / "model", tmp_path / "narrow.gguf", tensors=lambda t: t.update({name: t[name][:8]})
    )
    with pytest.raises(ConfigError, match=r"tensor shapes do not match its header\); give"):
        load_model(str(narrow), torch.float32)


def test_missing_weights_are_named(made, tmp_path):
    file = write_gguf(
        made / "model", tmp_path / "less.gguf", tensors=lambda t: t.pop("blk.1.ffn_up.weight")
    )
    with pytest.raises(ConfigError, match=r"has no weights for .*layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(file), torch.float32)


def test_no_file_and_no_folder(made, tmp_path):
    assert "no file 'org/x.gguf'; give the path of an existing file; " in refusal("org/x.gguf")
    shutil.copy(made / "tiny.F32.gguf", tmp_path / "a.gguf")
    said = refusal(tmp_path)
    assert f"has no config.json, but GGUF files; give one of them, such as '{tmp_path}/a.gg" in said
    with pytest.raises(ConfigError, match=r"is GGUF, which only model\.base takes; "):
        load_classifier(str(made / "tiny.F32.gguf"), "model.rewards")


def test_a_file_of_bytes_alone_is_no_model(tmp_path):
    (tmp_path / "weights").write_bytes(os.urandom(64))
    assert "is a file; give the folder of a causal LM" in refusal(tmp_path / "weights")


@pytest.mark.parametrize(("split", "warned"), [("own", True), ("smollm", False)])
def test_text_that_is_split_in_an_unknown_way_is_warned_of(made, tmp_path, split, warned, recwarn):
    def change(writer):
        writer.kv_data[0]["tokenizer.ggml.pre"].value = split

    check_policy(
        str(write_gguf(made / "model", tmp_path / f"{split}.gguf", change=change)), True, None
    )
    told = [message for message in _warned if "splits text" in message]
    assert bool(told) == warned
    if warned:
        assert "splits text in a way that transformers does not know ('own')" in told[0]


def test_a_saved_adapter_names_the_file(made, tmp_path):
    policy = make_policy(made / "tiny.F32.gguf")
    policy.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((made / "tiny.F32.gguf").resolve())
