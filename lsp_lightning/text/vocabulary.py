"""Check that the ids of a tokenizer fit its model.

Many models have more rows in the embedding than their tokenizer has tokens, because a multiple of
64 or 128 is fast. A few tokenizers have more tokens than the embedding has rows.
"""

from collections.abc import Iterable
from typing import Any

from lsp_lightning.errors import ConfigError


def undecodable_ids(codec: Any, rows: int) -> list[int]:
    """Ids that must not be sampled, because the tokenizer has no token for them.

    Args:
        codec: a :class:`lsp_lightning.text.chat.ChatCodec`; its stop tokens are never decoded.
        rows: rows of the model's embedding.
    """
    known = codec.tokenizer.get_vocab().values()
    return sorted(set(range(rows)) - set(known) - set(codec.stop_ids))


def check_vocabulary(tokenizer: Any, rows: int, base: str, key: str) -> None:
    """Raise ConfigError if text can be encoded as ids beyond the embedding.

    Added tokens beyond it are allowed (Gemma 3 has one, for pictures): a codec never encodes
    players' text as an added token, and refuses prompts that contain one.

    Args:
        tokenizer: a Hugging Face tokenizer.
        rows: rows of the model's input embedding.
        base: folder or Hub id of the model.
        key: its config key.
    """
    # runs of white space are added tokens that text contains
    added = {i for t, i in tokenizer.get_added_vocab().items() if t.replace("\u2581", " ").strip()}
    beyond = [i for i in tokenizer.get_vocab().values() if i >= rows and i not in added]
    if beyond:
        raise ConfigError(
            key,
            f"the tokenizer of {base!r} has ids up to {max(beyond)}, but the model's embedding has "
            f"{rows} rows",
            "use the tokenizer of this model, or resize its embedding and save it again",
        )


def require_ids_below(rows: int | None, ids: Iterable[int], tokenizer: Any) -> None:
    """Raise ConfigError if a prompt has an id that the model cannot read.

    Args:
        rows: rows of the model's input embedding; None if unknown.
        ids: the prompt's ids.
        tokenizer: names the token.
    """
    beyond = [i for i in ids if rows is not None and i >= rows]
    if beyond:
        token = tokenizer.convert_ids_to_tokens(beyond[0])
        raise ConfigError(
            "model.base",
            f"a prompt contains {token!r}, id {beyond[0]}, but the model's embedding has {rows} "
            "rows",
            "take it out of the prompt or the chat template, or use the model's tokenizer",
        )
