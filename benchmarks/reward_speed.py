"""Speed of rewards on this machine: checks and pairs per second, and both readings of SelfReward.

python -m benchmarks.reward_speed [--seconds 5]

Each figure is for whole calls, with their processes, after a first call to warm up.
"""

import argparse
import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torchmetrics.functional import spearman_corrcoef

from benchmarks.maths_answers import answers
from lsp_lightning import (
    Challenger,
    CodeVerifier,
    FrozenPlayer,
    InstructionVerifier,
    MathVerifier,
    Player,
    Policy,
    PreferenceReward,
    ProgramOutputVerifier,
    Sampling,
    SelfReward,
)
from lsp_lightning.rewards import Group, Verifier
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.sandbox import BubblewrapSandbox, MontySandbox, Sandbox
from lsp_lightning.tinyworld.programs import make_program
from lsp_lightning.types import Playout

WORLD = "pkg:lsp_lightning/tinyworld"
FUNCTION = "def f(x):\n    return sorted(x, key=lambda v: -v)[:{k}]"
CODE_TESTS = {"tests": [f"assert f([3, 1, 2, {i}]) == [{max(3, i)}, {i and 3}]" for i in range(5)]}
CONSTRAINED = (
    'Describe a harbour.\n\nConstraints:\n- at most 60 words\n- include the word "boat"\n'
    "- at least 3 sentences\n- no digits"
)


def main() -> None:
    """Measure all rewards, print the figures and write benchmarks/reward_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="approximate time per figure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = {**verifiers(args.seconds), **preference(args.seconds), **readings()}
    for name, value in figures.items():
        print(f"{name:<58}{value:10.2f}")
    Path("benchmarks/reward_speed.json").write_text(json.dumps(figures, indent=2) + "\n")


def verifiers(seconds: float) -> dict[str, float]:
    """Answers checked per second by each verifier, with its default number of processes."""
    sandboxes: dict[str, Sandbox] = {"Monty": MontySandbox()}
    if shutil.which("bwrap"):
        sandboxes["bubblewrap"] = BubblewrapSandbox()
    rng = random.Random(0)
    maths = [Group("", (text,), gold) for gold, text in answers(4000, seed=0, monsters=0)]
    code = [Group("", (FUNCTION.format(k=rng.randint(1, 3)),), CODE_TESTS) for _ in range(4000)]
    programs = [Group(make_program(3, rng), ("3",)) for _ in range(4000)]
    sentences = ["The boat lay in the harbour.", "It was small and old.", "Nobody came there."]
    texts = [" ".join(rng.choices(sentences, k=10)) for _ in range(4000)]
    figures = {
        "maths against a solution": speed(MathVerifier(), maths, seconds),
        "instruction constraints (4 of them)": speed(
            InstructionVerifier(), [Group(CONSTRAINED, (text,)) for text in texts], seconds
        ),
    }
    for name, sandbox in sandboxes.items():
        figures[f"code, 5 tests, {name}"] = speed(CodeVerifier(sandbox), code, seconds)
        output = ProgramOutputVerifier(sandbox)
        figures[f"program output, run in 5 worlds, {name}"] = speed(output, programs, seconds)
    return {f"checks/s: {name}": value for name, value in figures.items()}


def speed(verifier: Verifier, groups: Sequence[Group], seconds: float) -> float:
    """Groups of one answer checked per second; all groups differ."""
    verifier.judge(groups[:8])
    done, start = 8, time.perf_counter()
    while done < len(groups) and time.perf_counter() - start < seconds:
        verifier.judge(groups[done : done + 64])
        done = min(done + 64, len(groups))
    return (done - 8) / (time.perf_counter() - start)


def preference(seconds: float) -> dict[str, float]:
    """Pairs per second of the tiny reward model, one at a time and 64 at once."""
    policy = Policy(f"{WORLD}/base")
    played = a_round(policy)
    longest = 64  # tokens; no pair is longer
    figures = {}
    for batch in (1, 64):
        reward = PreferenceReward(f"{WORLD}/reward_model")
        budget = TokenBudget("pairs at once", 1 if batch == 1 else batch * longest)
        reward.connect(FrozenPlayer(policy, passes=budget))
        taken = median_seconds(partial(reward.score, played), seconds)
        figures[f"pairs/s: tiny reward model, batch {batch}"] = len(played.answers) / taken
    return figures


def readings() -> dict[str, float]:
    """The self-reward's two readings of one round: time, and their rank correlation."""
    policy = Policy(f"{WORLD}/base")
    played = a_round(policy)
    prompt = f"{WORLD}/prompts/judge.txt"
    expected = SelfReward(prompt=prompt)
    sampled = SelfReward(
        prompt=prompt,
        reading="sampled",
        sampling=Sampling(max_new_tokens=40),
    )
    for reward in (expected, sampled):
        reward.connect(FrozenPlayer(policy))
    times = [median_seconds(partial(r.score, played), 4.0) for r in (sampled, expected)]
    scores = [reward.score(played).scores.flatten() for reward in (sampled, expected)]
    known = ~scores[0].isnan()
    return {
        "self-reward: time, sampled over expected": times[0] / times[1],
        "self-reward: rank correlation of the two": float(
            spearman_corrcoef(scores[0][known], scores[1][known])
        ),
        "self-reward: share of sampled replies that were read": float(known.float().mean()),
    }


def a_round(policy: Policy) -> Playout:
    """16 queries of the tiny Challenger, with 8 answers each."""
    player = Player.local(policy)
    source = Challenger(
        prompt=f"{WORLD}/prompts/challenger.txt", sampling=Sampling(max_new_tokens=28)
    )
    drawn = source.draw(player, 16, 0, seed=0)
    prompts = [player.codec.encode("{query}", {"query": text}) for text in drawn.texts]
    replies = player.respond(prompts, 8, Sampling(max_new_tokens=8), seed=0)
    return Playout(drawn.texts, replies, 8, drawn.written)


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Median time of a call; calls are repeated for ``seconds``."""
    call()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    main()
