"""The embedded default: a small world of tasks, a small model that plays it, and their recipe.

The folder holds `base/` (model and tokenizer), `reward_model/` (a preference model with tastes of
its own), `data/` (held-out and training queries), `prompts/` (the Challenger's and the Judge's
texts) and `manifest.json` (a hash per file made).
Importing this module loads neither torch nor transformers.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent
BASE_DIR = ROOT / "base"
DATA_DIR = ROOT / "data"
REWARD_MODEL_DIR = ROOT / "reward_model"
PROMPTS_DIR = ROOT / "prompts"
MANIFEST = ROOT / "manifest.json"

__all__ = ["BASE_DIR", "DATA_DIR", "MANIFEST", "PROMPTS_DIR", "REWARD_MODEL_DIR", "ROOT"]
