"""The symptoms that the texts of the answers show: a part of the table in symptoms.py."""

from lsp_lightning.diagnosis.symptom import Symptom

OF_ANSWERS: tuple[Symptom, ...] = (
    Symptom(
        name="long answers",
        metrics=("answers/tokens",),
        fact="an answer has {now} tokens",
        meaning="length may be what the reward pays for",
        helps="add a LengthReward, or use another reward model (model.rewards)",
        factor=2.0,
        style="number",
    ),
    Symptom(
        name="answers cut off",
        metrics=("answers/truncated",),
        fact="{now} of the answers are cut off",
        meaning="answers grow beyond the limit",
        helps="add a LengthReward to model.rewards, or raise data.solver.max_new_tokens",
        bound=0.5,
        change=0.3,
        follows=("answers cut off", "thoughts unclosed", "long answers"),
    ),
    Symptom(
        name="answers as code",
        metrics=("answers/code",),
        fact="{now} of the answers are code",
        meaning="the Solver answers everything in one form",
        helps="use another reward model, or add a SelfReward (model.rewards)",
        bound=0.3,
        change=0.2,
    ),
    Symptom(
        name="answers alike",
        metrics=("answers/distinct_2",),
        fact="{now} of the word pairs in the answers are different ones",
        meaning="the Solver gives the same answers to all queries",
        helps="raise model.beta or data.solver.temperature",
        worse="below",
        factor=0.3,
        is_collapse=True,
        follows=(
            *("malformed queries", "unsolved queries", "queries alike", "copies within a round"),
            *("queries of earlier rounds", "answers identical"),
        ),
    ),
    Symptom(
        name="noise in the answers",
        metrics=("answers/zlib",),
        fact="the answers of a round compress to {now} of their size",
        meaning="they look like random characters",
        helps="raise model.beta, or lower model.optimizer.init_args.lr",
        bound=0.88,
        factor=1.3,
        is_collapse=True,
        follows=("Solver's entropy rises",),
    ),
)
