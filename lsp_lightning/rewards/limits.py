"""Says which reward keeps R from having a lowest and a highest value."""

from collections.abc import Sequence

from lsp_lightning.errors import ConfigError
from lsp_lightning.rewards.base import Reward
from lsp_lightning.rewards.function import FunctionReward
from lsp_lightning.rewards.scoring import span_of_R


def require_limits(rewards: Sequence[Reward], key: str, problem: str, otherwise: str) -> None:
    """Raise ConfigError unless R has a lowest and a highest value.

    Args:
        rewards: all rewards of the run.
        key: the config key that needs the limits.
        problem: what it needs, for the message.
        otherwise: what else can be done, for the message.
    """
    reward = next((each for each in rewards if span_of_R([each]) is None), None)
    if reward is None:
        return
    why, remedy = "", "use another reward"
    if isinstance(reward, FunctionReward):
        remedy = "set its span or binary"
    if reward.scale is not None:
        why = " while it is standardized"
        if isinstance(reward, FunctionReward):
            remedy = "set its standardize to false"
    raise ConfigError(
        key, f"{problem}, but reward {reward.name!r} has none{why}", f"{remedy}, or {otherwise}"
    )
