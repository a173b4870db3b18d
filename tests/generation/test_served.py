"""Rollouts from a server: the samples, the weights they come from, and the answers refused.

The tests use a server with vLLM's protocol and a real small model (rollout_server.py), and a real
``transformers serve`` for what it supports. vLLM needs a GPU and has not been run.
"""

import asyncio
import gc
import itertools
import json
import shutil
import time
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
import torch
from few import few
from loopback import Answer, drips_body, drips_headers, free_port, hangs, hangs_up
from loopback import transformers_serve as serve
from rollout_server import RolloutServer, as_json, refusal
from small_game import make_policy, stir
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsp_lightning.errors import ConfigError
from lsp_lightning.generation.served.adapters import fingerprint
from lsp_lightning.generation.served.client import ServerClient
from lsp_lightning.generation.served.errors import BadReply, EngineError, EngineLost
from lsp_lightning.generation.served.protocol import Request
from lsp_lightning.generation.settings import LocalRollouts, RolloutSettings, ServedRollouts
from lsp_lightning.paths import resolve
from lsp_lightning.runtime import http
from lsp_lightning.runtime.http import Client
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.types import Sampling

pytestmark = pytest.mark.usefixtures("short_pauses", "one_retry")

PROMPTS = [[5, 6, 7], [20, 21, 22, 23, 24, 25], [9], [30, 31]]
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
FREE = Sampling(max_new_tokens=8)
BUDGET = TokenBudget("model.rollouts.tokens", 65_536)


@pytest.fixture(scope="module")
def base(brief_folder):
    """A model whose completions often end early."""
    return brief_folder


@pytest.fixture(scope="module")
def start(base):
    """A policy for all tests, and the weights that each test begins with."""
    policy = make_policy(base)
    stir(policy, scale=0.5)
    return policy, {n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}


@pytest.fixture
def policy(start):
    policy, weights = start
    policy.load_state_dict(weights, strict=False)
    return policy


@pytest.fixture
def server(base):
    with RolloutServer(base) as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "adapters"


@pytest.fixture
def one_retry(monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 1)


def settings(server, folder, **client):
    url = server if isinstance(server, str) else server.url
    return ServedRollouts(url, "base", str(folder), Client(**{"timeout": 20.0, **client}))


@pytest.fixture
def engine(server, folder, policy):
    return settings(server, folder).build(policy, BUDGET)


def local(policy):
    return LocalRollouts().build(policy, BUDGET)


def assert_same(drawn, expected):
    for name in ("ids", "mask", "truncated"):
        assert torch.equal(getattr(drawn, name), getattr(expected, name)), name
    torch.testing.assert_close(drawn.logprobs, expected.logprobs, atol=1e-4, rtol=0)


