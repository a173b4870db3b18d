"""Answers in the format of AlpacaEval, whose own command can judge them too."""

from collections.abc import Sequence

from lsp_lightning.evaluation.answers import Answer
from lsp_lightning.game.known_queries import Query


def alpaca_outputs(
    prompts: Sequence[Query], answers: Sequence[Answer], generator: str
) -> list[dict[str, str]]:
    """The rows of ``model_outputs.json``.

    Args:
        prompts: the instructions.
        answers: one to each, written without the model's thinking.
        generator: the name of the model.
    """
    return [
        {
            "instruction": prompt.text,
            "output": answer.spoken,
            "generator": generator,
            "dataset": prompt.subset or "all",
        }
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
