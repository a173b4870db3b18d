"""Shared by all tests: one torch thread, and tiny models on disk, made once."""

import gc
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from published_sizes import published_config
from small_game import brief
from tiny_models import build_llama, build_qwen3

from lsp_lightning import ConfigError, Policy, errors
from lsp_lightning.callbacks import summary
from lsp_lightning.models import loading as pretrained
from lsp_lightning.paths import resolve
from lsp_lightning.planning import lengths
from lsp_lightning.runtime import http as asking

torch.set_num_threads(1)


def pytest_collection_finish(session):
    """Garbage collections pass over all that was imported: each would take up to half a second.

    Some tests run out of memory again and again, and the package collects garbage each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)  # with little to pass over, Python would do it more often


@pytest.fixture(scope="session", autouse=True)
def no_card_of_peft():
    """Saved adapters have no README of peft's: its template is compiled anew each time, 25 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_plan():
    """Runs print no estimate of their memory, which takes seconds; processes of their own do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "memory_line", lambda *args: "memory: not planned (a test)")
        yield


@pytest.fixture(autouse=True)
def warned_of_nothing():
    """Each test sees the package's warnings anew: a process shows each of them once."""
    errors._warned.clear()


@pytest.fixture(scope="session")
def tiny_llama_folder(tmp_path_factory) -> Path:
    """A random two-layer Llama with a character tokenizer. Read only: make your own to change."""
    return build_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def brief_folder(tiny_llama_folder, tmp_path_factory) -> Path:
    """The tiny Llama, most of whose completions end early. Read only."""
    return brief(tiny_llama_folder, tmp_path_factory.mktemp("brief") / "model")


@pytest.fixture(scope="session")
def tiny_qwen3_folder(tmp_path_factory) -> Path:
    """A random two-layer Qwen3 with a byte-level tokenizer. Read only: make your own to change."""
    return build_qwen3(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def tiny_policy(tiny_llama_folder) -> Policy:
    """The tiny Llama as policy and reference, for tests that change no weight."""
    return Policy(str(tiny_llama_folder))


@pytest.fixture
def short_pauses(monkeypatch):
    """Clients of servers try again almost at once."""
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.01)


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test; so does starting to train."""

    def loaded(*args, **kwargs):
        pytest.fail("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loaded)


@pytest.fixture
def published(monkeypatch):
    """Real models' configs come from their published sizes, others from their folders or files.

    There are no tokenizers of real models.
    """
    load_config, load_codec = pretrained.load_config, pretrained.load_codec

    def local(base: str) -> bool:
        return resolve(base).exists()

    def config(base, key="model.base"):
        return load_config(base, key) if local(base) else published_config(base, key)

    def codec(base, *args, **kwargs):
        if local(base):
            return load_codec(base, *args, **kwargs)
        raise ConfigError("model.base", f"no tokenizer of {base!r}", "none is needed")

    for module in (pretrained, lengths):
        monkeypatch.setattr(module, "load_config", config)
    monkeypatch.setattr(lengths, "load_codec", codec)


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
