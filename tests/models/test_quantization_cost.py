"""What 4 bits cost a base is one number at load, measured without the base in memory twice."""

import pytest
import torch
from small_game import make_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsp_lightning.models import quantization_cost as cost
from lsp_lightning.models.loading import load_model

pytest.importorskip("bitsandbytes")


def kl_by_hand(folder):
    """Mean KL over the lines, from two models that are both loaded."""
    plain, packed = (
        AutoModelForCausalLM.from_pretrained(folder),
        load_model(str(folder), torch.float32, "nf4"),
    )
    tokenizer, parts = AutoTokenizer.from_pretrained(folder), []
    with torch.no_grad():
        for line in cost.LINES:
            ids = torch.tensor([tokenizer(line)["input_ids"]])
            p, q = (m(input_ids=ids).logits[0].log_softmax(-1) for m in (plain, packed))
            parts.append((p.exp() * (p - q)).sum(-1))
    return float(torch.cat(parts).mean())


@pytest.mark.parametrize("name", ["tiny_llama_folder", "tiny_qwen3_folder"])
def test_the_number_is_the_kl_from_the_unquantized_base(name, request):
    folder = request.getfixturevalue(name)
    model = load_model(str(folder), torch.float32, "nf4")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = cost.quantization_cost(model, str(folder), tokenizer)
    assert found == pytest.approx(kl_by_hand(folder), rel=1e-3)
    assert found > 1e-3
    # every layer computes in 4 bits again
    assert found == pytest.approx(cost.quantization_cost(model, str(folder), tokenizer))
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_loaded_base_tells_its_number_once(tiny_llama_folder, capsys):
    make_policy(tiny_llama_folder, quantization="nf4")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("4 bits")]
    assert len(lines) == 1
    assert "nats a token from the unquantized base (mean KL, 4 lines)" in lines[0]
    make_policy(tiny_llama_folder)
    assert "4 bits" not in capsys.readouterr().out


@pytest.mark.parametrize(("nats", "warned"), [(0.09, False), (0.28, True), (float("nan"), True)])
def test_a_high_cost_is_warned_of(nats, warned, monkeypatch):
    said = []
    monkeypatch.setattr(cost, "quantization_cost", lambda *args: nats)
    monkeypatch.setattr(cost, "warn", said.append)
    cost.tell_cost(None, "base", None)
    assert bool(said) is warned
    assert all("set it to null, or use a larger base" in line for line in said)


def test_weights_under_an_unknown_name_are_not_measured(tiny_llama_folder, monkeypatch, capsys):
    monkeypatch.setattr(cost, "_tensors", lambda base, dtype: {})
    make_policy(tiny_llama_folder, quantization="nf4")
    assert "4 bits: the cost is not measured (no file has the weight of model.layers.0" in (
        capsys.readouterr().out
    )


def test_memory_that_is_short_is_told(monkeypatch, capsys):
    def short(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(cost, "quantization_cost", short)
    cost.tell_cost(None, "base", None)
    assert capsys.readouterr().out == (
        "4 bits: the cost is not measured (it does not fit into memory)\n"
    )
