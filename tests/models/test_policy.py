"""The policy and its frozen reference: one base, exact log-probs, nothing of the base saved."""

import json
import shutil

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from small_game import make_policy, stir, tiny_round
from tiny_models import llama_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from lsp_lightning import ConfigError, Lora, Policy
from lsp_lightning.models.capabilities import enable_prefix_sharing
from lsp_lightning.models.logits import check_head
from lsp_lightning.models.lora_speed import fused_lora, merged_lora
from lsp_lightning.training.batches import pack

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])


def logits_of(model) -> torch.Tensor:
    """Plain logits of some tokens, as the model stands, in eval mode."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    model.train(training)
    return logits


def plain_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def reference_logits(policy) -> torch.Tensor:
    with policy.reference() as model:
        return model(input_ids=IDS).logits


def one_step(policy, lr=0.05) -> None:
    """An optimiser step on something that pulls at every trained weight."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    policy.causal_lm(input_ids=IDS).logits.square().mean().backward()
    optimizer.step()


@pytest.fixture(scope="module")
def gemma2_folder(tmp_path_factory):
    """A random Gemma 2: soft-capped logits, sliding windows, scaled embeddings, tied head."""
    folder = tmp_path_factory.mktemp("gemma2")
    tokenizer = llama_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.15,
        final_logit_softcapping=3.0,
        sliding_window=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "qwen3", "gemma2"])
def folder(request):
    names = {"gemma2": "gemma2_folder"}
    return request.getfixturevalue(names.get(request.param, f"tiny_{request.param}_folder"))


@pytest.fixture(scope="module")
def start_adapter(tiny_llama_folder, tmp_path_factory):
    """An adapter that changes the model, saved as a run would leave it behind."""
    policy = make_policy(tiny_llama_folder, rank=3)
    stir(policy)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    policy.save(folder)
    return folder


# -- the reference ---------------------------------------------------------------------------------


def test_with_the_adapter_off_the_model_is_the_base_bit_for_bit(folder):
    policy = make_policy(folder)
    stir(policy)
    base = logits_of(plain_base(folder))
    assert torch.equal(reference_logits(policy), base)
    assert not torch.allclose(logits_of(policy.causal_lm), base)


@pytest.mark.parametrize("kind", ["adapter off", "start adapter", "frozen copy"])
def test_the_reference_stays_while_the_policy_moves(kind, tiny_llama_folder, start_adapter):
    policy = {
        "adapter off": lambda: make_policy(tiny_llama_folder),
        "start adapter": lambda: make_policy(tiny_llama_folder, init_adapter=str(start_adapter)),
        "frozen copy": lambda: make_policy(tiny_llama_folder, lora=None),
    }[kind]()
    reference, before = reference_logits(policy), logits_of(policy.causal_lm)
    for _ in range(2):
        one_step(policy)
        assert torch.equal(reference_logits(policy), reference)
    assert not torch.allclose(logits_of(policy.causal_lm), before)


def test_a_start_adapter_is_where_policy_and_reference_begin(tiny_llama_folder, start_adapter):
    policy = make_policy(tiny_llama_folder, init_adapter=str(start_adapter))
    start = logits_of(PeftModel.from_pretrained(plain_base(tiny_llama_folder), start_adapter))
    assert torch.equal(logits_of(policy.causal_lm), start)
    assert torch.equal(reference_logits(policy), start)
    assert not torch.allclose(start, logits_of(plain_base(tiny_llama_folder)))


def test_a_start_adapter_held_near_the_base(tiny_llama_folder, start_adapter):
    policy = make_policy(tiny_llama_folder, init_adapter=str(start_adapter), reference="base")
    assert torch.equal(reference_logits(policy), logits_of(plain_base(tiny_llama_folder)))
    start = logits_of(PeftModel.from_pretrained(plain_base(tiny_llama_folder), start_adapter))
    assert torch.equal(logits_of(policy.causal_lm), start)


