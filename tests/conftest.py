"""Shared by all tests: one torch thread, and tiny models on disk, made once."""

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_models import build_llama, build_qwen3

from lsp_lightning import Policy

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory) -> Path:
    """A random two-layer Llama with a character tokenizer. Read only: make your own to change."""
    return build_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_qwen3_folder(tmp_path_factory) -> Path:
    """A random two-layer Qwen3 with a byte-level tokenizer. Read only: make your own to change."""
    return build_qwen3(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def tiny_policy(tiny_llama_folder) -> Policy:
    """The tiny Llama as policy and reference, for tests that change no weight."""
    return Policy(str(tiny_llama_folder))


@pytest.fixture
def untouched_process():
    """What a command of the command line sets for its process does not outlive the test."""
    environment, threads, path = dict(os.environ), torch.get_num_threads(), list(sys.path)
    with warnings.catch_warnings():
        yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    sys.path[:] = path
