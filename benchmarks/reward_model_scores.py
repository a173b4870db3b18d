"""What two reward models and the truth say about the same held-out answers of a policy."""

from pathlib import Path

from torch import Tensor

from lsp_lightning import (
    FrozenPlayer,
    Player,
    Policy,
    PreferenceReward,
    Sampling,
    VerifiableReward,
)
from lsp_lightning.evaluation.exam import Answered, Exam
from lsp_lightning.game.known_queries import read_queries
from lsp_lightning.rewards import judge_playout
from lsp_lightning.seeding import derive_seed
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier
from lsp_lightning.types import Playout

WORLD = "pkg:lsp_lightning/tinyworld"
#: The reward models by the names they have in the table.
MODELS = {"paid": f"{WORLD}/reward_model", "watch": f"{WORLD}/second_reward_model"}
#: Stopping is decided by the first set and reported on the second.
SETS = ("dev", "test")
SOLVER = Sampling(max_new_tokens=8)

Row = dict[str, float]


class Board:
    """Scores policies on the held-out tasks, with one seed; the base's answers are kept.

    Args:
        seed: fixes the sampled answers.
        tasks: how many tasks of each set; None takes all.
    """

    def __init__(self, seed: int, tasks: int | None = None) -> None:
        base = Policy(f"{WORLD}/base")
        self.reference = FrozenPlayer(base)
        self.truth = VerifiableReward(TinyWorldVerifier(), name="true")
        self.judges = {name: PreferenceReward(model, name=name) for name, model in MODELS.items()}
        for judge in self.judges.values():
            judge.connect(self.reference)
        self.exams = {name: self._exam(name, base, seed, tasks) for name in SETS}
        self.opponents = {
            (name, way): self._judged(exam.answered_by(self.reference))
            for name in SETS
            for way, exam in _ways(self.exams[name].drawn_from("reference")).items()
        }

    def _exam(self, name: str, base: Policy, seed: int, count: int | None) -> Exam:
        tasks = read_queries(f"{WORLD}/data/{name}.jsonl", name)[:count]
        derived = derive_seed(seed, 0, "heldout")  # as a run scores them
        return Exam.of(base.codec, tasks, self.truth, SOLVER, "{query}", 1, derived)

    def _judged(self, playout: Playout) -> dict[str, Answered]:
        texts = tuple(playout.spoken_groups())
        return {
            name: Answered(texts, judge_playout(judge, playout).scores)
            for name, judge in self.judges.items()
        }

    def row(self, adapter: Path | None) -> Row:
        """Scores of the policy with this adapter; None is the base.

        For each set, and for sampled and greedy answers: the share that is right, and for each
        reward model the mean score and the win rate against the base.
        """
        policy = Policy(f"{WORLD}/base", init_adapter=str(adapter) if adapter else None)
        player = Player.local(policy)
        row: Row = {}
        for name in SETS:
            for way, exam in _ways(self.exams[name].drawn_from("heldout")).items():
                playout = exam.answered_by(player)
                row[f"{name}, {way}, true"] = _mean(judge_playout(self.truth, playout).scores)
                for judge, mine in self._judged(playout).items():
                    wins = mine.wins_against(self.opponents[name, way][judge])
                    row[f"{name}, {way}, {judge} score"] = _mean(mine.scores)
                    row[f"{name}, {way}, {judge} wins"] = _mean(wins)
        return row


def _ways(exam: Exam) -> dict[str, Exam]:
    return {"sampled": exam, "greedy": exam.greedy}


def _mean(scores: Tensor) -> float:
    return round(float(scores.nanmean()), 4)
