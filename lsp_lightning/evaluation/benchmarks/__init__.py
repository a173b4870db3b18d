"""Benchmarks by name, for the policy and its reference: HumanEval and lm-evaluation-harness."""

from lsp_lightning.evaluation.benchmarks.base import Benchmark, Side
from lsp_lightning.evaluation.benchmarks.names import is_benchmark, load_benchmarks, run_benchmarks
from lsp_lightning.evaluation.benchmarks.results import (
    BenchmarkScore,
    Estimate,
    benchmark_evaluation,
)

__all__ = [
    "Benchmark",
    "BenchmarkScore",
    "Estimate",
    "Side",
    "benchmark_evaluation",
    "is_benchmark",
    "load_benchmarks",
    "run_benchmarks",
]
