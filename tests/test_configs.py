"""Every committed config parses and names things that exist. No model is loaded."""

import functools
import re
from pathlib import Path

import pytest
import transformers
import yaml
from gguf_files import build_byte_model, write_gguf
from lightning.pytorch import Trainer

from lsp_lightning.checks.constraints import CONSTRAINT_TEMPLATE
from lsp_lightning.cli.main import main
from lsp_lightning.paths import resolve

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def no_model(untouched_process, published, monkeypatch):
    """Loading a model fails the test; sizes of real models come from files."""
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )


def layers(path):
    """The arguments for a config; an overlay comes after a preset."""
    below = re.search(r"^# An overlay for ([\w.]+\.yaml)", path.read_text())
    other = [] if path.parent.name == "configs" else [str(ROOT / "configs/llama32_3b_paper.yaml")]
    preset = [str(ROOT / "configs" / below[1])] if below else other
    return [word for name in (*preset, str(path)) for word in ("--config", name)]


def named(path):
    return str(path.relative_to(ROOT / "configs"))


def test_there_are_configs():
    assert "tiny_lsp.yaml" in map(named, CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_a_config_makes_a_module_and_its_data(path, tmp_path, monkeypatch):
    """Everything that is checked before weights are loaded, on a machine without a GPU."""
    made = []
    fit = Trainer.fit

    @functools.wraps(fit)
    def only_note(self, model, *args, **kwargs):
        made.append((self, model, kwargs.get("datamodule")))

    monkeypatch.setattr(Trainer, "fit", only_note)
    (tmp_path / "tasks.jsonl").write_text(
        '{"query": "q", "solution": {"tests": ["assert f() == 1"]}}'
    )
    monkeypatch.chdir(tmp_path)
    texts = "".join(Path(name).read_text() for name in layers(path)[1::2])
    for file in re.findall(r"^  base: (\S+\.gguf)$", texts, re.MULTILINE):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / file).parent.mkdir(parents=True)
        write_gguf(build_byte_model(tmp_path / "model"), tmp_path / file)
    arguments = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *layers(path), *arguments]) == 0
    [(trainer, module, data)] = made
    assert trainer.max_steps > 0
    assert module.policy is None
    assert data.num_queries >= 1


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_the_package_files_in_a_config_exist(path):
    for name in re.findall(r"pkg:[\w./-]+", path.read_text()):
        assert resolve(name).exists(), name


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_a_config_begins_with_a_comment(path):
    assert path.read_text().startswith("# ")


def test_the_template_of_the_instructions_overlay_is_that_of_the_package():
    overlay = yaml.safe_load((ROOT / "configs/rewards/instructions.yaml").read_text())
    template = overlay["data"]["queries"]["init_args"]["template"]
    assert template.strip() == CONSTRAINT_TEMPLATE.strip()
