"""The engine in the process: what it samples, what it computes, what it leaves behind."""

from dataclasses import replace

import pytest
import torch
from sampled_rounds import PAD, as_round, forward_shapes, prompts_of
from small_game import make_policy, stir

from lsp_lightning.errors import OutOfMemory
from lsp_lightning.generation import LocalEngine
from lsp_lightning.generation.sampling import sample, truncate
from lsp_lightning.generation.splitting import split_rows
from lsp_lightning.prefix import cuda_graph as recording
from lsp_lightning.prefix.cuda_graph import GraphRecorder
from lsp_lightning.prefix.sharing import set_sharing, shares_prefixes
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.text.padding import pad_left
from lsp_lightning.training.batches import pack
from lsp_lightning.types import Sampling


@pytest.fixture(scope="module", params=["llama", "qwen3", "llama-rows"])
def policy(request):
    """A tiny policy whose adapter does something; as a tree, or each completion in its own row."""
    name, _, rows = request.param.partition("-")
    policy = make_policy(request.getfixturevalue(f"tiny_{name}_folder"))
    stir(policy, scale=0.5)
    assert policy.shares_prompts
    if rows:
        in_rows(policy.causal_lm)
    return policy


@pytest.fixture(scope="module")
def model(policy):
    return policy.causal_lm


def vocabulary(model):
    return model.config.vocab_size


def many_stops(model):
    """A sixth of the vocabulary: most completions end early."""
    return list(range(5, vocabulary(model), 6))


def in_rows(model):
    """Have a model compute every row by itself, as if its architecture could not share prompts."""
    set_sharing(model, replace(model.prefix_sharing, unavailable="of this test"))
    assert model.config._attn_implementation == "sdpa"
    assert not shares_prefixes(model)


