"""The recipe of the tiny world: the code that made the shipped model, reward model and data.

Training does not use it. `python -m lsp_lightning.tinyworld.recipe.build` rebuilds every file.
"""
