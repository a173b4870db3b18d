"""Prompts computed once: a tree of tokens, attention over it, caches and decoders."""
