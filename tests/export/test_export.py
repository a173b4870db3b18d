"""An export is the same model elsewhere, with a card that no value breaks, written whole."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from architectures import build
from few import few
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from small_game import brief, make_policy, stir
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lsp_lightning import ConfigError, Lora, Player, Policy, Sampling
from lsp_lightning.cli.main import main
from lsp_lightning.errors import WriteError
from lsp_lightning.export import export_run
from lsp_lightning.export.card import code, model_card
from lsp_lightning.export.folder import MANIFEST
from lsp_lightning.rewards import Reward

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny_lsp.yaml")
IDS = torch.arange(8, 40).view(2, 16)

#: What a run tells of itself; the export adds the rest.
FACTS = {
    "rounds": 7,
    "num_queries": 4,
    "group_size": 3,
    "rewards": [["verifiable", "task", 1.0, False]],
    "objective": {"class": "Learnability", "advantage_scale": "none"},
    "alpha_ch": 0.2,
    "kl": "k1_in_reward",
    "beta": 0.05,
    "quantization": None,
    "init_adapter": None,
    "lora": {"rank": 4, "alpha": 8},
    "chat_template_kwargs": None,
    "optimizer": {"lr": 0.001},
    "seed": 0,
    "versions": {"torch": "2.13"},
}


@pytest.fixture(params=["llama", "qwen3"])
def base(request, tiny_llama_folder, tiny_qwen3_folder):
    """Two architectures; the second one ties its embeddings."""
    return str(tiny_llama_folder if request.param == "llama" else tiny_qwen3_folder)


def stirred(base, **kwargs) -> Policy:
    policy = make_policy(base, **kwargs)
    stir(policy)
    return policy


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def largest_difference(model, policy):
    return float((logits(model) - logits(policy.causal_lm)).abs().max())


# -- the same model elsewhere ----------------------------------------------------------------------


def test_the_adapter_over_the_plain_base_has_the_policys_logits(base, tmp_path):
    policy = stirred(base)
    assert export_run(policy, base, "adapter", tmp_path / "out", FACTS) == "adapter"
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert largest_difference(plain, policy) > 0.1
    assert largest_difference(PeftModel.from_pretrained(plain, tmp_path / "out"), policy) < 1e-5
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(Path(base).resolve())


def test_the_merged_model_has_the_policys_logits(base, tmp_path):
    policy = stirred(base)
    assert export_run(policy, base, "merged", tmp_path / "out", FACTS) == "merged"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(merged, policy) < 1e-5
    assert merged.dtype == torch.float32
    before = AutoModelForCausalLM.from_pretrained(base)
    assert merged.generation_config.to_dict() == before.generation_config.to_dict()
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pt"))]


def test_tied_embeddings_stay_tied(tiny_qwen3_folder, tmp_path):
    base = str(tiny_qwen3_folder)
    export_run(stirred(base), base, "merged", tmp_path / "out", FACTS)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - no dictionary
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight


def test_layers_without_an_adapter_are_exported_too(tiny_llama_folder, tmp_path):
    base, lora = str(tiny_llama_folder), Lora(rank=4, target_modules=["q_proj", "embed_tokens"])
    policy = stirred(base, lora=lora)
    export_run(policy, base, "merged", tmp_path / "out", FACTS)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(merged, policy) < 1e-5


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"]])
def test_a_base_in_four_bits_goes_out_as_the_policy_saw_it(base, tmp_path, targets):
    pytest.importorskip("bitsandbytes")
    lora = Lora(rank=4, alpha=8, target_modules=targets)
    policy = stirred(base, quantization="nf4", lora=lora)
    export_run(policy, base, "merged", tmp_path / "out", {**FACTS, "quantization": "nf4"})
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(merged, policy) < 1e-5
    assert not hasattr(merged.config, "quantization_config")
    # over the unquantised base the same adapter is another model
    assert largest_difference(merged, stirred(base, lora=lora)) > 0.05


def test_an_adapter_of_four_bits_over_a_fresh_base_in_four_bits_is_the_policy(base, tmp_path):
    pytest.importorskip("bitsandbytes")
    policy = stirred(base, quantization="nf4")
    export_run(policy, base, "adapter", tmp_path / "out", {**FACTS, "quantization": "nf4"})
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype="float32",
    )
    fresh = AutoModelForCausalLM.from_pretrained(base, quantization_config=four_bits)
    # on a CPU with AVX512-BF16 the fresh base takes a kernel that rounds to bfloat16
    for layer in fresh.modules():
        layer.support_avx512bf16_for_cpu = False
    assert largest_difference(PeftModel.from_pretrained(fresh, tmp_path / "out"), policy) < 1e-5


def test_of_a_start_adapter_and_the_trained_one_the_trained_one_goes_out(base, tmp_path):
    stirred(base).save(tmp_path / "start")
    policy = Policy(base, init_adapter=str(tmp_path / "start"))
    stir(policy, seed=6)
    export_run(policy, base, "merged", tmp_path / "merged", FACTS)
    export_run(policy, base, "adapter", tmp_path / "adapter", FACTS)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert largest_difference(merged, policy) < 1e-5
    plain = AutoModelForCausalLM.from_pretrained(base)
    elsewhere = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    assert largest_difference(elsewhere, policy) < 1e-5


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_policy_without_adapters_goes_out_whole(base, tmp_path, form):
    policy = make_policy(base, lora=None)
    stir(policy, scale=0.01)
    assert export_run(policy, base, form, tmp_path / "out", {**FACTS, "lora": None}) == "merged"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(merged, policy) < 1e-5
    assert "trained weights: all" in (tmp_path / "out" / "README.md").read_text()


def greedy_texts(policy, questions):
    prompts = [policy.codec.encode("{query}", {"query": question}) for question in questions]
    sampling = Sampling(temperature=0.0, max_new_tokens=12)
    return list(Player.local(policy).respond(prompts, 1, sampling, seed=0).texts)


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_code_on_the_card_says_greedily_what_the_policy_says(
    tiny_llama_folder, tmp_path, monkeypatch, capsys, form
):
    # with many stop tokens beside the tokenizer's own: answers end early, and must end there too
    base = str(brief(tiny_llama_folder, tmp_path / "base"))
    policy = stirred(base)
    [expected] = greedy_texts(policy, ["Hello"])
    stops = set(policy.codec.stop_ids)
    export_run(policy, base, form, tmp_path / "out", FACTS)
    card = (tmp_path / "out" / "README.md").read_text()
    [lines] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    scope = {}
    exec(lines.replace("max_new_tokens=256", "max_new_tokens=12"), scope)
    ids = scope["ids"][0, scope["inputs"]["input_ids"].shape[1] :].tolist()
    if ids[-1] in stops:
        ids.pop()
    assert scope["tokenizer"].decode(ids) == expected
    assert largest_difference(scope["model"], policy) < 1e-5


def test_a_base_without_chat_template_goes_out_with_the_one_it_was_trained_with(tmp_path):
    from tiny_models import build_llama

    base = str(build_llama(tmp_path / "base", chat_template=None))
    policy = make_policy(base)
    ids = policy.codec.encode("{query}", {"query": "Hello"})
    export_run(policy, base, "adapter", tmp_path / "out", FACTS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "Hello"}]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert rendered["input_ids"] == ids


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("kind", [{"use_dora": True}, {"use_rslora": True}], ids=str)
def test_dora_and_rank_stabilised_lora_are_merged_as_the_policy_computes(
    kind, quantization, tiny_llama_folder, tmp_path
):
    base = str(tiny_llama_folder)
    plain = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **kind)
    get_peft_model(plain, config).save_pretrained(tmp_path / "start")
    policy = Policy(base, init_adapter=str(tmp_path / "start"), quantization=quantization)
    stir(policy)
    export_run(policy, base, "merged", tmp_path / "out", FACTS)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(AutoModelForCausalLM.from_pretrained(base), policy) > 0.1
    assert largest_difference(merged, policy) < 5e-5


def test_adapters_of_fused_experts_are_merged(tmp_path):
    """peft wraps their tensors in place of layers, one wrapper around the other."""
    base = str(build("qwen3-moe", tmp_path / "base"))
    policy = stirred(base)
    assert any(type(layer).__name__ == "ParamWrapper" for layer in policy.modules())
    export_run(policy, base, "merged", tmp_path / "out", FACTS)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert largest_difference(AutoModelForCausalLM.from_pretrained(base), policy) > 0.1
    assert largest_difference(merged, policy) < 1e-4


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_of_shared_weights_unties_them(tiny_qwen3_folder, tmp_path, target):
    base = str(tiny_qwen3_folder)
    policy = stirred(base, lora=Lora(rank=4, target_modules=[target, "q_proj"]))
    export_run(policy, base, "merged", tmp_path / "out", FACTS)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.get_input_embeddings().weight is not merged.get_output_embeddings().weight
    assert largest_difference(AutoModelForCausalLM.from_pretrained(base), policy) > 0.1
    assert largest_difference(merged, policy) < 5e-5


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_exported(tiny_llama_folder, tmp_path, form, value):
    policy = stirred(str(tiny_llama_folder))
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    with torch.no_grad():
        trained[-1].view(-1)[3] = value
    with pytest.raises(ConfigError, match=r"^policy: a trained weight is not finite; export a"):
        export_run(policy, str(tiny_llama_folder), form, tmp_path / "out", FACTS)
    assert not (tmp_path / "out").exists()


def test_a_sum_that_exceeds_its_number_format_is_not_exported(tiny_llama_folder, tmp_path):
    policy = stirred(str(tiny_llama_folder), dtype="float16")
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.fill_(300.0)  # each is finite, their product is 4 x 90,000
    with pytest.raises(ConfigError, match=r"^form: is merged, but .* exceeds torch\.float16; use"):
        export_run(policy, str(tiny_llama_folder), "merged", tmp_path / "out", FACTS)


def test_an_export_to_a_full_disk_is_one_line(tiny_llama_folder, tmp_path, monkeypatch):
    policy = stirred(str(tiny_llama_folder))

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lsp_lightning.export.folder.model_card", full)
    with pytest.raises(WriteError, match=r"^cannot write '.*out': No space left on device; free"):
        export_run(policy, str(tiny_llama_folder), "adapter", tmp_path / "out", FACTS)
    assert not list(tmp_path.iterdir())


# -- the card --------------------------------------------------------------------------------------

HOSTILE = "x`\n# Heading\n```\n<script>alert(1)</script> --- [a](b)\r\x1b[31m\u2028|"


@pytest.mark.parametrize("value", [HOSTILE, "`" * 5, "\n", "a" * 9999, "", None, 0.5])
def test_a_value_in_code_is_one_line_without_a_backtick_of_its_own(value):
    shown = code(value)
    assert len(shown.splitlines()) == 1
    assert len(shown) < 300
    assert shown == "none" or (shown[0] == shown[-1] == "`" and "`" not in shown[1:-1])


def test_no_value_of_the_config_becomes_markup():
    facts = {
        **dict.fromkeys(FACTS, HOSTILE),
        "rewards": [[HOSTILE] * 4],
        "objective": {"class": HOSTILE},
        "lora": {"rank": HOSTILE, "alpha": HOSTILE},
        "chat_template_kwargs": {HOSTILE: HOSTILE},
        "optimizer": {"lr": HOSTILE},
        "versions": {"torch": HOSTILE},
        "base": HOSTILE,
        "form": "adapter",
        "compute_type": "float32",
        "stop_ids": [2],
        "date": HOSTILE,
        "heldout_before": {"sampled": HOSTILE, "greedy": 0.5, "n": HOSTILE},
        "heldout_after": {"sampled": 0.5, "greedy": 0.5, "n": HOSTILE, "kind": HOSTILE},
    }
    card = model_card(HOSTILE, facts)
    before, fence, rest = card.partition("```python\n")
    python, end, after = rest.partition("```")
    assert (fence, end, after) == ("```python\n", "```", "\n")
    compile(python, "card", "exec")
    _, front, text = before.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"library_name", "pipeline_tag", "tags"}
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "`" not in outside
    assert "<" not in outside
    assert "](" not in outside
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) == 3


def card_of(**changes):
    told = {"base": "org/base", "form": "adapter", "compute_type": "float32", "date": None}
    return model_card("org/base", {**FACTS, **told, "stop_ids": [2], **changes})


def test_the_cards_front_matter_says_what_loads_it():
    for form, library in (("adapter", "peft"), ("merged", "transformers")):
        front = yaml.safe_load(card_of(form=form).split("---\n")[1])
        assert front["library_name"] == library
        assert front["base_model"] == "org/base"


def test_the_card_tells_the_facts_and_what_the_scores_mean():
    before, after = ({"sampled": s, "greedy": 0.25, "n": 8} for s in (0.5, 0.75))
    scores = {"heldout_before": before, "heldout_after": {**after, "kind": "solved"}}
    card = card_of(selfplay=True, **scores)
    for fact in ("`7`", "`k1_in_reward`, `0.05`", "rank `4`", "2509.07414", "`Learnability`"):
        assert fact in card
    assert "share of sampled answers that solve one of `8` held-out tasks: 50.0%" in card
    wins = card_of(heldout_before=before, heldout_after={**after, "kind": "win_rate"})
    assert "win rate of sampled answers against the reference" in wins
    mean = card_of(heldout_before=before, heldout_after={**after, "kind": "mean"})
    assert "mean reward of sampled answers to `8` held-out tasks: 0.500 before, 0.750 after" in mean
    grpo = card_of(selfplay=False)
    assert "GRPO" in grpo
    assert "Challenger" not in grpo


# -- the folder ------------------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_left_alone(tiny_llama_folder, tmp_path):
    base, out = str(tiny_llama_folder), tmp_path / "out"
    policy = stirred(base)
    export_run(policy, base, "adapter", out, FACTS)
    (out / "mine.gguf").write_text("hours of work")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match=r"^out: .*mine\.gguf"):
        export_run(policy, base, "merged", out, FACTS)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("# a project of mine")
    with pytest.raises(ConfigError, match=r"^out: .*README\.md"):
        export_run(policy, base, "adapter", tmp_path / "other", FACTS)


def test_a_new_export_takes_the_place_of_an_old_one(tiny_llama_folder, tmp_path):
    base, out = str(tiny_llama_folder), tmp_path / "deep" / "out"
    policy = stirred(base)
    export_run(policy, base, "merged", out, FACTS)
    export_run(policy, base, "adapter", out, FACTS)
    assert not (out / "model.safetensors").exists()
    assert sorted(json.loads((out / MANIFEST).read_text())["files"]) == sorted(
        path.name for path in out.iterdir()
    )
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_export_to_a_link_goes_where_it_points(tiny_llama_folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    base = str(tiny_llama_folder)
    export_run(stirred(base), base, "adapter", tmp_path / "link", FACTS)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / MANIFEST).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "link"}


@pytest.mark.parametrize("there", [True, False])
def test_an_export_that_fails_leaves_what_was_there(
    tiny_llama_folder, tmp_path, monkeypatch, there
):
    base, out = str(tiny_llama_folder), tmp_path / "out"
    policy = stirred(base)
    if there:
        export_run(policy, base, "adapter", out, FACTS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("lsp_lightning.export.folder.model_card", full)
    with pytest.raises(OSError, match="no space"):
        export_run(policy, base, "merged", out, FACTS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_older_export_comes_back_where_the_new_one_cannot_take_its_place(
    tiny_llama_folder, tmp_path, monkeypatch
):
    base, out = str(tiny_llama_folder), tmp_path / "out"
    policy = stirred(base)
    export_run(policy, base, "adapter", out, FACTS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rename = Path.rename

    def refuse(path, target):
        if path.name.endswith(".partial"):
            raise OSError("device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="busy"):
        export_run(policy, base, "merged", out, FACTS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two rounds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    tasks = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    lines = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()
    tasks.write_text("\n".join(lines[:4]) + "\n")
    flags = {"trainer.max_steps": 2, "data.num_queries": 2, "data.group_size": 2}
    flags |= {"trainer.default_root_dir": folder, "data.heldout": tasks}
    assert main(["fit", "--config", TINY, *(f"--{k}={v}" for k, v in flags.items())]) == 0
    return folder


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("form", few(1, ["merged", "adapter"]))
def test_a_runs_checkpoint_is_exported_without_its_rewards(
    finished, tmp_path, capfd, monkeypatch, form
):
    monkeypatch.setattr(Reward, "connect", lambda *args: pytest.fail("a reward was connected"))
    shutil.copytree(finished, tmp_path / "run")
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["export", "--ckpt_path", checkpoint, "--form", form]) == 0
    out = tmp_path / "run" / "export"
    shown = capfd.readouterr().out
    assert str(out) in shown
    assert len(shown.splitlines()) == 1
    base = str(ROOT / "lsp_lightning/tinyworld/base")
    trained = Policy(base, init_adapter=str(finished / "adapter"))
    if form == "adapter":
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out)
    else:
        model = AutoModelForCausalLM.from_pretrained(out)
    assert largest_difference(model, trained) < 5e-5  # this model's logits are some tens
    card = (out / "README.md").read_text()
    assert "rounds: `2`" in card
    assert "of `4` held-out tasks" in card


MISTAKES = {
    "no checkpoint": (["--config", TINY], "ckpt_path: is not set"),
    "another adapter": (["--ckpt_path", "CKPT", "--model.lora.rank", "4"], "model.lora.rank: "),
    "a folder in use": (["--ckpt_path", "CKPT", "--out", "USED"], "out: "),
    "no such form": (["--ckpt_path", "CKPT", "--form", "both"], "form: "),
    "no checkpoint at all": (["--config", TINY, "--ckpt_path", TINY], "ckpt_path: "),
}


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(finished, tmp_path, capfd, monkeypatch, mistake):
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("a model was loaded")
    )
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    args, words = MISTAKES[mistake]
    places = {"CKPT": str(finished / "checkpoints" / "last.ckpt"), "USED": str(tmp_path / "used")}
    try:
        status = main(["export", *(places.get(arg, arg) for arg in args)])
    except SystemExit as exit_:
        status = exit_.code
    shown = capfd.readouterr().err
    assert status == 2
    assert shown.startswith(f"error: {words}")
    assert len(shown.strip().splitlines()) == 1