@pytest.mark.parametrize("stops", ["rare", "many"])
def test_greedy_rollouts_are_those_of_generate(model, stops):
    prompts = prompts_of([3, 11, 1, 7], vocabulary(model))
    stop_ids = [5] if stops == "rare" else many_stops(model)
    drawn = LocalEngine(model, stop_ids, PAD).generate(
        prompts, 1, Sampling(temperature=0.0, max_new_tokens=12), seed=0
    )
    ids, mask = pad_left(prompts, PAD)
    model.eval()
    expected = model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=stop_ids,
        pad_token_id=PAD,
    )[:, ids.shape[1] :]
    assert drawn.ids.shape == expected.shape
    assert torch.equal(drawn.ids, expected)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_sampled_logprobs_are_those_the_trainer_computes_again(policy, temperature):
    prompts = prompts_of([4, 13, 1, 8, 2], vocabulary(policy.causal_lm), seed=1)
    draws = 6
    sampling = Sampling(temperature=temperature, max_new_tokens=20)
    engine = LocalEngine(policy.causal_lm, many_stops(policy.causal_lm), PAD)
    drawn = []
    shapes = forward_shapes(
        policy.causal_lm, lambda: drawn.append(engine.generate(prompts, draws, sampling, seed=3))
    )
    completions = drawn[0]
    rows = [shape[0] for shape in shapes[1:]]
    assert rows[-1] < rows[0] <= len(prompts) * draws, "no row left the batch: nothing was tested"
    played = as_round(prompts, draws, completions, temperature)
    for batch in pack(played, PAD, token_budget=200):
        logprobs, _ = policy.completion_logprobs(batch)
        for c, row in enumerate(batch.rows.tolist()):
            sampled = completions.logprobs[row][completions.mask[row]]
            torch.testing.assert_close(logprobs[c][batch.mask[c]], sampled, atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_rows", [512, 8])
def test_a_prompt_is_computed_once_for_all_its_draws(model, max_rows):
    lengths = [3, 9, 1, 6, 5]
    prompts = prompts_of(lengths, vocabulary(model))
    engine = LocalEngine(model, [], PAD, max_rows=max_rows)
    shapes = forward_shapes(
        model, lambda: engine.generate(prompts, 4, Sampling(max_new_tokens=5), seed=0)
    )
    parts = [lengths] if max_rows == 512 else [lengths[:2], lengths[2:4], lengths[4:]]
    for part in parts:
        prefill, *decoding = shapes[:5]
        # one row that holds each of its tokens once, or a row for each padded to the longest
        assert prefill == ((1, sum(part)) if shares_prefixes(model) else (len(part), max(part)))
        assert decoding == [(4 * len(part), 1)] * 4
        shapes = shapes[5:]
    assert not shapes


def test_what_prompts_begin_with_alike_is_computed_once(model):
    if not shares_prefixes(model):
        pytest.skip("in rows each prompt is for itself")
    first, *others = prompts_of([40, 3, 5, 1], vocabulary(model))
    prompts = [[*first, *other] for other in others]
    shapes = forward_shapes(
        model, lambda: LocalEngine(model, [], PAD).generate(prompts, 2, GREEDY, seed=0)
    )
    assert shapes[0] == (1, 40 + 3 + 5 + 1)


LENGTHS = [3, 9, 1, 6, 5]
LONGEST = 9 + 5  # of a prompt and its completion
GREEDY = Sampling(temperature=0.0, max_new_tokens=5)
FREE = Sampling(max_new_tokens=5)


def within(tokens):
    return TokenBudget("model.rollouts.tokens", tokens)


@pytest.mark.parametrize(
    ("tokens", "of_tree", "of_rows"),
    [
        # a prompt and its draws take 9 + 4 * 5 = 29 as a tree, 4 * (9 + 5) = 56 in rows
        (10**6, [20], [20]),
        (5 * 56, [20], [20]),
        (5 * 56 - 1, [20], [16, 4]),
        (5 * 29, [20], [8, 8, 4]),
        (5 * 29 - 1, [16, 4], [8, 8, 4]),
        (29, [4] * 5, [2, 2] * 5),
        (28, [3, 1] * 5, [2, 2] * 5),
        (14, [1] * 20, [1] * 20),
        (7, [1] * 20, [1] * 20),  # less than one row, which cannot be parted
    ],
)
def test_what_is_decoded_at_once_stays_within_the_budget(model, tokens, of_tree, of_rows):
    prompts = prompts_of(LENGTHS, vocabulary(model))
    expected = LocalEngine(model, [], PAD).generate(prompts, 4, FREE, seed=0)
    engine = LocalEngine(model, [], PAD, budget=within(tokens))
    drawn = []
    shapes = forward_shapes(model, lambda: drawn.append(engine.generate(prompts, 4, FREE, seed=0)))
    # four new tokens are computed after each prefill, the fifth is only drawn
    assert [rows for rows, _ in shapes[1::5]] == (of_tree if shares_prefixes(model) else of_rows)
    # every completion is there, in its place, and the same
    assert torch.equal(drawn[0].ids, expected.ids)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("tokens", [None, 1, 80, 170, 300, 1000, 10_000])
@pytest.mark.parametrize(("prompts", "draws"), [(1, 1), (1, 9), (6, 4), (700, 1), (2, 600)])
def test_each_row_is_in_one_part_and_parts_are_as_large_as_may_be(prompts, draws, tokens, shared):
    parts = split_rows(
        prompts=prompts,
        draws=draws,
        prompt_tokens=90,
        new_tokens=10,
        max_rows=512,
        max_tokens=tokens,
        shared=shared,
    )
    assert [row for part in parts for row in part] == list(range(prompts * draws))
    assert len(parts[0]) == max(map(len, parts))

    def fits(rows):
        held = -(-rows // draws) * 90 + rows * 10 if shared else rows * 100
        return tokens is None or held <= tokens

    largest = len(parts[0])
    assert largest == 1 or fits(largest)
    assert largest <= max(512, draws)
    whole = largest % draws == 0
    more = largest + (draws if whole else 1)
    assert len(parts) == 1 or not fits(more) or more > max(512, draws)


@pytest.mark.parametrize(("max_rows", "draws"), [(512, 4), (8, 4), (3, 4)])
def test_a_budget_that_does_not_bind_changes_nothing(model, max_rows, draws):
    prompts = prompts_of(LENGTHS, vocabulary(model))
    call = (prompts, draws, Sampling(max_new_tokens=9), 5)
    stop_ids = many_stops(model)
    plain = LocalEngine(model, stop_ids, PAD, max_rows).generate(*call)
    bound = LocalEngine(model, stop_ids, PAD, max_rows, within(10**6)).generate(*call)
    for name in ("ids", "mask", "logprobs", "truncated"):
        assert torch.equal(getattr(plain, name), getattr(bound, name))


@pytest.fixture
def small_memory(model):
    """A function that makes the model refuse more rows than these, as an allocator does."""
    handles = []

    def shrink(rows, error):
        def refuse(module, args, kwargs):
            if len(kwargs["input_ids"]) > rows:
                raise error

        handles.append(model.register_forward_pre_hook(refuse, with_kwargs=True))

    yield shrink
    for handle in handles:
        handle.remove()


REFUSALS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(REFUSALS[0], marks=pytest.mark.slow, id="gpu"),
        pytest.param(REFUSALS[1], id="cpu"),
    ],
)
def test_a_call_that_runs_out_of_memory_is_drawn_again_in_smaller_parts(
    model, small_memory, error, capsys
):
    prompts = prompts_of(LENGTHS, vocabulary(model))
    greedy = LocalEngine(model, [], PAD).generate(prompts, 4, GREEDY, seed=0)
    small_memory(3, error)
    budget = within(24 * LONGEST)
    engine = LocalEngine(model, [], PAD, budget=budget)
    drawn = engine.generate(prompts, 4, GREEDY, seed=0)
    # 24, 12, 6, 3 rows; as a tree four of them take no more than three in rows of their own
    assert budget.tokens == (21 if shares_prefixes(model) else 3 * LONGEST)
    assert "out of memory at model.rollouts.tokens" in capsys.readouterr().out
    assert torch.equal(drawn.ids, greedy.ids)
    torch.testing.assert_close(drawn.logprobs, greedy.logprobs, atol=1e-4, rtol=0)
    # what was drawn before memory ran out does not matter
    budget.tokens = 24 * LONGEST
    sampled = engine.generate(prompts, 4, FREE, seed=7)
    again = LocalEngine(model, [], PAD, budget=within(3 * LONGEST))
    assert torch.equal(sampled.ids, again.generate(prompts, 4, FREE, seed=7).ids)


