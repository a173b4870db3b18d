"""Every family of models: the engine, the trainer and the chat template agree on what it says."""

from dataclasses import replace
from datetime import datetime
from itertools import combinations

import pytest
import torch
from architectures import ARCHITECTURES, WINDOW, build
from peft import PeftModel
from sampled_rounds import as_round, forward_shapes, prompts_of
from small_game import make_policy, stir
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.utils import chat_template_utils

from lsp_lightning.generation import LocalEngine
from lsp_lightning.models.modes import inference_state
from lsp_lightning.prefix import static_cache
from lsp_lightning.prefix.decoders import TreeDecoder
from lsp_lightning.prefix.sharing import set_sharing
from lsp_lightning.text.padding import pad_left
from lsp_lightning.training.batches import pack
from lsp_lightning.types import Sampling

#: Grouped queries and scaled rotary angles; norms of queries and keys; a sliding window; layers
#: without positions; experts; windows in some layers and a tower for pictures; dropout of its own.
#: The others run in make test-all.
QUICK = ("llama", "qwen3", "mistral", "qwen3-moe", "gemma3-vision")
LENGTHS = (3, 13, 1, 9)
NEW_TOKENS = 20


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return build(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def policy(folder):
    """As in a run that saves memory, with an adapter that does something."""
    policy = make_policy(folder, activation_checkpointing=True)
    stir(policy, scale=0.1)
    return policy


@pytest.fixture
def prompts(policy):
    return prompts_of(LENGTHS, len(policy.codec.tokenizer))


def engine_of(policy, stop_ids):
    return LocalEngine(policy.causal_lm, stop_ids, policy.pad_id)


def greedily(policy, prompts, stop_ids):
    """What ``transformers.generate`` says to each prompt."""
    ids, mask = pad_left(prompts, policy.pad_id)
    policy.causal_lm.eval()
    try:
        said = policy.causal_lm.generate(
            input_ids=ids,
            attention_mask=mask.long(),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=stop_ids,
            pad_token_id=policy.pad_id,
        )
    finally:
        policy.causal_lm.train()
    return said[:, ids.shape[1] :]


def stops_that_part(rows):
    """Two stop tokens for which half of the rows end early, and others much later."""
    for stops in combinations(sorted({token for row in rows for token in row}), 2):
        ends = [next((i for i, t in enumerate(row) if t in stops), len(row)) for row in rows]
        early = sum(end < WINDOW - 2 for end in ends)
        if len(rows) / 2 <= early < len(rows) and max(ends) > WINDOW + 2:
            return list(stops)
    raise AssertionError("all rows are alike: take other prompts")


def test_greedy_rollouts_are_those_of_generate(policy, prompts):
    free = greedily(policy, prompts, None)
    stop_ids = stops_that_part(free.tolist())
    drawn = []
    shapes = forward_shapes(
        policy.causal_lm,
        lambda: drawn.append(
            engine_of(policy, stop_ids).generate(
                prompts, 2, Sampling(temperature=0.0, max_new_tokens=NEW_TOKENS), seed=0
            )
        ),
    )
    rows = [shape[0] for shape in shapes[1:]]
    assert rows[WINDOW] < 2 * len(prompts), "no row left the batch before windows were full"
    expected = greedily(policy, prompts, stop_ids).repeat_interleave(2, dim=0)
    assert drawn[0].ids.tolist() == expected.tolist()


def test_sampled_logprobs_are_those_the_trainer_computes_again(policy, prompts):
    draws, temperature = 3, 1.2
    stop_ids = list(range(0, len(policy.codec.tokenizer), 10))
    sampling = Sampling(temperature=temperature, max_new_tokens=NEW_TOKENS)
    drawn = engine_of(policy, stop_ids).generate(prompts, draws, sampling, seed=3)
    assert drawn.mask.sum(1).max() > WINDOW
    assert not drawn.truncated.all()
    compared = 0
    played = as_round(prompts, draws, drawn, temperature)
    for shared in {policy.shares_prompts, False}:
        for batch in pack(played, policy.pad_id, 200, shared):
            assert policy.model.training
            logprobs, _ = policy.completion_logprobs(batch)
            for c, row in enumerate(batch.rows.tolist()):
                sampled = drawn.logprobs[row][drawn.mask[row]]
                torch.testing.assert_close(logprobs[c][batch.mask[c]], sampled, atol=1e-4, rtol=0)
                compared += len(sampled)
    assert compared == int(drawn.mask.sum()) * (1 + policy.shares_prompts)


def gradients(policy, batch):
    policy.zero_grad()
    policy.completion_logprobs(batch)[0].sum().backward()
    found = {n: p.grad for n, p in policy.named_parameters() if p.requires_grad}
    return {n: None if grad is None else grad.clone() for n, grad in found.items()}


def test_every_adapter_of_the_text_model_gets_a_gradient(policy, prompts):
    drawn = engine_of(policy, []).generate(prompts, 1, Sampling(max_new_tokens=NEW_TOKENS), seed=1)
    (batch,) = pack(as_round(prompts, 1, drawn, 1.0), policy.pad_id, 10_000)
    found = gradients(policy, batch)
    layers = policy.causal_lm.config.get_text_config().num_hidden_layers
    assert len(found) >= 2 * 4 * layers  # two matrices, four linear layers and more
    assert all(grad is not None and grad.abs().max() > 0 for grad in found.values())
    policy.causal_lm.gradient_checkpointing_disable()
    try:
        plain = gradients(policy, batch)
    finally:
        policy.causal_lm.activation_checkpointing_enable({"use_reentrant": False})
    for name, grad in found.items():
        torch.testing.assert_close(grad, plain[name], atol=1e-4, rtol=1e-4)


def test_all_but_models_with_states_or_chunks_share_prompts(name, policy):
    apart = ("qwen3.5", "granite-hybrid", "llama4")
    assert policy.shares_prompts == (name not in apart)


def test_the_gradient_of_a_tree_is_that_of_its_rows(policy, prompts):
    if not policy.shares_prompts:
        pytest.skip("this architecture computes each completion with its own prompt")
    prompts = [[*prompts[1], *prompt] for prompt in prompts]  # longer than a window, and alike
    drawn = engine_of(policy, []).generate(prompts, 3, Sampling(max_new_tokens=NEW_TOKENS), seed=1)
    played = as_round(prompts, 3, drawn, 1.0)
    (tree,) = pack(played, policy.pad_id, 10_000, shared=True)
    (rows,) = pack(played, policy.pad_id, 10_000)
    assert tree.input_ids.numel() < 0.8 * rows.input_ids.numel()
    shared, apart = gradients(policy, tree), gradients(policy, rows)
    for name, grad in shared.items():
        torch.testing.assert_close(grad, apart[name], atol=2e-4, rtol=1e-3)


def test_tree_and_rows_sample_the_same_tokens(policy, prompts):
    if not policy.shares_prompts:
        pytest.skip("this architecture computes each completion with its own prompt")
    stop_ids = list(range(0, len(policy.codec.tokenizer), 10))
    call = (prompts, 3, Sampling(max_new_tokens=NEW_TOKENS), 5)
    fast = engine_of(policy, stop_ids).generate(*call)
    sharing = policy.causal_lm.prefix_sharing
    set_sharing(policy.causal_lm, replace(sharing, unavailable="of this test"))
    try:
        plain = engine_of(policy, stop_ids).generate(*call)
    finally:
        set_sharing(policy.causal_lm, sharing)
    assert torch.equal(fast.ids, plain.ids)
    torch.testing.assert_close(fast.logprobs, plain.logprobs, atol=1e-4, rtol=0)


class Replay:
    """As a CUDA graph: a step's tensors are read and written where they were when it was recorded.

    Every tensor that the cache holds must still be there, and no Python may take another decision.
    """

    def __init__(self, step, ids, positions):
        self.step, self.ids, self.positions = step, ids.clone(), positions.clone()
        cache = step.__self__._cache
        self.held = lambda: (
            [x.data_ptr() for layer in cache._layers.values() for x in vars(layer).values()]
            + [cache._at.data_ptr()]
        )
        self.recorded = self.held()
        self.shapes = self.sizes()
        self.calls = 0

    def sizes(self):
        seen = []
        with Sizes(seen):
            self.step(self.ids, self.positions)
        return seen

    def __call__(self, ids, positions):
        assert self.held() == self.recorded
        self.ids.copy_(ids)
        self.positions.copy_(positions)
        self.calls += 1
        # the same operations on tensors of the same sizes, at every step
        assert self.sizes() == self.shapes
        return self.step(self.ids, self.positions)


class Sizes(TorchDispatchMode):
    """Which operations are done on tensors of which sizes."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = tuple(tuple(a.shape) if isinstance(a, torch.Tensor) else None for a in args)
        self.seen.append((str(func), shapes))
        return func(*args, **(kwargs or {}))


def test_a_step_that_can_be_recorded_says_the_same(policy, prompts, monkeypatch):
    """What a CUDA graph asks of a step, on a CPU: fixed sizes, fixed places, the same logits."""
    if not policy.shares_prompts:
        pytest.skip("models with states are decoded step by step")
    monkeypatch.setattr(static_cache, "FIRST_ROOM", 4)  # so that it grows twice
    replays = []

    def record(step, ids, positions):
        replays.append(Replay(step, ids, positions))
        return replays[-1]

    draws, device = 2, torch.device("cpu")
    with inference_state(policy.causal_lm, "cpu"):
        plain = TreeDecoder(policy.causal_lm, prompts, draws, NEW_TOKENS, device)
        fixed = TreeDecoder(policy.causal_lm, prompts, draws, NEW_TOKENS, device, record)
        logits = plain.begin()
        torch.testing.assert_close(fixed.begin(), logits)
        for step in range(NEW_TOKENS - 1):
            tokens = logits.argmax(dim=1)
            if step == WINDOW:
                keep = torch.tensor([0, 1, 3, 6])
                plain.keep(keep)
                fixed.keep(keep)
                tokens = tokens[keep]
            logits = plain.step(tokens)
            torch.testing.assert_close(fixed.step(tokens), logits, atol=1e-4, rtol=1e-4)
    # 4, 8, 16 places, then fewer completions, then all 20 places
    assert len(replays) >= 4
    assert sum(replay.calls for replay in replays) == NEW_TOKENS - 1
    assert max(replay.calls for replay in replays) > 2


def test_logits_are_computed_for_the_last_place_only(policy, prompts):
    seen = []
    head = policy.causal_lm.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:-1]))
    try:
        engine_of(policy, []).generate(prompts, 2, Sampling(max_new_tokens=2), seed=0)
    finally:
        handle.remove()
    prefill = (1, len(prompts)) if policy.shares_prompts else (len(prompts), 1)
    assert seen == [prefill, (2 * len(prompts), 1)]


def test_next_token_logprobs_are_those_of_the_bare_model(policy, folder, prompts):
    bare = AutoModelForCausalLM.from_pretrained(folder)  # loading the policy checked its head
    with torch.no_grad():
        last = [bare(input_ids=torch.tensor([p])).logits[0, -1] for p in prompts]
    expected = torch.stack(last).log_softmax(-1)
    torch.testing.assert_close(policy.next_token_logprobs(prompts), expected, atol=1e-4, rtol=0)


def test_a_saved_adapter_gives_equal_logits_under_plain_peft(policy, folder, tmp_path):
    policy.save(tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path)
    ids = torch.arange(16).unsqueeze(0)
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        logits = loaded.eval()(input_ids=ids).logits
        own = policy.model.eval()(input_ids=ids).logits
    policy.model.train()
    assert torch.equal(logits, own)
    assert not torch.allclose(own, base, atol=0.1)


def stop_ids_of(policy):
    return set(policy.codec.stop_ids)


def test_completions_end_at_each_of_the_familys_stop_tokens(name, policy, prompts):
    stops = policy.codec.tokenizer.convert_tokens_to_ids(list(ARCHITECTURES[name].stops))
    assert stop_ids_of(policy) == set(stops)
    drawn = engine_of(policy, sorted(stop_ids_of(policy))).generate(
        prompts, 32, Sampling(temperature=4.0, max_new_tokens=40), seed=0
    )
    rows = [ids[mask].tolist() for ids, mask in zip(drawn.ids, drawn.mask, strict=True)]
    last = {row[-1] for row in rows}
    assert set(stops) <= last, "a stop token never came: nothing was tested"
    assert all(set(stops).isdisjoint(row[:-1]) for row in rows)


def test_a_prompt_is_the_same_on_every_day(name, policy, monkeypatch):
    tokenizer = policy.codec.tokenizer
    encoded, templated = [], []
    for year in (2025, 2031):

        class Day(datetime):
            @classmethod
            def now(cls, tz=None, year=year):
                return datetime(year, 5, 1)

        monkeypatch.setattr(chat_template_utils, "datetime", Day)
        encoded.append(policy.codec.encode("{query}", {"query": "hi"}))
        if tokenizer.chat_template:
            turn = [{"role": "user", "content": "hi"}]
            templated.append(tokenizer.apply_chat_template(turn, tokenize=False))
    assert encoded[0] == encoded[1]
    dated = name in ("llama", "llama4", "smollm3", "granite", "granite-hybrid", "gpt-oss")
    assert (len(set(templated)) == 2) is dated  # what the pin is there for
    assert ("2024" in tokenizer.decode(encoded[0])) is dated


def test_user_turns_alone_are_enough(policy):
    """No template is asked for a system turn, which some refuse."""
    codec = policy.codec
    short, long = (codec.encode("{query}", {"query": "hi" * n}) for n in (1, 2))
    assert len(long) > len(short)
    chat = codec.encode_chat([("user", "hi"), ("assistant", "yes"), ("user", "so")])
    assert "yes" in codec.tokenizer.decode(chat)
