"""Log-probs of continuations are those of the model's plain forward pass."""

import pytest
import torch
from small_game import make_policy, stir

from lsp_lightning.models.logits import continuation_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.prefix.sharing import PrefixSharing, set_sharing

#: Contexts of several lengths; two begin alike, and one continues another.
CONTEXTS = [[1, *range(20, 40)], [1, *range(20, 40)], [1, 50], [1, *range(20, 45)]]
CONTINUATIONS = [[60, 61], [62], [63, 64, 65, 66], [67]]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("most_tokens", [10, 10_000])
def test_each_continuation_has_the_log_prob_of_the_plain_model(
    tiny_llama_folder, shared, most_tokens
):
    policy = make_policy(tiny_llama_folder)
    stir(policy)
    model = policy.causal_lm
    sharing = model.prefix_sharing
    assert sharing.available
    if not shared:
        set_sharing(model, PrefixSharing(sharing.attention, "a test"))
    with inference_state(model, "cpu"):
        found = continuation_logprobs(model, CONTEXTS, CONTINUATIONS, 0, most_tokens)
        for context, continuation, (logprob, _) in zip(CONTEXTS, CONTINUATIONS, found, strict=True):
            logits = model(input_ids=torch.tensor([context + continuation])).logits[0].float()
            each = logits.log_softmax(-1)[len(context) - 1 : -1]
            expected = sum(float(row[i]) for row, i in zip(each, continuation, strict=True))
            assert logprob == pytest.approx(expected, abs=1e-4)


def test_greedy_is_true_only_for_the_likeliest_tokens(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder)
    context = CONTEXTS[0]
    with inference_state(policy.causal_lm, "cpu"):
        logits = policy.causal_lm(input_ids=torch.tensor([context])).logits[0, -1]
        best, worst = int(logits.argmax()), int(logits.argmin())
        found = continuation_logprobs(policy.causal_lm, [context] * 2, [[best], [worst]], 0, 10_000)
    assert [greedy for _, greedy in found] == [True, False]