def test_a_row_that_does_not_fit_alone_is_an_error_that_names_the_key(model, small_memory):
    small_memory(0, REFUSALS[0])
    model.train()
    engine = LocalEngine(model, [], PAD, budget=within(4 * LONGEST))
    with pytest.raises(OutOfMemory, match=f"rollouts.tokens: a single row of {LONGEST} tokens"):
        engine.generate(prompts_of(LENGTHS, vocabulary(model)), 2, FREE, seed=0)
    assert model.training


def test_other_errors_are_not_taken_for_lack_of_memory(model, small_memory):
    small_memory(0, RuntimeError("shapes do not match"))
    budget = within(4 * LONGEST)
    with pytest.raises(RuntimeError, match="shapes"):
        LocalEngine(model, [], PAD, budget=budget).generate([[1]], 2, FREE, seed=0)
    assert budget.tokens == 4 * LONGEST


def test_positions_count_from_the_first_token_of_each_prompt(model):
    """Rotary models forgive a shift of all positions; others would not."""
    lengths, seen = [3, 9, 1], []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(
            (kwargs["position_ids"], kwargs["attention_mask"])
        ),
        with_kwargs=True,
    )
    try:
        LocalEngine(model, [], PAD).generate(
            prompts_of(lengths, vocabulary(model)), 2, Sampling(max_new_tokens=4), seed=0
        )
    finally:
        handle.remove()
    (prefill, mask), *steps = seen
    if shares_prefixes(model):
        found = sorted(prefill[0].tolist())
        assert found == sorted(place for length in lengths for place in range(length))
    else:
        for positions, kept, length in zip(prefill, mask.bool(), lengths, strict=True):
            assert positions[kept].tolist() == list(range(length))
    for step, (positions, _) in enumerate(steps):
        assert positions[:, 0].tolist() == [n + step for n in lengths for _ in range(2)]


