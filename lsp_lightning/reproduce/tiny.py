"""The arms of the tiny world."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lsp_lightning.reproduce.arms import (
    CONTINUED,
    Arm,
    Costs,
    Stage,
    World,
    preset_config,
    two_stages,
)

#: The preset that we recommend.
RECOMMENDED = "tiny_lsp"
_PAPER = "tiny_lsp_paper"

_GRPO = Stage("grpo", "tiny_grpo")
_FEW_QUERIES = "pkg:lsp_lightning/reproduce/few_queries.jsonl"
_FEW = Stage("few", "tiny_grpo", {"data": {"queries": {"init_args": {"path": _FEW_QUERIES}}}})
_LSP = Stage("lsp", RECOMMENDED)
_PAPERS = Stage("paper", _PAPER)


def _rewards(of: str, change: Mapping[str, Any]) -> dict[str, Any]:
    """Rewards of a preset with changed settings of the SelfReward."""
    verifier, judge = preset_config(of)["model"]["rewards"]
    init_args = {**judge["init_args"], **change}
    return {"model": {"rewards": [verifier, {**judge, "init_args": init_args}]}}


def _random(of: str, quality: bool) -> dict[str, Any]:
    """R is a coin; the verifier has weight 0 and only logs the true score."""
    verifier, judge = preset_config(of)["model"]["rewards"]
    coin = {
        "class_path": "lsp_lightning.FunctionReward",
        "init_args": {
            "function": "lsp_lightning.reproduce.controls.coin",
            "span": [0.0, 1.0],
            "binary": True,
        },
    }
    true = {**verifier, "init_args": {**verifier["init_args"], "weight": 0.0}}
    rewards = [coin, true, *([judge] if quality else [])]
    # a gate would choose queries by the verifier
    data = {"gate": None, "pool": None, "heldout_reward": "verifiable"}
    return {"model": {"rewards": rewards}, "data": data}


def _base(temperature: float) -> Arm:
    name, label = f"base-{temperature:g}", f"base, temperature {temperature:g}"
    about = "control: what a lower temperature gives without training"
    return Arm(name, label, about, temperature=temperature)


_MAIN = (
    Arm("base", "base", "the model before training"),
    *map(_base, (0.7, 0.5, 0.3)),
    Arm(
        "random",
        "random rewards",
        "control: neither Q nor gate and pool, and R is a coin",
        (Stage("random", RECOMMENDED, _random(RECOMMENDED, quality=False)),),
    ),
    Arm("grpo", "GRPO with data", "queries from a file of 8,192", (_GRPO,)),
    Arm("few", "GRPO on 48 queries", "data that runs out: 48 fixed, mostly easy queries", (_FEW,)),
    Arm("zero", "LSP-Zero", "the zero-sum game: no Q", (Stage("zero", "tiny_lsp_zero"),)),
    Arm("paper", "LSP, paper's form", "the Challenger is paid -V + VQ", (_PAPERS,)),
    Arm("lsp", "LSP, recommended", "our recommended preset", (_LSP,)),
    two_stages(
        _GRPO, _PAPERS, "GRPO, then LSP (paper)", "LSP improves what data have taught?", "grpo-grpo"
    ),
    two_stages(
        _GRPO,
        _LSP,
        "GRPO, then LSP (recommended)",
        "LSP improves what data have taught?",
        "grpo-grpo",
    ),
    two_stages(_GRPO, _GRPO, "GRPO, then GRPO", CONTINUED),
    two_stages(_PAPERS, _GRPO, "LSP (paper), then GRPO", "LSP as a start for RL?", "grpo-grpo"),
    two_stages(_LSP, _GRPO, "LSP (recommended), then GRPO", "LSP as a start for RL?", "lsp-lsp"),
    two_stages(_LSP, _LSP, "LSP, then LSP (recommended)", CONTINUED),
    two_stages(
        _FEW, _LSP, "48 queries, then LSP (recommended)", "LSP when data run out?", "few-few"
    ),
    two_stages(_FEW, _FEW, "48 queries, then the same", CONTINUED),
)


#: A setting that an ablation changes: name, label, what it shows, what changes.
_Change = tuple[str, str, str, Mapping[str, Any]]


def _ablations(of: str, preset: str, changes: Iterable[_Change]) -> Iterator[Arm]:
    """Arms that each differ from another one in one setting."""
    for name, label, about, change in changes:
        yield Arm(name, label, about, (Stage(name, preset, change),), changes=of)


def _of_paper() -> Iterator[_Change]:
    weight = preset_config(_PAPER)["model"]["rewards"][1]["init_args"]["weight"]
    for name, factor in (("half", 0.5), ("double", 2.0)):
        change = _rewards(_PAPER, {"weight": weight * factor})
        yield f"q-{name}", f"Q at {name} its weight", "how much Q is needed", change
    sampled = {"reading": "sampled", "sampling": {"max_new_tokens": 40}}
    about = "the paper's way to read Q"
    yield "q-sampled", "Q sampled, not expected", about, _rewards(_PAPER, sampled)
    for alpha, about in (
        (0.0, "the Challenger is frozen"),
        (0.5, "a faster Challenger"),
        (1.0, "the two losses added, as in version 1 of the paper"),
    ):
        yield f"alpha-{alpha:g}", f"alpha_ch {alpha:g}", about, _model("alpha_ch", alpha)
    for form, about in (
        ("k1_loss", "the KL term as printed; its expected gradient is 0"),
        ("k2_loss", "half the squared log-ratio"),
        ("k3_loss", "the other direction, token by token"),
    ):
        yield f"kl-{form[:2]}", f"KL as {form}", about, _model("kl", form)


def _of_recommended() -> Iterator[_Change]:
    shared = preset_config(RECOMMENDED)["model"]["objective"]["init_args"]
    for name, about in (
        ("Band", "the Challenger is paid for solve rates from .25 to .75"),
        ("Frontier", "the Challenger is paid for hard queries that are solved once"),
    ):
        objective = {"class_path": f"lsp_lightning.{name}", "init_args": shared}
        change = _model("objective", objective)
        yield name.lower(), f"objective {name}", about, change
    yield "no-gate", "without a gate", "all queries train", {"data": {"gate": None}}
    yield "no-pool", "without a pool", "no query comes again", {"data": {"pool": None}}
    neither = {"gate": None, "pool": None}
    yield "plain", "without gate and pool", "the game alone", {"data": neither}


_Q_ALONE: _Change = (
    "q-alone",
    "random rewards, with Q",
    "control: what Q alone teaches",
    _random(RECOMMENDED, quality=True),
)


def _model(key: str, value: Any) -> dict[str, Any]:
    return {"model": {key: value}}


def tiny_world() -> World:
    """The tiny world: a model of 0.8M parameters, tasks that a program checks."""
    lsp = dict.fromkeys((RECOMMENDED, _PAPER, "tiny_lsp_zero"), 0.52)
    return World(
        name="tiny",
        arms=(
            *_MAIN,
            *_ablations("paper", _PAPER, _of_paper()),
            *_ablations("lsp", RECOMMENDED, _of_recommended()),
            *_ablations("plain", RECOMMENDED, [_Q_ALONE]),
        ),
        preset=RECOMMENDED,
        tasks="pkg:lsp_lightning/tinyworld/data/test.jsonl",
        rounds=100,
        seeds=(0, 1, 2, 3, 4),
        costs=Costs(
            round={"tiny_grpo": 0.46, **lsp},
            start=10.0,
            measure=9.0,
            curve=6.0,
            calibration=0.2,
            megabytes=4.5,
        ),
        out="runs/reproduce",
        curve_draws=64,
    )