@pytest.mark.parametrize("reference", ["start", "base"])
def test_only_the_trained_adapter_is_trained_before_and_after_a_look_at_the_reference(
    reference, tiny_llama_folder, start_adapter
):
    policy = make_policy(
        tiny_llama_folder, init_adapter=str(start_adapter), reference=reference, dropout=0.0
    )

    def trained():
        return {name for name, p in policy.named_parameters() if p.requires_grad}

    before = trained()
    assert before
    assert all(".default." in name for name in before)
    reference_logits(policy)
    assert trained() == before
    with pytest.raises(RuntimeError, match="stop"), policy.reference():
        raise RuntimeError("stop")
    assert trained() == before
    policy.causal_lm(input_ids=IDS).logits.square().mean().backward()
    assert all(p.grad is not None for n, p in policy.named_parameters() if n in before)
    assert all(p.grad is None for n, p in policy.named_parameters() if n not in before)


def test_without_lora_the_reference_is_a_copy_that_is_neither_trained_nor_saved(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder, lora=None)
    base = plain_base(tiny_llama_folder)
    assert sum(p.numel() for p in policy.parameters()) == sum(p.numel() for p in base.parameters())
    assert all(p.requires_grad for p in policy.parameters())
    names = {name.removeprefix("model.") for name in policy.state_dict()}
    assert len(names) == len(base.state_dict())
    with policy.reference() as model:
        assert all(not p.requires_grad for p in model.parameters())
        assert model is not policy.causal_lm


def test_the_reference_is_read_in_eval_mode_without_gradients(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder, dropout=0.5)
    stir(policy)
    assert policy.model.training
    with policy.reference() as model:
        assert not model.training
        assert not model(input_ids=IDS).logits.requires_grad
    assert policy.model.training
    assert torch.is_grad_enabled()


# -- types, checkpoints and saving -----------------------------------------------------------------


def test_automatic_dtype_is_float32_on_a_cpu(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder)
    assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_adapters_are_float32_over_a_bfloat16_base(tiny_llama_folder, start_adapter):
    for init_adapter in (None, str(start_adapter)):
        policy = make_policy(tiny_llama_folder, dtype="bfloat16", init_adapter=init_adapter)
        types = {"lora_" in name: p.dtype for name, p in policy.named_parameters()}
        assert types == {True: torch.float32, False: torch.bfloat16}


def test_trained_state_holds_every_adapter_and_nothing_of_the_base(
    tiny_llama_folder, start_adapter
):
    policy = make_policy(tiny_llama_folder, init_adapter=str(start_adapter))
    state = policy.trained_state()
    trained = {name for name in state if ".default." in name}
    frozen = {name for name in state if ".reference." in name}
    assert trained | frozen == set(state)
    assert {name.replace(".default.", ".reference.") for name in trained} == frozen
    assert trained == {name for name, p in policy.named_parameters() if p.requires_grad}
    fresh = make_policy(tiny_llama_folder)
    assert set(fresh.trained_state()) == {n for n, p in fresh.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "layers", ["all-linear", ["q_proj", "lm_head"], ["embed_tokens", "q_proj"]], ids=str
)
def test_whatever_is_trained_is_in_the_trained_state(tiny_llama_folder, layers):
    policy = Policy(str(tiny_llama_folder), lora=Lora(rank=2, target_modules=layers))
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trained
    assert trained <= set(policy.trained_state())


