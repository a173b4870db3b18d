"""Every committed config parses and names things that are there. No model is loaded."""

import functools
import re
from pathlib import Path

import pytest
import transformers
import yaml
from lightning.pytorch import Trainer

from lsp_lightning.checks.constraints import CONSTRAINT_TEMPLATE
from lsp_lightning.cli.main import main
from lsp_lightning.paths import resolve

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def no_model(untouched_process, published, monkeypatch):
    """No model is loaded; sizes of real ones come from files."""
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )


def layers(path):
    """The arguments that name a config; an overlay lies over a preset."""
    under = [] if path.parent.name == "configs" else [str(ROOT / "configs/llama32_3b_paper.yaml")]
    return [word for name in (*under, str(path)) for word in ("--config", name)]


def named(path):
    return str(path.relative_to(ROOT / "configs"))


def test_there_are_configs():
    assert "tiny_lsp.yaml" in map(named, CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_a_config_parses(path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *layers(path), "--print_config"])
    assert not exit_.value.code
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_steps"] > 0
    assert config["model"]["rewards"]


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_a_config_makes_a_module_and_its_data(path, tmp_path, monkeypatch):
    """All that is checked before the first weight is loaded, on a machine without a GPU."""
    made = []
    fit = Trainer.fit

    @functools.wraps(fit)
    def nothing(self, model, *args, **kwargs):
        made.append((model, kwargs.get("datamodule")))

    monkeypatch.setattr(Trainer, "fit", nothing)
    (tmp_path / "tasks.jsonl").write_text(
        '{"query": "q", "reference": {"tests": ["assert f() == 1"]}}'
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *layers(path), *arguments]) == 0
    [(module, data)] = made
    assert module.policy is None
    assert data.num_queries >= 1


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_what_a_config_names_in_the_package_exists(path):
    for name in re.findall(r"pkg:[\w./-]+", path.read_text()):
        assert resolve(name).exists(), name


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_a_config_says_what_it_is_for(path):
    assert path.read_text().startswith("# ")


def test_the_constrained_template_is_the_grammars():
    overlay = yaml.safe_load((ROOT / "configs/rewards/instructions.yaml").read_text())
    template = overlay["data"]["queries"]["init_args"]["template"]
    assert template.strip() == CONSTRAINT_TEMPLATE.strip()
