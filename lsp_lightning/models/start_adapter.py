"""The adapter to start from: checked before anything is loaded, then attached to the base."""

import json
import warnings
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.sources import ADAPTER_CONFIG, check_complete, read_json
from lsp_lightning.paths import require_path, resolve
from lsp_lightning.runtime.memory import is_out_of_memory

KEY = "model.init_adapter"
_GIVE = "give a LoRA or DoRA adapter of linear layers, such as a run's 'adapter' folder"
#: Settings of peft's LoRA that change more than the layers' matrices, or how they are computed. An
#: export could not merge such an adapter, or a server could not sample with it.
_OTHER_KINDS = (
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
    "layer_replication",
    "megatron_config",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
#: Ways to initialise an adapter that leave the base weights as they are.
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva")


def check_start_adapter(init_adapter: str) -> None:
    """Check the folder of a start adapter without loading its weights.

    Raises:
        ConfigError: it is not an adapter in peft's layout, is damaged, or is of a kind that cannot
            be trained, sampled and merged here.
    """
    folder = require_path(init_adapter, KEY)
    config = read_json(folder / ADAPTER_CONFIG, KEY)
    weights = sorted(folder.glob("*.safetensors"))
    if config is None or not weights:
        hub = "; download a Hub adapter first: hf download" if not folder.exists() else ""
        raise ConfigError(
            KEY,
            f"{init_adapter!r} is not a peft adapter ({ADAPTER_CONFIG} and *.safetensors)",
            f"give the 'adapter' folder of a finished run{hub}",
        )
    for path in weights:
        check_complete(path, KEY)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ConfigError(KEY, f"{init_adapter!r} is of peft type {kind}", _GIVE)
    other = [name for name in _OTHER_KINDS if config.get(name)]
    if config.get("bias", "none") != "none":
        other.append("bias")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _PLAIN_STARTS:
        raise ConfigError(
            KEY,
            f"{init_adapter!r} changes the base's weights (init_lora_weights: {start})",
            "save it as plain LoRA (peft: path_initial_model_for_weight_conversion)",
        )
    if other:
        raise ConfigError(
            KEY, f"{init_adapter!r} is not plain LoRA (it sets {', '.join(other)})", _GIVE
        )


def attach(model: Any, init_adapter: str, name: str | None = None) -> Any:
    """Load the start adapter. -> the peft model, with this adapter trained.

    Args:
        model: a causal LM; a peft model if ``name`` is given.
        init_adapter: folder of the adapter.
        name: load it frozen under this name, beside the adapters that the model has.

    Raises:
        ConfigError: the adapter does not fit this model.
    """
    from peft import PeftModel

    folder = resolve(init_adapter)
    try:
        with warnings.catch_warnings():  # about missing tensors, which are named below
            warnings.simplefilter("ignore")
            if name is None:
                model = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
            else:
                model.load_adapter(str(folder), adapter_name=name, is_trainable=False)
        other = sorted(_tensors(folder) ^ _adapter_tensors(model, name))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _does_not_fit(init_adapter, " ".join(str(error).split())[:160]) from error
    if other:
        raise _does_not_fit(init_adapter, f"only one of them has {other[0]}")
    return model


def name_base(folder: Path, base: str) -> None:
    """Write the base's place into a saved adapter, where peft writes a cache's folder.

    Args:
        folder: the adapter's folder.
        base: see :func:`lsp_lightning.models.hub.location`.
    """
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _does_not_fit(init_adapter: str, reason: str) -> ConfigError:
    return ConfigError(
        KEY, f"{init_adapter!r} does not fit this model ({reason})", "give an adapter of this base"
    )


def _tensors(folder: Path) -> set[str]:
    """Names of the LoRA tensors in an adapter's files."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= {name for name in file.keys() if "lora_" in name}  # noqa: SIM118 - no mapping
    return names


def _adapter_tensors(model: Any, name: str | None) -> set[str]:
    """Names of the LoRA tensors that a peft model saves of one adapter."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(
        model, adapter_name=name or "default", save_embedding_layers=False
    )
    return {tensor for tensor in state if "lora_" in tensor}
