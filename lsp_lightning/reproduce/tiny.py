"""The arms of the tiny world."""

from collections.abc import Mapping
from typing import Any

from lsp_lightning.reproduce.arms import Arm, Costs, Stage, World, preset_config

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
    return {"model": {"rewards": rewards}, "data": {"heldout_reward": "verifiable"}}


def _base(temperature: float) -> Arm:
    name, label = f"base-{temperature:g}", f"base, temperature {temperature:g}"
    about = "control: what a lower temperature gives without training"
    return Arm(name, label, about, temperature=temperature)


def _two(first: Stage, second: Stage, label: str, about: str, control: str | None = None) -> Arm:
    return Arm(f"{first.name}-{second.name}", label, about, (first, second), control=control)


_CONTINUED = "control: the first stage goes on for as many rounds"
_MAIN = (
    Arm("base", "base", "the model before training"),
    *map(_base, (0.7, 0.5, 0.3)),
    Arm(
        "random",
        "random rewards",
        "control: recommended game without Q, with a coin for R",
        (Stage("random", RECOMMENDED, _random(RECOMMENDED, quality=False)),),
    ),
    Arm("grpo", "GRPO with data", "queries from a file of 8,192", (_GRPO,)),
    Arm("few", "GRPO on 48 queries", "data that runs out: 48 fixed, mostly easy queries", (_FEW,)),
    Arm("zero", "LSP-Zero", "the zero-sum game: no Q", (Stage("zero", "tiny_lsp_zero"),)),
    Arm("paper", "LSP, paper's form", "the Challenger is paid -V + VQ", (_PAPERS,)),
    Arm("lsp", "LSP, recommended", "our recommended preset", (_LSP,)),
    _two(_GRPO, _PAPERS, "GRPO, then LSP (paper)", "RL, then LSP", "grpo-grpo"),
    _two(_GRPO, _LSP, "GRPO, then LSP (recommended)", "RL, then LSP", "grpo-grpo"),
    _two(_GRPO, _GRPO, "GRPO, then GRPO", _CONTINUED),
    _two(_PAPERS, _GRPO, "LSP (paper), then GRPO", "LSP, then RL", "grpo-grpo"),
    _two(_LSP, _GRPO, "LSP (recommended), then GRPO", "LSP, then RL", "lsp-lsp"),
    _two(_LSP, _LSP, "LSP, then LSP (recommended)", _CONTINUED),
    _two(_FEW, _LSP, "48 queries, then LSP (recommended)", "LSP when data run out", "few-few"),
    _two(_FEW, _FEW, "48 queries, then the same", _CONTINUED),
)


def _ablation(name: str, of: str, label: str, about: str, changes: Mapping[str, Any]) -> Arm:
    preset = {"paper": _PAPER, "lsp": RECOMMENDED}[of]
    return Arm(name, label, about, (Stage(name, preset, changes),), changes=of)


def _ablations() -> tuple[Arm, ...]:
    weight = preset_config(_PAPER)["model"]["rewards"][1]["init_args"]["weight"]
    long = preset_config("tiny_lsp_long")["data"]
    sampled = {"reading": "sampled", "sampling": {"max_new_tokens": 40}}
    return (
        _ablation(
            "q-half", "paper", "Q at half its weight", "Q", _rewards(_PAPER, {"weight": weight / 2})
        ),
        _ablation(
            "q-double",
            "paper",
            "Q at double its weight",
            "Q",
            _rewards(_PAPER, {"weight": weight * 2}),
        ),
        _ablation(
            "q-sampled",
            "paper",
            "Q sampled, not expected",
            "the paper's reading of Q; half of the tiny judge's replies lack the sum",
            _rewards(_PAPER, sampled),
        ),
        *(
            _ablation(
                f"alpha-{alpha:g}", "paper", f"alpha_ch {alpha:g}", about, _model("alpha_ch", alpha)
            )
            for alpha, about in (
                (0.0, "the Challenger is frozen"),
                (0.5, "a stronger Challenger"),
                (1.0, "the two losses added, as in version 1 of the paper"),
            )
        ),
        *(
            _ablation(f"kl-{form[:2]}", "paper", f"KL as {form}", about, _model("kl", form))
            for form, about in (
                ("k1_loss", "as printed; its expected gradient is 0"),
                ("k2_loss", "half the squared log-ratio"),
                ("k3_loss", "the other direction, token by token"),
            )
        ),
        *(
            _ablation(
                name.lower(),
                "lsp",
                f"objective {name}",
                "what the Challenger is paid",
                _model("objective", {"class_path": f"lsp_lightning.{name}"}),
            )
            for name in ("Band", "Frontier")
        ),
        _ablation("gate", "lsp", "with a gate", "which queries train", {"data": _added(long, 1)}),
        _ablation(
            "gate-pool", "lsp", "with gate and pool", "as in long runs", {"data": _added(long, 2)}
        ),
        _ablation(
            "q-alone",
            "lsp",
            "random rewards, with Q",
            "what Q alone teaches",
            _random(RECOMMENDED, quality=True),
        ),
    )


def _model(key: str, value: Any) -> dict[str, Any]:
    return {"model": {key: value}}


def _added(long: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The first so many of gate and pool as the preset for long runs has them, and no other."""
    names = ("gate", "pool")
    return {name: long[name] if i < count else None for i, name in enumerate(names)}


def tiny_world() -> World:
    """The tiny world: a model of 0.8M parameters, tasks that a program checks."""
    per_round = {"tiny_grpo": 0.4, "tiny_lsp_zero": 0.5, "tiny_lsp_paper": 0.5, "tiny_lsp": 0.5}
    return World(
        name="tiny",
        arms=(*_MAIN, *_ablations()),
        preset=RECOMMENDED,
        tasks="pkg:lsp_lightning/tinyworld/data/test.jsonl",
        rounds=100,
        seeds=(0, 1, 2, 3, 4),
        costs=Costs(
            round={**per_round, "tiny_lsp_long": 0.5},
            start=10.0,
            measure=18.0,
            curve=8.0,
            calibration=0.2,
            megabytes=4.5,
        ),
        out="runs/reproduce",
        curve_draws=64,
    )
