"""If a model cannot be loaded, the error is one line with the key, the page and the remedy."""

import pytest
import transformers

from lsp_lightning import ConfigError
from lsp_lightning.models import hub
from lsp_lightning.models.loading import load_config

BASE = "somebody/a-model"
GATED = (
    "You are trying to access a gated repo.\nMake sure to have access to it at "
    f"https://huggingface.co/{BASE}.\n401 Client Error."
)
MISSING = f"{BASE} is not a local folder and is not a valid model identifier listed on the hub."
UNREACHED = "We couldn't connect to 'https://huggingface.co' to load the files."


@pytest.mark.parametrize(
    ("said", "offline", "remedy"),
    [
        (GATED, "0", f"accept its licence at https://huggingface.co/{BASE}, then log in: hf auth"),
        (MISSING, "0", f"check that https://huggingface.co/{BASE} exists"),
        (UNREACHED, "1", f"unset HF_HUB_OFFLINE, or download it while online: hf download {BASE}"),
        (UNREACHED, "0", "the Hub cannot be reached: check your connection"),
    ],
    ids=["gated", "missing", "offline", "unreached"],
)
def test_a_model_that_cannot_be_loaded_is_one_line(said, offline, remedy, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(said)

    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ConfigError) as error:
        load_config(BASE, "model.rewards.model")
    assert str(error.value).startswith("model.rewards.model: cannot load 'somebody/a-model' (")
    assert remedy in str(error.value)
    assert "\n" not in str(error.value)