def test_each_completion_is_told_once_as_soon_as_it_has_ended(model):
    told, steps = {}, []
    handle = model.register_forward_pre_hook(lambda module, args: steps.append(len(told)))
    prompts, stop_ids = prompts_of([3, 9, 4], vocabulary(model)), many_stops(model)

    def finished(row, tokens):
        assert row not in told
        told[row] = tokens

    try:
        drawn = LocalEngine(model, stop_ids, PAD, max_rows=8).generate(
            prompts, 4, Sampling(max_new_tokens=12), 2, finished
        )
    finally:
        handle.remove()
    assert told == {i: drawn.ids[i][drawn.mask[i]].tolist() for i in range(12)}
    # some were known while others had tokens to come
    assert len({count for count in steps if 0 < count < 12}) > 2
    assert drawn.truncated.any()


def recorder_that(result):
    recorder = GraphRecorder()

    def graph(step, ids, positions):
        if isinstance(result, Exception):
            raise result
        return lambda ids, positions: step(ids, positions) + result

    return recorder, graph


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (0.0, None),
        (1.0, "logits differ"),
        (RuntimeError("operation not permitted when stream is capturing\nmore"), "not permitted"),
    ],
)
def test_a_recording_that_fails_or_differs_is_given_up_with_one_line(monkeypatch, result, said):
    recorder, graph = recorder_that(result)
    monkeypatch.setattr(recording, "_Graph", graph)
    ids = torch.zeros(2, 1, dtype=torch.long)

    def step(ids, positions):
        return torch.arange(6.0).view(2, 3)

    if said is None:
        assert recorder(step, ids, ids) is not step
        return
    with pytest.warns(UserWarning, match=said) as warned:
        assert recorder(step, ids, ids) is step
    assert recorder(step, ids, ids) is step  # not tried again, and nothing more is said
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)


def test_memory_that_runs_out_while_recording_is_for_the_budget(monkeypatch):
    recorder, graph = recorder_that(REFUSALS[0])
    monkeypatch.setattr(recording, "_Graph", graph)
    with pytest.raises(torch.OutOfMemoryError):
        recorder(lambda *_: None, torch.zeros(1, 1), torch.zeros(1, 1))


def test_what_is_drawn_depends_on_no_row_beside_it(model):
    """However the rows are parted; and a row's numbers are its own."""
    prompts, stop_ids = prompts_of([3, 9, 4], vocabulary(model)), many_stops(model)
    sampling = Sampling(max_new_tokens=12)
    drawn = [
        LocalEngine(model, stop_ids, PAD, max_rows).generate(prompts, 4, sampling, seed=2)
        for max_rows in (512, 8, 4)
    ]
    assert torch.equal(drawn[0].ids, drawn[1].ids)
    assert torch.equal(drawn[0].ids, drawn[2].ids)