def logprobs_by_hand(policy, prompts, drawn, temperature=1.0):
    """Log-probs of the sampled tokens, one forward pass for each row; 0 on padding."""
    draws = len(drawn.ids) // len(prompts)
    expected = torch.zeros(drawn.ids.shape)
    policy.causal_lm.eval()
    for row, (ids, mask) in enumerate(zip(drawn.ids, drawn.mask, strict=True)):
        prompt, tokens = prompts[row // draws], ids[mask]
        with torch.no_grad():
            logits = policy.causal_lm(torch.tensor([[*prompt, *tokens.tolist()]])).logits[0]
        logprobs = (logits[len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        expected[row, : len(tokens)] = logprobs.gather(1, tokens[:, None])[:, 0]
    return expected


# Samples.


@pytest.mark.parametrize("draws", [1, 3])
def test_greedy_completions_are_those_of_the_engine_in_this_process(engine, policy, draws):
    drawn = engine.generate(PROMPTS, draws, GREEDY, seed=0)
    expected = local(policy).generate(PROMPTS, draws, GREEDY, seed=0)
    assert_same(drawn, expected)
    assert 0 < drawn.truncated.sum() < len(drawn.truncated), "all ended alike: little was tested"


def test_sampled_logprobs_are_those_of_the_trainers_own_model(engine, policy):
    drawn = engine.generate(PROMPTS, 5, FREE, seed=3)
    expected = logprobs_by_hand(policy, PROMPTS, drawn)
    torch.testing.assert_close(drawn.logprobs, expected, atol=1e-4, rtol=0)
    stops = torch.tensor(policy.codec.stop_ids)
    for ids, mask, truncated in zip(drawn.ids, drawn.mask, drawn.truncated, strict=True):
        assert bool(truncated) == (not torch.isin(ids[mask][-1], stops))
        assert (ids[~mask] == policy.pad_id).all()


def test_first_tokens_come_as_often_as_the_softmax_says(engine, policy):
    prompt, draws, temperature = PROMPTS[1], 1500, 0.7
    sampling = Sampling(temperature=temperature, max_new_tokens=1)
    drawn = engine.generate([prompt], draws, sampling, seed=11)
    policy.causal_lm.eval()
    with torch.no_grad():
        logits = policy.causal_lm(torch.tensor([prompt])).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1) * draws
    counts = torch.bincount(drawn.ids[:, 0], minlength=len(expected)).double()
    often = expected >= 5
    chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum())
    # mean f, variance 2f: five standard deviations
    assert chi2 < freedom + 5 * (2 * freedom) ** 0.5


def test_the_seed_decides_and_no_two_draws_share_one(engine, server):
    prompts = [[5, 6], [5, 6], [5, 6]]
    first, again, other = (engine.generate(prompts, 4, FREE, seed) for seed in (7, 7, 8))
    assert torch.equal(first.ids, again.ids)
    assert first.ids.tolist() != other.ids.tolist()
    assert len({tuple(ids) for ids in first.ids.tolist()}) > 8  # of 12, all of one prompt
    # vLLM uses seed + j for draw j, so prompts with close seeds would share draws
    seeds = sorted({r["seed"] for r in server.requests})
    assert len(seeds) == 6
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 1000
    assert max(seeds) < 2**62  # fits a signed 64-bit integer


def test_each_prompt_may_have_a_seed_of_its_own(engine, server):
    """So that held-out answers do not depend on the tasks that are asked beside."""
    prompts, seeds = [[5, 6], [6, 5], [5, 6]], [11, 12, 13]
    together = engine.generate(prompts, 2, FREE, seeds).ids.tolist()
    asked = sorted({r["seed"] for r in server.requests})
    assert len(asked) == 3  # also of seeds next to each other, see the test above
    assert min(b - a for a, b in itertools.pairwise(asked)) > 1000
    for i in (2, 0):
        alone = engine.generate(prompts[i : i + 1], 2, FREE, seeds[i : i + 1]).ids
        for row, whole in zip(alone.tolist(), together[2 * i : 2 * i + 2], strict=True):
            assert [t for t in row if t] == [t for t in whole if t]


def test_prompts_are_sent_as_tokens_and_nothing_is_left_to_the_servers_defaults(
    engine, server, policy
):
    sampling = Sampling(temperature=1.0, max_new_tokens=3, top_p=0.9, top_k=7)
    engine.generate(PROMPTS, 2, sampling, seed=0)
    sent = [r for r in server.requests if r["n"] == 2]
    assert sorted(r["prompt"] for r in sent) == sorted(PROMPTS)
    for request in sent:
        assert request["max_tokens"] == 3
        assert (request["temperature"], request["top_p"], request["top_k"]) == (1.0, 0.9, 7)
        assert request["stop_token_ids"] == list(policy.codec.stop_ids)
        assert request["ignore_eos"] is True
        assert request["return_token_ids"] is True
        neutral = {"min_p": 0, "repetition_penalty": 1, "presence_penalty": 0}
        assert neutral.items() <= request.items()


def test_each_completion_is_told_with_its_row_and_its_tokens(engine):
    told = {}
    drawn = engine.generate(PROMPTS, 3, FREE, seed=1, finished=told.__setitem__)
    expected = [ids[mask].tolist() for ids, mask in zip(drawn.ids, drawn.mask, strict=True)]
    assert [told[row] for row in range(12)] == expected


def test_it_works_where_an_event_loop_runs_already(engine):
    async def inside():
        return engine.generate(PROMPTS, 2, GREEDY, seed=0)

    assert_same(asyncio.run(inside()), engine.generate(PROMPTS, 2, GREEDY, seed=0))


# raw or processed, temperature, top-k -> whether the log-probs can be used
@pytest.mark.parametrize(
    ("processed", "temperature", "top_k", "known"),
    [
        (False, 1.0, 0, True),
        (True, 1.0, 0, True),
        (False, 1.3, 0, False),
        (True, 1.3, 0, True),
        (False, 1.0, 5, True),
        (True, 1.0, 5, False),
        (False, 1.3, 5, False),
        (True, 1.3, 5, False),
    ],
)
def test_logprobs_are_at_the_temperature_before_truncation_or_unknown(
    base, folder, policy, processed, temperature, top_k, known
):
    sampling = Sampling(temperature=temperature, max_new_tokens=8, top_k=top_k)
    with RolloutServer(base, processed=processed) as server:
        drawn = settings(server, folder).build(policy, BUDGET).generate(PROMPTS, 4, sampling, 2)
    if known:
        expected = logprobs_by_hand(policy, PROMPTS, drawn, temperature)
        torch.testing.assert_close(drawn.logprobs, expected, atol=1e-4, rtol=0)
    else:
        assert torch.equal(drawn.logprobs.isnan(), drawn.mask)


def test_a_server_without_logprobs_leaves_them_unknown(engine, server):
    def without(reply):
        return {**reply, "choices": [{**c, "logprobs": None} for c in reply["choices"]]}

    server.mangle = without
    drawn = engine.generate(PROMPTS, 2, FREE, seed=0)
    assert torch.equal(drawn.logprobs.isnan(), drawn.mask)


def test_a_logprob_that_was_rounded_above_0_is_0(engine, server):
    server.mangle = changed(token_ids=[2], logprobs=logprobs(5e-4))
    assert engine.generate(PROMPTS[:1], 1, FREE, seed=0).logprobs.tolist() == [[0.0]]


# Weights.


def test_every_change_of_the_weights_is_published_before_anything_is_drawn(
    engine, server, folder, policy
):
    names = []
    prompts = PROMPTS[:2]
    for version in range(3):
        for _ in range(2):  # unchanged weights are published once
            drawn = engine.generate(prompts, 1, GREEDY, seed=0)
        assert_same(drawn, local(policy).generate(prompts, 1, GREEDY, seed=0))
        (name,) = server.adapters
        names.append(name)
        assert [path.name for path in folder.glob("*/*")] == [name]
        assert {r["model"] for r in server.requests[version * 4 :]} == {name}
        stir(policy, scale=0.5, seed=version)
    one, two, three = names
    assert server.log == [
        f"load {one}",
        f"unload {one}",
        f"load {two}",
        f"unload {two}",
        f"load {three}",
    ]
    assert server.most_loaded == 1
    engine.close()
    assert not server.adapters
    assert not list(folder.glob("*/*"))


def test_a_bad_answer_leaves_no_adapter_on_the_server(engine, server):
    server.mangle = lambda reply: {}
    with pytest.raises(BadReply):
        engine.generate(PROMPTS, 1, GREEDY, seed=0)
    server.mangle = lambda reply: reply
    engine.generate(PROMPTS, 1, GREEDY, seed=0)
    assert server.most_loaded == 1
    server.mangle = lambda reply: {}
    with pytest.raises(BadReply):
        engine.generate(PROMPTS, 1, GREEDY, seed=1)
    engine.close()
    assert not server.adapters


def test_a_deleted_engine_leaves_no_folder(server, folder, policy):
    engine = settings(server, folder).build(policy, BUDGET)
    engine.generate(PROMPTS[:1], 1, GREEDY, seed=0)
    assert len(list(folder.iterdir())) == 1
    del engine
    gc.collect()
    assert list(folder.iterdir()) == []


def test_versions_draw_differently(engine, policy):
    first = engine.generate(PROMPTS, 1, GREEDY, seed=0)
    stir(policy, scale=0.5, seed=9)
    assert first.ids.tolist() != engine.generate(PROMPTS, 1, GREEDY, seed=0).ids.tolist()


def test_a_change_that_torch_does_not_count_is_noticed(policy):
    before, weights = fingerprint(policy), [p for p in policy.parameters() if p.requires_grad]
    assert fingerprint(policy) == before
    version = weights[0]._version
    weights[0].detach().numpy().flat[0] += 1e-6  # as kernels of 8-bit optimisers do
    assert weights[0]._version == version
    assert fingerprint(policy) != before


def test_two_runs_do_not_meet_in_one_folder(server, folder, policy, base):
    other = make_policy(base)
    engines = [settings(server, folder).build(p, BUDGET) for p in (policy, other)]
    for _ in range(2):
        for engine, own in zip(engines, (policy, other), strict=True):
            drawn = engine.generate(PROMPTS, 1, GREEDY, seed=0)
            assert_same(drawn, local(own).generate(PROMPTS, 1, GREEDY, seed=0))
    assert len(server.adapters) == 2


def test_answers_by_an_older_adapter_are_never_used(engine, server, policy):
    engine.generate(PROMPTS, 1, FREE, seed=0)
    (stale,) = server.adapters
    stir(policy)
    server.mangle = lambda reply: {**reply, "model": stale}
    told = {}
    with pytest.raises(BadReply, match=f"comes from model '{stale}', with weights that are stale"):
        engine.generate(PROMPTS, 1, FREE, seed=0, finished=told.__setitem__)
    assert told == {}


def test_answers_by_the_bare_base_are_never_used(engine, server):
    server.mangle = lambda reply: {**reply, "model": "base"}
    with pytest.raises(BadReply, match="stale or of another run"):
        engine.generate(PROMPTS, 1, FREE, seed=0)


# Answers that are refused.


def changed(**fields):
    """Changes fields of the first choice of a reply."""

    def change(reply):
        first, *others = reply["choices"]
        return {**reply, "choices": [{**first, **fields}, *others]}

    return change


def logprobs(*values):
    return {"token_logprobs": list(values)}


HOSTILE = {
    "no JSON": (lambda reply: b"<html>hello</html>", "is not a completion"),
    "half JSON": (lambda reply: json.dumps(reply).encode()[:-9], "is not a completion"),
    "deep JSON": (lambda reply: b"[" * 100_000, "is not a completion"),
    "a number": (lambda reply: b"7", "is not a completion"),
    "no choices": (lambda reply: {"model": reply["model"]}, "is not a completion"),
    "an error": (lambda reply: {"error": {"message": "no"}}, "is not a completion"),
    "no model": (lambda reply: {"choices": reply["choices"]}, "comes from model .*of another run"),
    "a model that is none": (
        lambda reply: {**reply, "model": ["x"] * 9},
        "comes from model .*of another run",
    ),
    "none of the draws": (lambda reply: {**reply, "choices": []}, "0 choices instead of 2"),
    "fewer draws": (
        lambda reply: {**reply, "choices": reply["choices"][:1]},
        "1 choices instead of 2",
    ),
    "more draws": (
        lambda reply: {
            **reply,
            "choices": reply["choices"] + [{**reply["choices"][0], "index": 2}],
        },
        "3 choices instead of 2",
    ),
    "a draw twice": (changed(index=1), "2 choices instead of 2"),
    "no index": (changed(index=None), "malformed choices"),
    "choices of text": (lambda reply: {**reply, "choices": ["a", "b"]}, "malformed choices"),
    "a different prompt": (changed(prompt_token_ids=[1, 2]), "a different prompt"),
    "no token ids": (changed(token_ids=None), "no token ids; they need vLLM 0.10.2"),
    "ids as text": (changed(token_ids="123"), "not integers"),
    "ids with fractions": (changed(token_ids=[1.0] * 8), "not integers"),
    "ids that are truth values": (changed(token_ids=[True] * 8), "not integers"),
    "no tokens": (changed(token_ids=[]), "0 tokens instead of 1 to 8"),
    "too many tokens": (changed(token_ids=[7] * 9), "9 tokens instead of 1 to 8"),
    "far too many tokens": (changed(token_ids=[7] * 100_000), "100000 tokens"),
    "an id outside": (changed(token_ids=[10**6] * 8), "the token 1000000, but the vocabulary has"),
    "an id far outside": (changed(token_ids=[10**3000] * 8), "another model or tokenizer"),
    "a negative id": (changed(token_ids=[7, -1, 7, 7, 7, 7, 7, 7]), "the token -1, but"),
    "an end too early": (changed(token_ids=[7, 7]), "ends after 2 tokens"),
    "more behind the end": (
        changed(token_ids=[7, 2, 7, 7, 7, 7, 7, 7]),
        "continues after a stop token",
    ),
    "logprobs missing": (changed(token_ids=[7] * 8, logprobs=logprobs(-1.0)), "1 log-probs for 8"),
    "a NaN": (changed(token_ids=[2], logprobs=logprobs(float("nan"))), "log-prob nan"),
    "minus infinity": (changed(token_ids=[2], logprobs=logprobs(float("-inf"))), "log-prob -inf"),
    "vLLM's minus infinity": (changed(token_ids=[2], logprobs=logprobs(-9999.0)), "log-prob -9999"),
    "what no sampler draws": (changed(token_ids=[2], logprobs=logprobs(-201.0)), "log-prob -201"),
    "a logit": (changed(token_ids=[2], logprobs=logprobs(3.5)), "log-prob 3.5"),
    "null logprobs": (
        changed(token_ids=[2], logprobs=logprobs(None)),
        "log-probs that are not numbers",
    ),
    "a huge logprob": (
        changed(token_ids=[2], logprobs=logprobs(-(10**400))),
        "that are not numbers",
    ),
    "logprobs as text": (changed(token_ids=[2], logprobs="low"), "log-probs that are not numbers"),
    "a huge body": (lambda reply: b" " * 3_000_000, "sent more than"),
}


@pytest.fixture(scope="module")
def hostile(base, start, tmp_path_factory):
    """A server and an engine on it."""
    policy, _ = start
    assert 2 in policy.codec.stop_ids
    assert 7 not in policy.codec.stop_ids
    with RolloutServer(base) as server:
        folder = tmp_path_factory.mktemp("adapters")
        yield server, settings(server, folder).build(policy, BUDGET)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_is_not_what_was_asked_for_is_one_clear_error(hostile, name):
    server, engine = hostile
    server.mangle, expected = HOSTILE[name]
    told = {}
    with pytest.raises(BadReply, match=expected) as caught:
        engine.generate(PROMPTS[:1], 2, FREE, seed=0, finished=told.__setitem__)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert len(line) < 700
    assert server.url in line
    assert told == {}


def test_one_bad_answer_among_many_spoils_the_call(engine, server):
    def third(reply):
        return b"{}" if reply["choices"][0]["prompt_token_ids"] == PROMPTS[2] else reply

    server.mangle = third
    with pytest.raises(BadReply):
        engine.generate(PROMPTS, 2, FREE, seed=0)


# A server that is slow, busy or stopped.


@pytest.mark.parametrize("misbehaviour", few(1, [drips_body, hangs, drips_headers]))
def test_a_slow_server_costs_the_timeout_and_no_more(server, folder, policy, misbehaviour):
    engine = settings(server, folder, timeout=0.5).build(policy, BUDGET)
    server.script = lambda k, request: misbehaviour
    started = time.monotonic()
    with pytest.raises(EngineLost, match=r"did not answer within 0\.5 s"):
        engine.generate(PROMPTS, 1, FREE, seed=0)
    assert 1.0 <= time.monotonic() - started < 3.0


@pytest.mark.parametrize(
    "trouble", [Answer(b"busy", 503), Answer(b"slower", 429, {"Retry-After": "0.01"}), hangs_up]
)
def test_a_temporary_fault_is_retried_and_changes_nothing(engine, server, trouble):
    expected = engine.generate(PROMPTS, 2, FREE, seed=4)
    before, failed = len(server.requests), set()

    def once_each(k, request):
        first = str(request["prompt"]) not in failed
        failed.add(str(request["prompt"]))
        return trouble if first else None

    server.script = once_each
    drawn = engine.generate(PROMPTS, 2, FREE, seed=4)
    assert len(server.requests) - before == 2 * len(PROMPTS)
    assert_same(drawn, expected)


def test_no_more_prompts_are_asked_at_once_than_allowed(server, folder, policy):
    engine = settings(server, folder, concurrency=2).build(policy, BUDGET)
    server.script = lambda k, request: time.sleep(0.05)
    engine.generate(PROMPTS * 2, 1, FREE, seed=0)
    assert server.most_busy == 2


def test_the_timeout_of_a_request_starts_when_it_is_sent(server, folder, policy, monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 0)
    engine = settings(server, folder, concurrency=1, timeout=0.7).build(policy, BUDGET)
    server.script = lambda k, request: time.sleep(0.2)
    engine.generate(PROMPTS, 1, Sampling(max_new_tokens=1), seed=0)  # 0.8 s in all


def dies_at(server, k):
    """A script that stops the server in the middle of its k-th answer, from 0."""

    def script(i, request):
        if i < k:
            return None
        server.die()
        return hangs_up

    return script


def test_a_server_that_dies_in_a_round_ends_the_run_with_one_line(engine, server):
    server.script = dies_at(server, 2)
    with pytest.raises(EngineLost) as caught:
        engine.generate(PROMPTS, 2, FREE, seed=0)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    for part in (server.url, "restart it if needed, and resume from the last checkpoint"):
        assert part in line


def test_a_restarted_server_has_lost_the_adapter_and_gets_it_again(engine, server, policy):
    engine.generate(PROMPTS, 1, GREEDY, seed=0)
    server.adapters.clear()
    with pytest.raises(EngineLost, match=r"has lost the adapter lsp-.*, perhaps by a restart"):
        engine.generate(PROMPTS, 1, GREEDY, seed=0)
    drawn = engine.generate(PROMPTS, 1, GREEDY, seed=0)
    assert_same(drawn, local(policy).generate(PROMPTS, 1, GREEDY, seed=0))


@pytest.mark.parametrize("noticed", [True, False], ids=["lost", "unnoticed"])
@pytest.mark.parametrize("what", ["base", "tokenizer"])
def test_a_server_that_comes_back_as_another_is_refused(
    base, tiny_qwen3_folder, server, folder, policy, noticed, what
):
    engine = settings(server, folder).build(policy, BUDGET)
    engine.generate(PROMPTS, 1, GREEDY, seed=0)
    server.die()
    if noticed:
        with pytest.raises(EngineLost):
            engine.generate(PROMPTS, 1, GREEDY, seed=0)
    stir(policy)  # the next round
    other = tiny_qwen3_folder if what == "tokenizer" else base
    with RolloutServer(other, port=server.port) as back:
        if what == "base":
            back.models = lambda: as_json({"data": [{"id": "another"}]})
        line = refusal_of(lambda: engine.generate(PROMPTS, 1, GREEDY, seed=0))
        assert back.log == back.requests == []
    words = {"base": "has no model 'base' (it has another)", "tokenizer": "does not tokenize like"}
    assert words[what] in line


@pytest.mark.parametrize("noticed", [True, False], ids=["lost", "unnoticed"])
@pytest.mark.parametrize("before", ["raw", "processed"])
def test_a_server_that_comes_back_with_other_logprobs_is_probed_again(
    base, folder, policy, noticed, before
):
    sampling = Sampling(temperature=1.3, max_new_tokens=8)
    with RolloutServer(base, processed=before == "processed") as server:
        engine = settings(server, folder).build(policy, BUDGET)
        drawn = engine.generate(PROMPTS, 2, sampling, seed=0)
        assert drawn.logprobs[drawn.mask].isnan().all() == (before == "raw")
    if noticed:
        with pytest.raises(EngineLost):
            engine.generate(PROMPTS, 2, sampling, seed=0)
    stir(policy)  # the next round
    with RolloutServer(base, port=server.port, processed=before == "raw"):
        drawn = engine.generate(PROMPTS, 2, sampling, seed=0)
    if before == "raw":
        expected = logprobs_by_hand(policy, PROMPTS, drawn, 1.3)
        torch.testing.assert_close(drawn.logprobs, expected, atol=1e-4, rtol=0)
    else:
        assert torch.equal(drawn.logprobs.isnan(), drawn.mask)


# At the start.


def refusal_of(build):
    with pytest.raises(ConfigError) as caught:
        build()
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 700
    return line


def test_a_server_that_was_never_there_is_a_mistake_in_the_set_up(folder, policy):
    url = f"http://127.0.0.1:{free_port()}/v1"
    line = refusal_of(lambda: settings(url, folder).build(policy, BUDGET))
    assert f"model.rollouts.url: no server at {url} (connection refused); start it" in line


def test_another_base_is_refused(server, folder, policy):
    asked = ServedRollouts(server.url, "other", str(folder))
    assert "has no model 'other' (it has base)" in refusal_of(lambda: asked.build(policy, BUDGET))


def test_another_tokenizer_is_refused(tiny_qwen3_folder, folder, policy):
    with RolloutServer(tiny_qwen3_folder) as server:
        line = refusal_of(lambda: settings(server, folder).build(policy, BUDGET))
    assert "'base' on the server does not tokenize like model.base" in line


def test_a_tokenizer_that_differs_in_a_stop_token_alone_is_refused(base, folder, tmp_path, policy):
    other = shutil.copytree(base, tmp_path / "other")
    path = other / "tokenizer.json"
    spelled, swap = json.loads(path.read_text()), {"<s>": "</s>", "</s>": "<s>"}
    ids = spelled["model"]["vocab"]
    spelled["model"]["vocab"] = {token: ids[swap.get(token, token)] for token in ids}
    for token in spelled["added_tokens"]:
        token["id"] = ids[swap.get(token["content"], token["content"])]
    path.write_text(json.dumps(spelled))
    with RolloutServer(other) as server:
        own = policy.codec.tokenizer
        for text, same in (("x = 1", True), ("</s>", False)):
            assert (server.tokenizer.encode(text) == own.encode(text)) is same
        line = refusal_of(lambda: settings(server, folder).build(policy, BUDGET))
    assert "'base' on the server does not tokenize like model.base" in line


def named(*names):
    return {"data": [{"id": name} for name in names]}


LISTS = {
    "control characters": (
        named("\x1b[2J\x1b]0;mine\x07", "a\nerror: b\r"),
        ", a error: b); set it to",
    ),
    "text that runs backwards": (named("\u202egnp.exe", "\u2066x"), "gnp.exe"),
    "a long name": (named("x" * 3000), "xxx"),
    "many names": (named(*map(str, range(9999))), "0, 1, 2, 3, 4"),
    "no names": (named(), "(it has nothing)"),
    "names that are none": (named(7, None, ["\x1b" * 999]), "(it has 7, None, ["),
    "cards that are none": ({"data": ["base"]}, "lists no models"),
    "no cards": ({"data": 7}, "lists no models"),
    "no JSON": (b"\x1b[2J", "lists no models"),
    "deep JSON": (b"[" * 100_000, "lists no models"),
    "a huge body": (b" " * 2_000_000, "sent more than"),
    "a refusal": (refusal(401, "\x1b[2J\u202e" * 999), "check url and client.api_key_env"),
}


@pytest.mark.parametrize("name", LISTS)
def test_whatever_a_server_lists_is_one_printable_line(server, folder, policy, name):
    listed, expected = LISTS[name]
    server.models = lambda: listed if isinstance(listed, Answer) else as_json(listed)
    asked = ServedRollouts(server.url, "mine", str(folder))
    assert expected in refusal_of(lambda: asked.build(policy, BUDGET))


TOKENIZED = {
    "no JSON": (b"\x1b[2J", "does not tokenize like"),
    "deep JSON": (b"[" * 100_000, "does not tokenize like"),
    "no tokens": ({"tokens": None}, "does not tokenize like"),
    "tokens that are none": ({"tokens": ["\x1b[2J"] * 999}, "does not tokenize like"),
    "a huge body": (b" " * 2_000_000, "sent more than"),
    "a refusal": (refusal(400, "\x1b[2J\u202e" * 999), "no rollout server"),
}


@pytest.mark.parametrize("name", TOKENIZED)
def test_whatever_a_server_makes_of_the_sample_is_one_printable_line(server, folder, policy, name):
    made, expected = TOKENIZED[name]
    server.tokenize = lambda request: made if isinstance(made, Answer) else as_json(made)
    assert expected in refusal_of(lambda: settings(server, folder).build(policy, BUDGET))


@pytest.mark.parametrize("size", ["4096", True, 0, -(10**3000), None, [1]])
def test_a_context_that_is_no_number_of_tokens_is_unknown(server, folder, policy, size):
    server.models = lambda: as_json({"data": [{"id": "base", "max_model_len": size}]})
    engine = settings(server, folder).build(policy, BUDGET)
    assert engine.generate(PROMPTS[:1], 1, FREE, seed=0).mask.any()


def test_a_context_that_is_too_short_is_refused_before_anything_is_drawn(base, folder, policy):
    longest = max(map(len, PROMPTS)) + FREE.max_new_tokens
    with RolloutServer(base, context=longest - 1) as server:
        engine = settings(server, folder).build(policy, BUDGET)
        line = refusal_of(lambda: engine.generate(PROMPTS, 1, FREE, seed=0))
        assert f"context is {longest - 1} tokens, but {longest} are needed" in line
        assert server.requests == []
    with RolloutServer(base, context=longest) as server:
        settings(server, folder).build(policy, BUDGET).generate(PROMPTS, 1, FREE, seed=0)


def test_whole_weights_cannot_be_served(server, folder, tiny_llama_folder):
    whole = make_policy(tiny_llama_folder, lora=None)
    assert "but not a whole model" in refusal_of(
        lambda: settings(server, folder).build(whole, BUDGET)
    )


def test_a_server_that_loads_no_adapters_is_told_how_to(engine, server, monkeypatch):
    monkeypatch.setattr(server, "load", lambda request: Answer(b'{"detail":"Not Found"}', 404))
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
        engine.generate(PROMPTS, 1, FREE, seed=0)


def test_an_adapter_that_the_server_cannot_see_is_an_error(engine, server, policy):
    load = server.load
    server.load = lambda request: load({**request, "lora_path": "/elsewhere"})
    with pytest.raises(EngineError, match="let the server read that folder"):
        engine.generate(PROMPTS, 1, FREE, seed=0)


def test_a_folder_that_cannot_be_written_is_a_mistake_in_the_set_up(server, tmp_path, policy):
    (tmp_path / "file").write_text("")
    engine = settings(server, tmp_path / "file").build(policy, BUDGET)
    line = refusal_of(lambda: engine.generate(PROMPTS, 1, FREE, seed=0))
    assert line.startswith("model.rollouts.adapter_folder: cannot be written")


def test_the_key_is_sent_and_never_shown(server, folder, policy, monkeypatch):
    monkeypatch.setenv("ROLLOUT_KEY", "sesame-1234")
    engine = settings(server, folder, api_key_env="ROLLOUT_KEY").build(policy, BUDGET)
    engine.generate(PROMPTS, 1, FREE, seed=0)
    assert server.headers[-1]["Authorization"] == "Bearer sesame-1234"
    server.script = lambda k, request: Answer(b"bad key sesame-1234", 401)
    with pytest.raises(EngineError, match=r"401: bad key \*\*\*"):
        engine.generate(PROMPTS, 1, FREE, seed=0)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"url": "127.0.0.1:8000"}, "url"),
        ({"url": "http://user:secret@host/v1"}, "url"),
        ({"url": "http://host/v1/completions"}, "url"),
        ({"model": " "}, "model"),
        ({"client": Client(concurrency=0)}, "client.concurrency"),
        ({"client": Client(timeout=0.0)}, "client.timeout"),
        ({"client": Client(timeout=float("inf"))}, "client.timeout"),
        ({"importance_cap": 0.5}, "importance_cap"),
        ({"importance_cap": float("nan")}, "importance_cap"),
        ({"tokens": 0}, "tokens"),
        ({"client": Client("NO_SUCH_VARIABLE")}, "client.api_key_env"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong, key):
    good = {"url": "http://127.0.0.1:1/v1", "model": "base", "adapter_folder": "adapters"}
    line = refusal_of(lambda: ServedRollouts(**{**good, **wrong}))
    assert line.startswith(f"model.rollouts.{key}: ")
    assert "secret" not in line


