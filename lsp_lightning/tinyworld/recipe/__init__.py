"""The recipe of the tiny world: the code that made the shipped model, reward model and data.

No run needs it. `python -m lsp_lightning.tinyworld.recipe.build` makes every file again.
"""