def test_numbers_at_the_edges_fall_into_tokens_that_have_a_share():
    logits = torch.tensor([[-torch.inf, 1.0, 1.0, -torch.inf]]).expand(4, -1)
    almost_one = 1 - 2**-24
    uniforms = torch.tensor([0.0, 0.499, 0.501, almost_one])
    tokens, logprobs = sample(logits, Sampling(), uniforms)
    assert tokens.tolist() == [1, 1, 2, 2]
    torch.testing.assert_close(logprobs, torch.full((4,), 0.5).log())
    # rounding may lift a number to the total: it is still the last token with a share
    assert sample(logits, Sampling(), torch.ones(4))[0].tolist() == [2] * 4


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_numbers_beside_the_edges_of_blocks_fall_into_tokens_that_have_a_share(top_p):
    """Sums round: a number just above one block's end may be just below the next one's begin."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = 3 * torch.randn(1, 1000, generator=generator)
        logits[:, ::2] = -torch.inf
        shares = truncate(logits.log_softmax(-1), top_p, 0).exp()
        ends = torch.nn.functional.pad(shares, (0, 24)).view(32, 32).sum(1).cumsum(0)
        grid = ((ends / ends[-1])[:, None] * 2**24).round() + torch.arange(-3, 4)
        uniforms = grid.flatten().clamp(0, 2**24 - 1) / 2**24
        tokens, _ = sample(logits.expand(len(uniforms), -1), Sampling(top_p=top_p), uniforms)
        assert (shares[0, tokens] > 0).all()


def test_logits_that_are_no_numbers_give_a_token_and_a_logprob_that_says_so():
    """The round is then skipped for its gradient: a run does not end here."""
    tokens, logprobs = sample(torch.full((2, 5), torch.nan), Sampling(), torch.tensor([0.2, 0.9]))
    assert ((tokens >= 0) & (tokens < 5)).all()
    assert logprobs.isnan().all()


def test_same_seed_same_tokens_other_seed_other_tokens(model):
    prompts = prompts_of([3, 9], vocabulary(model))
    engine = LocalEngine(model, [5], PAD)
    sampling = Sampling(max_new_tokens=16)
    first, again, other = (engine.generate(prompts, 4, sampling, seed) for seed in (7, 7, 8))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.logprobs, again.logprobs)
    assert first.ids.tolist() != other.ids.tolist()


def test_with_a_seed_for_each_prompt_nothing_else_of_the_call_changes_a_draw(model):
    prompts = prompts_of([3, 11, 1, 7], vocabulary(model))
    seeds, sampling = [40, 41, 42, 43], Sampling(max_new_tokens=8)

    def drawn(chosen, draws=2, **kwargs):
        engine = LocalEngine(model, [5], PAD, **kwargs)
        found = engine.generate(
            [prompts[i] for i in chosen], draws, sampling, [seeds[i] for i in chosen]
        )
        rows = [row[keep].tolist() for row, keep in zip(found.ids, found.mask, strict=True)]
        return {i: rows[at * draws : (at + 1) * draws] for at, i in enumerate(chosen)}

    whole = drawn([0, 1, 2, 3])
    assert len({tuple(row) for rows in whole.values() for row in rows}) == 8
    assert drawn([3, 1]) == {3: whole[3], 1: whole[1]}
    assert drawn([0, 1, 2, 3], max_rows=2) == whole
    # one row at a time: the completions of a prompt are split too
    assert drawn([0, 1, 2, 3], budget=TokenBudget("key", 20)) == whole
    more = drawn([2, 0], draws=3)
    assert {i: rows[:2] for i, rows in more.items()} == {2: whole[2], 0: whole[0]}


def test_sampling_leaves_the_global_generator_alone(model):
    state = torch.get_rng_state()
    LocalEngine(model, [5], PAD).generate([[1, 2]], 4, Sampling(max_new_tokens=8), seed=0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("max_rows", [512, 4])
def test_the_mask_ends_with_the_stop_token_and_truncated_rows_have_none(model, max_rows):
    prompts = prompts_of([3, 9, 4, 6], vocabulary(model))
    stop_ids = list(range(5, vocabulary(model), 12))
    drawn = LocalEngine(model, stop_ids, PAD, max_rows).generate(
        prompts, 4, Sampling(max_new_tokens=10), seed=2
    )
    is_stop = torch.isin(drawn.ids, torch.tensor(stop_ids)) & drawn.mask
    for row, (ids, mask) in enumerate(zip(drawn.ids, drawn.mask, strict=True)):
        length = int(mask.sum())
        assert length > 0
        assert mask.tolist() == [True] * length + [False] * (len(mask) - length)
        assert not is_stop[row, : length - 1].any()
        assert bool(drawn.truncated[row]) == (not bool(is_stop[row, length - 1]))
        assert bool(drawn.truncated[row]) <= (length == 10)
        assert (ids[length:] == PAD).all()
        assert (drawn.logprobs[row, length:] == 0).all()
    assert drawn.truncated.any(), "no row was cut off: nothing was tested"
    assert not drawn.truncated.all()


def test_the_second_of_two_stop_tokens_ends_a_completion_too(model):
    everything = list(range(vocabulary(model)))
    drawn = LocalEngine(model, everything, PAD).generate(
        [[1, 2, 3]], 5, Sampling(max_new_tokens=10), seed=0
    )
    assert drawn.ids.shape == (5, 1)
    assert not drawn.truncated.any()


def first_token_probabilities(model, prompt, temperature=1.0):
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return (logits / temperature).softmax(-1)


def test_first_tokens_come_as_often_as_the_softmax_says(model):
    prompt, draws = [3, 4, 5, 6], 20_000
    for temperature in (0.7, 1.3):
        sampling = Sampling(temperature=temperature, max_new_tokens=1)
        drawn = LocalEngine(model, [5], PAD).generate([prompt], draws, sampling, seed=11)
        counts = torch.bincount(drawn.ids[:, 0], minlength=vocabulary(model)).double()
        expected = first_token_probabilities(model, prompt, temperature).double() * draws
        often = expected >= 5
        rest = torch.tensor([counts[~often].sum(), expected[~often].sum()])
        chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
        chi2 += (rest[0] - rest[1]) ** 2 / rest[1].clamp_min(1)
        freedom = int(often.sum())
        # mean f, variance 2f: five standard deviations
        assert chi2 < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("top_p", "top_k"), [(1.0, 3), (0.4, 0), (0.5, 4), (1e-6, 0)], ids=["k", "p", "both", "one"]
)
def test_top_k_and_top_p_restrict_to_the_allowed_set_and_keep_full_logprobs(model, top_p, top_k):
    prompt = [3, 4, 5, 6]
    probabilities = first_token_probabilities(model, prompt)
    allowed = allowed_tokens(probabilities.tolist(), top_p, top_k)
    assert len(allowed) < vocabulary(model)
    sampling = Sampling(max_new_tokens=1, top_p=top_p, top_k=top_k)
    drawn = LocalEngine(model, [5], PAD).generate([prompt], 4000, sampling, seed=1)
    assert set(drawn.ids[:, 0].tolist()) == allowed
    torch.testing.assert_close(
        drawn.logprobs[:, 0], probabilities.log()[drawn.ids[:, 0]], atol=1e-4, rtol=0
    )


def allowed_tokens(probabilities, top_p, top_k):
    """Written out: the k likeliest, then of those, renormalised, the fewest that reach top_p."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    order = order[:top_k] if top_k else order
    total = sum(probabilities[i] for i in order)
    chosen, reached = set(), 0.0
    for i in order:
        if reached >= top_p:
            break
        chosen.add(i)
        reached += probabilities[i] / total
    return chosen


