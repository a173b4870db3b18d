"""The arms of :mod:`benchmarks.laptop`: what each changes in the laptop preset."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PRESET = ROOT / "configs/laptop_smollm2_135m.yaml"
EXAMPLES = "pkg:lsp_lightning/data/instruction_examples.jsonl"
#: File in the folder of the runs, for the arm with fixed examples.
FOUR = "four_examples.jsonl"

_POOL = {"pool": {"share": 0.25, "size": 128}}
#: The pool that was tried first, with a gate that also asks for a form. That one refuses three of
#: four queries at first, so a pool without rest fills half of each round with the same few.
_STRICT_POOL = {
    "pool": {"share": 0.25, "size": 128, "rest": 0, "solve_rate": [0.15, 0.85]},
    "queries": {"init_args": {"examples_from_pool": True}},
}
_DOCUMENTS = {
    "documents": "pkg:lsp_lightning/data/passages.txt",
    "queries_per_passage": 2,
    "passage_words": 40,
}
_FOR_QUERIES = {f"lsp_lightning.{kind}Reward" for kind in ("Form", "Novelty", "Rarity")}
_PAPER = {"class_path": "lsp_lightning.Paper", "init_args": {"invalid_query": "lowest"}}


def arms() -> dict[str, dict[str, Any]]:
    """What each arm changes in the preset."""
    paid = preset()["model"]["rewards"]
    right = [reward for reward in paid if reward["class_path"] == "lsp_lightning.VerifiableReward"]
    for_answers = [reward for reward in paid if not _only_for_queries(reward)]
    examples = {"class_path": "lsp_lightning.PromptFile", "init_args": {"path": EXAMPLES}}
    return {
        "grpo": {"model": {"rewards": for_answers}, "data": {"queries": examples}},
        "zero": {"model": {"objective": _PAPER, "rewards": right}},  # R alone
        "paper": {"model": {"objective": _PAPER, "rewards": for_answers}},  # R and Q
        "recommended": {},
        "no-length": {"model": {"rewards": [r for r in paid if not _is_length(r)]}},
        "fixed": {"data": {"queries": {"init_args": {"examples": FOUR}}}},
        "gate": {"data": {"gate": _gate()}},
        "pool": {"data": _POOL},
        "gate and pool": {"data": {"gate": _gate(), **_POOL}},
        "strict gate and pool": {"data": {"gate": _gate(strict=True), **_STRICT_POOL}},
        "documents": {"data": {"queries": {"init_args": _DOCUMENTS}}},
    }


def _gate(*, strict: bool = False) -> dict[str, Any]:
    """What enters training; strict: only queries of the form that the preset pays for."""
    [form] = [r for r in preset()["model"]["rewards"] if r["class_path"].endswith("FormReward")]
    checks = [
        ("WellFormed", {"verifier": "lsp_lightning.InstructionVerifier"}),
        ("Novel", {"near": 0.9, "memory": 16}),
    ]
    if strict:
        checks.insert(1, ("Matches", {"pattern": form["init_args"]["pattern"]}))
    return {
        "redraws": 2,
        "solve_rate": [0.05, 0.95],
        "checks": [
            {"class_path": f"lsp_lightning.{name}", "init_args": settings}
            for name, settings in checks
        ],
    }


def _is_length(reward: dict[str, Any]) -> bool:
    return bool(reward["class_path"] == "lsp_lightning.LengthReward")


def _only_for_queries(reward: dict[str, Any]) -> bool:
    """Whether only the Challenger receives a reward, which sources without one refuse."""
    if _is_length(reward):
        return bool(reward["init_args"].get("enters", "challenger") == "challenger")
    return reward["class_path"] in _FOR_QUERIES


def preset() -> dict[str, Any]:
    """The preset's settings."""
    found: dict[str, Any] = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    return found
