"""Checks of texts by programs: maths, code and constraints. They need no torch."""