def test_both_kinds_can_be_chosen_in_a_config():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--rollouts", type=RolloutSettings, default=LocalRollouts())
    name = "lsp_lightning.generation.settings"
    served = {"url": "http://127.0.0.1:1/v1", "model": "base", "adapter_folder": "x"}
    one = {"timeout": 9.0}  # the other settings keep this class's defaults
    for given, expected in [
        ({"class_path": f"{name}.LocalRollouts", "init_args": {"tokens": 9}}, LocalRollouts(9)),
        ({"class_path": f"{name}.ServedRollouts", "init_args": served}, ServedRollouts(**served)),
        (
            {"class_path": f"{name}.ServedRollouts", "init_args": served | {"client": one}},
            ServedRollouts(**served, client=Client(timeout=9.0, concurrency=64)),
        ),
    ]:
        parsed = parser.parse_object({"rollouts": given})
        assert parser.instantiate_classes(parsed).rollouts == expected
    defaults = parser.instantiate_classes(parser.parse_args([])).rollouts
    assert defaults == LocalRollouts()
    flagged = parser.parse_args(["--rollouts.tokens", "9"])
    assert parser.instantiate_classes(flagged).rollouts == LocalRollouts(9)


# A real server of another kind.


@pytest.mark.slow
def test_transformers_serve_answers_and_is_refused_for_what_it_lacks(tmp_path, policy):
    for package in ("fastapi", "uvicorn", "openai"):
        if find_spec(package) is None:
            pytest.skip(f"transformers serve needs {package}, which is not installed")
    folder = resolve("pkg:lsp_lightning/tinyworld/base")
    with ExitStack() as stack:
        url = stack.enter_context(serve(folder, tmp_path / "log.txt"))
        client = ServerClient(url, Client(timeout=30.0), "model.rollouts", retries=0)
        text = "1+1="
        asked = {"model": str(folder), "prompt": text, "max_tokens": 4, "temperature": 0.0}
        body = client.ask(f"{url}/completions", asked)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
        reply = json.loads(body)
        assert reply["choices"][0]["text"] == tokenizer.decode(out, skip_special_tokens=True)
        # its answers have no token ids
        request = Request(
            url, reply["model"], ids[0].tolist(), 1, GREEDY, 0, [2], len(tokenizer), 0
        )
        with pytest.raises(BadReply, match="no token ids"):
            request.read(body)
        # it accepts only text, and cannot load an adapter while it runs
        with pytest.raises(EngineError, match="refuses a request"):
            client.ask(f"{url}/completions", request.payload())
        rollouts = ServedRollouts(url, str(folder), str(tmp_path / "adapters"))
        line = refusal_of(lambda: rollouts.build(policy, BUDGET))
        assert line.startswith("model.rollouts.")
