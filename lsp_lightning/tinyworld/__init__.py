"""The tiny world: a small set of tasks and a small model for them, shipped with the package.

The folder holds `base/` (model and tokenizer), `reward_model/` (a reward model with known biases),
`second_reward_model/` (a second one that makes other mistakes),
`data/` (training and held-out queries), `prompts/` (for the Challenger and the judge) and
`manifest.json` (the SHA-256 hash of every generated file). `recipe/` is the code that made them.
Importing this module loads neither torch nor transformers.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent
BASE_DIR = ROOT / "base"
DATA_DIR = ROOT / "data"
REWARD_MODEL_DIR = ROOT / "reward_model"
SECOND_REWARD_MODEL_DIR = ROOT / "second_reward_model"
PROMPTS_DIR = ROOT / "prompts"
MANIFEST = ROOT / "manifest.json"

__all__ = [
    "BASE_DIR",
    "DATA_DIR",
    "MANIFEST",
    "PROMPTS_DIR",
    "REWARD_MODEL_DIR",
    "ROOT",
    "SECOND_REWARD_MODEL_DIR",
]