def test_truncation_by_hand():
    logprobs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()

    def kept(top_p, top_k):
        return truncate(logprobs, top_p, top_k).isfinite()[0].tolist()

    assert kept(1.0, 0) == [True] * 4
    assert kept(1.0, 9) == [True] * 4
    assert kept(1.0, 2) == [True, True, False, False]
    assert kept(0.6, 0) == [True, True, False, False]  # the token that crosses 0.6 stays
    assert kept(0.45, 0) == [True, False, False, False]
    # of the two likeliest the first has .5 / .8 = .625 of what is left
    assert kept(0.6, 2) == [True, False, False, False]


def test_greedy_logprobs_are_those_at_temperature_one():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    tokens, logprobs = sample(logits, Sampling(temperature=0.0), torch.zeros(1))
    assert tokens.tolist() == [1]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[:, 1])


@pytest.mark.parametrize("training", [True, False])
def test_mode_gradients_and_precision_are_as_they_were(model, training):
    engine = LocalEngine(model, [5], PAD)
    sampling = Sampling(max_new_tokens=6)
    expected = engine.generate([[1, 2, 3]], 3, sampling, seed=0)
    model.train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn = engine.generate([[1, 2, 3]], 3, sampling, seed=0)
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert all(module.training is training for module in model.modules())
    # and neither autocast nor train mode was on while it sampled
    assert torch.equal(drawn.ids, expected.ids)
    assert torch.equal(drawn.logprobs, expected.logprobs)
    assert not drawn.logprobs.requires_grad


def test_mode_comes_back_when_sampling_fails(model):
    model.train()
    engine = LocalEngine(model, [5], PAD)
    with pytest.raises(IndexError):
        engine.generate([[10**6]], 2, Sampling(max_new_tokens=2), seed=0)
    assert model.training
    assert torch.is_grad_enabled()


def test_weights_are_bit_equal_after_sampling(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    LocalEngine(model, [5], PAD).generate([[1, 2, 3]], 3, Sampling(max_new_tokens=6), seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
