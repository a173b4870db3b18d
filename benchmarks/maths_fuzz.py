"""Check 10,000 generated answers with the maths verifier and count its verdicts and mistakes.

python -m benchmarks.maths_fuzz [--answers 10000]

It shows that no answer hangs the verifier or raises an exception, and that no wrong one is paid.
"""

import argparse
import time
from collections import Counter

from benchmarks.maths_answers import graded_answers
from lsp_lightning import MathVerifier
from lsp_lightning.rewards import Group


def main() -> None:
    """Check all answers and count the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="time limit of a comparison")
    args = parser.parse_args()
    verifier = MathVerifier(seconds=args.seconds)
    pairs = graded_answers(args.answers, seed=0, others=0.5)
    start = time.perf_counter()
    verdicts: list[float] = []
    for first in range(0, len(pairs), 100):
        groups = [Group("", (text,), gold) for gold, text, _ in pairs[first : first + 100]]
        verdicts += [verdict.scores[0] for verdict in verifier.judge(groups)]
        print(f"\r{len(verdicts)}/{len(pairs)}", end="", flush=True)
    seconds = time.perf_counter() - start
    names = {"1.0": "right", "0.0": "wrong", "nan": "undecided"}
    counts = Counter(names[str(verdict)] for verdict in verdicts)
    print(f"\r{len(verdicts)} answers in {seconds:.1f} s: {dict(counts)}")
    judged = list(zip(pairs, verdicts, strict=True))
    paid = [pair for pair, verdict in judged if pair[2] is False and verdict == 1]
    missed = [pair for pair, verdict in judged if pair[2] is True and verdict != 1]
    print(f"{len(paid)} wrong ones paid {paid[:5]}, {len(missed)} right ones missed {missed[:5]}")


if __name__ == "__main__":
    main()
