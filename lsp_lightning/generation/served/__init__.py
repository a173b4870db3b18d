"""Rollouts sampled by a vLLM server."""