def test_the_gradient_through_an_adapted_head_with_dropout_is_that_of_its_own_mask(
    tiny_llama_folder,
):
    lora = Lora(rank=4, alpha=8, dropout=0.5, target_modules=["lm_head", "q_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy = Policy(str(tiny_llama_folder), lora=lora)
    stir(policy)
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad and "lm_head" in n}
    [batch] = pack(tiny_round(policy, n=2, g=2), policy.pad_id, token_budget=10**6)

    def total() -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return policy.completion_logprobs(batch)[0].sum()

    total().backward()
    for parameter in trained.values():  # against the slope along the gradient, by differences
        gradient, step = parameter.grad.clone(), 1e-3 / float(parameter.grad.norm())
        with torch.no_grad():
            parameter += step * gradient
            above = total()
            parameter -= 2 * step * gradient
            below = total()
            parameter += step * gradient
        slope = float(above - below) / (2 * step)
        assert slope == pytest.approx(float(gradient.square().sum()), rel=0.02)


def test_trained_state_is_all_that_another_policy_needs(tiny_llama_folder, start_adapter):
    policy = make_policy(tiny_llama_folder, init_adapter=str(start_adapter))
    one_step(policy)
    other = make_policy(tiny_llama_folder, init_adapter=str(start_adapter))
    stir(other)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if ".reference." in name:
                parameter.zero_()
    other.load_state_dict(policy.trained_state(), strict=False)
    assert torch.equal(logits_of(other.causal_lm), logits_of(policy.causal_lm))
    assert torch.equal(reference_logits(other), reference_logits(policy))


def test_a_saved_adapter_loads_with_plain_peft(tiny_llama_folder, start_adapter, tmp_path):
    for init_adapter in (None, str(start_adapter)):
        policy = make_policy(tiny_llama_folder, init_adapter=init_adapter)
        stir(policy, seed=9)
        target = tmp_path / str(init_adapter is None)
        policy.save(target)
        loaded = PeftModel.from_pretrained(plain_base(tiny_llama_folder), target)
        assert torch.equal(logits_of(loaded), logits_of(policy.causal_lm))
        assert not list(target.rglob("*.bin"))
        again = make_policy(tiny_llama_folder, init_adapter=str(target))
        assert torch.equal(logits_of(again.causal_lm), logits_of(policy.causal_lm))


def test_a_model_trained_whole_is_saved_whole(tiny_llama_folder, tmp_path):
    policy = make_policy(tiny_llama_folder, lora=None)
    stir(policy)
    policy.save(tmp_path / "model")
    assert torch.equal(logits_of(plain_base(tmp_path / "model")), logits_of(policy.causal_lm))
    assert Policy(str(tmp_path / "model")).codec.decode([40]) == policy.codec.decode([40])


def test_the_adapter_has_the_rank_alpha_and_dropout_that_were_asked_for(
    tiny_llama_folder, tmp_path
):
    policy = Policy(str(tiny_llama_folder), lora=Lora(rank=3, alpha=12, dropout=0.25))
    policy.save(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (3, 12, 0.25)
    shapes = {min(t.shape) for t in load_file(tmp_path / "adapter_model.safetensors").values()}
    assert shapes == {3}


def test_activation_checkpointing_leaves_the_gradient_as_it_is(tiny_llama_folder):
    gradients = []
    for checkpointing in (False, True):
        policy = make_policy(tiny_llama_folder, activation_checkpointing=checkpointing)
        stir(policy)
        policy.causal_lm(input_ids=IDS).logits.square().mean().backward()
        gradients.append({n: p.grad for n, p in policy.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


# -- log-probs -------------------------------------------------------------------------------------


def test_the_head_is_the_models_own(folder):
    check_head(plain_base(folder))


def test_an_architecture_whose_logits_are_made_otherwise_is_refused(tiny_llama_folder):
    model = plain_base(tiny_llama_folder)
    own = model.forward

    def forward(*args, **kwargs):
        out = own(*args, **kwargs)
        out.logits = out.logits * 1.5
        return out

    model.forward = forward
    with pytest.raises(ConfigError, match=r"model\.base"):
        check_head(model)


def test_an_architecture_that_computes_otherwise_in_training_is_refused(tiny_llama_folder):
    model = plain_base(tiny_llama_folder)
    norm = model.model.norm
    norm.register_forward_hook(lambda module, args, out: out * (1.5 if module.training else 1.0))
    with pytest.raises(ConfigError, match=r"model\.base"):
        check_head(model)


def test_an_architecture_whose_steps_forget_what_rows_remember_is_refused():
    """Its states are not where others keep keys and values: each step would start without them."""
    config = MambaConfig(vocab_size=64, hidden_size=32, state_size=8, num_hidden_layers=2)
    model = MambaForCausalLM(config).eval()
    check_head(model)
    with pytest.raises(
        ConfigError, match=r"model\.base: MambaForCausalLM .*computes different logits"
    ):
        enable_prefix_sharing(model)


def test_completion_logprobs_are_the_plain_formula(folder):
    policy = make_policy(folder)
    stir(policy)
    played = tiny_round(policy, n=2, g=3)
    rollouts = played.playout.rollouts
    rows = [
        (r.prompt_ids[i][r.prompt_mask[i]], r.completion_ids[i][r.completion_mask[i]], r)
        for r in rollouts
        for i in range(len(r))
    ]
    policy.model.eval()
    seen = []
    for batch in pack(played, policy.pad_id, token_budget=400):
        with torch.no_grad():
            logprobs, entropies = policy.completion_logprobs(batch, logits_at_once=512)
        assert (logprobs[~batch.mask] == 0).all()
        for c, row in enumerate(batch.rows.tolist()):
            prompt, completion, rollout = rows[row]
            with torch.no_grad():
                ids = torch.cat([prompt, completion]).unsqueeze(0)
                logits = policy.causal_lm(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            plain = (logits.float() / rollout.temperature).log_softmax(-1)
            own = plain[torch.arange(len(completion)), completion]
            entropy = -(plain.exp() * plain).sum(-1)
            torch.testing.assert_close(logprobs[c][batch.mask[c]], own, atol=1e-4, rtol=0)
            torch.testing.assert_close(entropies[c][batch.mask[c]], entropy, atol=1e-4, rtol=1e-4)
            seen.append(row)
    assert sorted(seen) == list(range(2 + 2 * 3))


def test_reference_logprobs_are_those_of_the_base(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder)
    untouched = make_policy(tiny_llama_folder)
    stir(policy)
    [batch] = pack(tiny_round(policy), policy.pad_id, token_budget=10**6)
    references = policy.reference_logprobs(batch)
    assert not references.requires_grad
    expected = untouched.completion_logprobs(batch)[0].detach()
    torch.testing.assert_close(references, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(references, policy.completion_logprobs(batch)[0], atol=1e-3)


def test_next_token_logprobs_are_the_references_whatever_else_is_in_the_batch(folder):
    policy = make_policy(folder)
    stir(policy)
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(4, 90, (n,), generator=generator).tolist() for n in (5, 17, 1, 9, 17, 30)
    ]
    together = policy.next_token_logprobs(prompts)
    base = plain_base(folder).eval()
    for prompt, logprobs in zip(prompts, together, strict=True):
        alone = policy.next_token_logprobs([prompt])[0]
        torch.testing.assert_close(logprobs, alone, atol=1e-4, rtol=0)
        with torch.no_grad():
            plain = base(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(logprobs, plain, atol=1e-4, rtol=0)


# -- what is refused -------------------------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch):
    """Counts how often transformers is asked to load a model."""
    calls = []
    original = transformers.AutoModelForCausalLM.from_pretrained

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", counted)
    return calls


def test_a_folder_with_pickled_weights_alone_is_refused(tiny_llama_folder, tmp_path, loads):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llama_folder, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"model\.base: .*safetensors") as error:
        Policy(str(folder))
    assert "\n" not in str(error.value)
    assert not loads


@pytest.mark.parametrize(
    "base", ["no/such/folder/here", "./nowhere", "pkg:lsp_lightning/nothing", "pkg:no_such/base"]
)
def test_a_missing_folder_is_refused_before_anything_is_loaded(base, loads):
    with pytest.raises(ConfigError, match=r"model\.base: (no |the package )") as error:
        Policy(base)
    assert "\n" not in str(error.value)
    assert not loads


def test_a_folder_without_a_config_is_refused(tmp_path, loads):
    with pytest.raises(ConfigError, match=r"model\.base: .*config\.json"):
        Policy(str(tmp_path))
    assert not loads


def test_a_folder_that_is_no_adapter_is_refused_before_anything_is_loaded(
    tiny_llama_folder, tmp_path, loads
):
    for init_adapter in (str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(ConfigError, match=r"model\.init_adapter: ") as error:
            Policy(str(tiny_llama_folder), init_adapter=init_adapter)
        assert "\n" not in str(error.value)
    assert not loads


# -- adapters at less cost -------------------------------------------------------------------------


def adapted_layer(dropout=0.0, bias=True, **config):
    """A plain layer with an adapter of rank 3 that does something."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5, bias=bias)).double()
    config = {"r": 3, "lora_alpha": 6, "lora_dropout": dropout, "target_modules": ["0"]} | config
    model = get_peft_model(model, LoraConfig(**config)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_adapter_has_the_value_and_the_gradients_of_the_plain_one(bias):
    model = adapted_layer(bias=bias)
    x = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True)
    with fused_lora(model):
        assert "forward" in vars(model.base_model.model[0])
        trained = [p for p in model.parameters() if p.requires_grad]
        inputs = (x, *trained)
        fused = model(x)
        # against finite differences, in x, A and B
        assert torch.autograd.gradcheck(lambda *_: model(x), inputs)
        grads = torch.autograd.grad(fused.square().sum(), inputs)
    plain = model(x)
    torch.testing.assert_close(fused, plain)
    expected = torch.autograd.grad(plain.square().sum(), inputs)
    for found, grad in zip(grads, expected, strict=True):
        torch.testing.assert_close(found, grad)


@pytest.mark.parametrize(
    "config",
    [{"dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}],
    ids=lambda c: next(iter(c)),
)
def test_adapters_that_compute_otherwise_are_left_as_they_are(config):
    model = adapted_layer(**config).train()
    with fused_lora(model):
        assert "forward" not in vars(model.base_model.model[0])


@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_nor_are_they_merged(config):
    model = adapted_layer(**config).float().eval()
    x = torch.randn(2, 7)
    plain = model(x)
    with merged_lora(model):
        torch.testing.assert_close(model(x), plain)


def test_layers_whose_own_bias_is_trained_are_left_as_they_are():
    model = adapted_layer(bias=True)
    model.base_model.model[0].base_layer.bias.requires_grad_(True)
    with fused_lora(model):
        assert "forward" not in vars(model.base_model.model[0])


def test_mixed_precision_leaves_layers_as_they_are():
    model = adapted_layer().float()
    with torch.autocast("cpu", torch.bfloat16), fused_lora(model):
        model(torch.randn(2, 7)).sum().backward()


def test_layers_call_themselves_again_after_an_error_too(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder)
    for context in (merged_lora, fused_lora):
        with context(policy.causal_lm):
            assert any("forward" in vars(m) for m in policy.causal_lm.modules())
        with pytest.raises(KeyError), context(policy.causal_lm):
            raise KeyError
        assert not any("forward" in vars(m) for m in policy.causal_lm.modules())


def test_a_merged_adapter_gives_the_logits_of_the_plain_one_and_changes_no_weight(
    tiny_llama_folder,
):
    policy = make_policy(tiny_llama_folder)
    stir(policy, scale=0.3)
    model = policy.causal_lm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        plain = model(input_ids=IDS).logits
        with merged_lora(model):
            found = model(input_ids=IDS).logits
        with policy.reference() as reference:
            bare = reference(input_ids=IDS).logits
            with merged_lora(reference):  # nothing is merged while adapters are off
                assert torch.equal(reference(input_ids=IDS).logits, bare)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, bare, atol=1e-2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
