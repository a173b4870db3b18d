"""Presets are planned without a connection; an unknown model fails at once."""

from pathlib import Path

import huggingface_hub
import pytest
import transformers
import yaml

from lsp_lightning import ConfigError
from lsp_lightning.cli.main import main
from lsp_lightning.models import hub
from lsp_lightning.models.loading import load_config, load_tokenizer
from lsp_lightning.planning.published import planned_config, published_sizes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_connection(monkeypatch):
    """The Hub cannot be reached. -> how often it was tried."""
    tries = []

    class Session:
        def head(self, url, timeout):
            tries.append(timeout)
            raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub.reachable.cache_clear()
    yield tries
    hub.reachable.cache_clear()


def hub_ids():
    """All models of all configs that are on the Hub, policies and reward models."""
    found = set()
    for path in (ROOT / "configs").rglob("*.yaml"):
        model = yaml.safe_load(path.read_text()).get("model", {})
        found.add(model.get("base"))
        for reward in model.get("rewards") or []:
            if "PreferenceReward" in reward["class_path"]:
                found.add(reward["init_args"]["model"])
    return {b for b in found if b and not b.startswith("pkg:") and not b.endswith(".gguf")}


def test_the_sizes_of_every_presets_models_are_in_the_package():
    assert hub_ids() <= set(published_sizes())
    assert len(hub_ids()) > 6


def test_a_known_model_is_planned_without_asking(no_connection, monkeypatch):
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", None)  # not called
    assert planned_config("Qwen/Qwen3-1.7B").num_hidden_layers == 28
    assert no_connection == []


def test_the_hub_is_tried_once_and_not_for_long(no_connection, monkeypatch):
    asked = []

    def looks(name, **options):
        asked.append(options["local_files_only"])
        raise OSError("not cached")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", looks)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", looks)
    for load in (load_config, load_tokenizer):
        with pytest.raises(ConfigError, match="the Hub cannot be reached: check your connection"):
            load("somebody/a-model", "model.base")
    assert asked == [True, True]
    assert no_connection == [hub._SECONDS]
    assert hub._SECONDS <= 5


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("command", ["plan", "fit"])
def test_an_unknown_model_is_one_line(command, no_connection, tmp_path, capsys):
    arguments = ["--config", str(ROOT / "configs/gpu8_qwen3_1.7b.yaml"), "--model.base", "some/one"]
    folder = ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main([command, *arguments, *folder]) != 0
    error = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert error[-1].startswith("error: model.base: cannot load 'some/one' (")
    assert error[-1].endswith("the Hub cannot be reached: check your connection")
    assert len(no_connection) == 1


def test_a_folder_with_the_name_of_a_known_model_is_read(tiny_llama_folder, tmp_path, monkeypatch):
    (tmp_path / "Qwen").mkdir()
    (tmp_path / "Qwen" / "Qwen3-1.7B").symlink_to(tiny_llama_folder)
    monkeypatch.chdir(tmp_path)
    assert planned_config("Qwen/Qwen3-1.7B").model_type == "llama"
