"""Check by its config alone whether a model is a causal LM that can be built."""

from collections.abc import Mapping, Sequence
from typing import Any

from lsp_lightning.errors import ConfigError

_REMEDY = "give a causal (decoder-only) language model, such as Qwen/Qwen3-1.7B"
#: Endings of class names in a config's ``architectures``: what such a model is, and what to do.
_HEADS = {
    "ForSequenceClassification": (
        "a classifier or reward model",
        "use it as the model of a PreferenceReward, and give a causal LM here",
    ),
    "ForTokenClassification": ("a classifier of tokens", _REMEDY),
    "ForMaskedLM": ("a masked language model, which does not write from left to right", _REMEDY),
    "ForQuestionAnswering": ("a model that marks answers in a text", _REMEDY),
    "RewardModel": (
        "a reward model",
        "use it as the model of a PreferenceReward, and give a causal LM here",
    ),
}

#: Names of the number of layers in configs; more than the weights have tensors is a mistake.
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers")
_MOST_LAYERS = 1000


def check_family(config: Mapping[str, Any], base: str, key: str) -> None:
    """Raise ConfigError unless a config is that of a causal LM that transformers knows.

    Args:
        config: the content of its ``config.json``.
        base: folder or Hub id of the model.
        key: its config key.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise ConfigError(
            key, f"the config.json of {base!r} names no model_type", "give a Hugging Face model"
        )
    what = _other_head(config.get("architectures")) or _other_family(family, config)
    if what is not None:
        raise ConfigError(key, f"{base!r} (model type {family}) is {what[0]}", what[1])


def check_layers(config: Mapping[str, Any], tensors: int, base: str, key: str) -> None:
    """Raise ConfigError if a config has so many layers that only to build them would take hours."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for name, layers in (pair for part in parts for pair in part.items()):
        if name in _LAYERS and isinstance(layers, int) and layers > max(tensors, _MOST_LAYERS):
            problem = f"the config of {base!r} has {name} {layers:,}, its weights {tensors:,} "
            raise ConfigError(key, f"{problem}tensors", "restore it from the model's source")


def _other_head(architectures: Any) -> tuple[str, str] | None:
    """What a model with only these heads is, and what to do; None if it may be a causal LM."""
    names = [str(name) for name in architectures] if isinstance(architectures, Sequence) else []
    found = [next((w for end, w in _HEADS.items() if n.endswith(end)), None) for n in names]
    return found[0] if found and all(found) else None


def _other_family(family: str, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a family that has no causal LMs is, and what to do; None if it has some."""
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    decoder = any(str(n).endswith("ForCausalLM") for n in config.get("architectures") or ())
    if config.get("is_encoder_decoder") or (
        family in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and not decoder
    ):
        return "an encoder-decoder model", _REMEDY
    if family in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        masked = family in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return _HEADS["ForMaskedLM"] if masked and not config.get("is_decoder") else None
    if family not in CONFIG_MAPPING_NAMES:
        if config.get("auto_map"):
            return (
                "a model with custom code, which is never run",
                "give a model that transformers knows",
            )
        return (
            "of a kind that the installed transformers does not know",
            "check model_type, or upgrade transformers",
        )
    if family in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return _HEADS["ForMaskedLM"]
    if family in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "a model for pictures and text", _REMEDY
    return "not a language model that writes text", _REMEDY
