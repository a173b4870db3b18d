"""A rough guess of a round's time, from data sheets. Nothing here was measured on a GPU."""

from dataclasses import dataclass

from lsp_lightning.planning.estimate import Plan
from lsp_lightning.planning.models import shares_prompts, sizes
from lsp_lightning.planning.shapes import rollout_shape


@dataclass(frozen=True)
class Card:
    """A card's data sheet."""

    gib: int
    """Memory."""
    bandwidth: float
    """Bytes a second between memory and cores."""
    flops: float
    """16-bit tensor operations a second with sums in 32 bits."""


#: The slower of two common cards of each size: 4060 (and 3060 Ti), 3060 (and 4070), 4060 Ti (and
#: T4), 3090 (and 4090).
CARDS = (
    Card(8, 272e9, 30e12),
    Card(12, 360e9, 25e12),
    Card(16, 288e9, 44e12),
    Card(24, 936e9, 71e12),
)

#: What is reached of the data sheet by plain PyTorch code, as is commonly seen.
_BANDWIDTH_SHARE, _FLOPS_SHARE = 0.6, 0.3
#: Seconds that the many small operations of a layer and its adapters wait for Python, a step.
_LAYER_SECONDS = 1.5e-3
#: The reference's pass beside the policy's forward, backward and, mostly, second forward.
_REFERENCE_SHARE = 0.33
#: A packed weight is read in half a byte, and written and read again in two when it is unpacked.
_PACKED_TRAFFIC = 4.5


def round_seconds(plan: Plan, gpu_gib: float | None) -> float:
    """Seconds of a round, roughly: within a factor of two or three.

    Args:
        plan: of the run.
        gpu_gib: memory of the card, by which one is chosen; None is 24.
    """
    card = min(CARDS, key=lambda card: abs(card.gib - (gpu_gib or 24)))
    settings = plan.settings
    own, shared = sizes(settings.policy), shares_prompts(settings.policy)
    width = settings.policy.dtype.itemsize if settings.policy.dtype else 4
    traffic = own.parameters * (_PACKED_TRAFFIC if settings.policy.packed else width)
    phases = {phase.name: phase for phase in plan.phases}
    seconds = 0.0
    for phase in plan.phases:
        if settings.rollout(phase.name) is None:
            share = 1 + _REFERENCE_SHARE * (phase.name == "update")
            seconds += share * phase.calls * phase.flops / (card.flops * _FLOPS_SHARE)
    for rollout in settings.rollouts:
        if rollout.name != "held-out" and not rollout.elsewhere:
            shape, batches = rollout_shape(rollout, settings.rollout_tokens, shared)
            phase = phases[rollout.name if rollout.name in phases else "answers"]
            reading = (traffic + phase.cache / 2) / (card.bandwidth * _BANDWIDTH_SHARE)
            computing = phase.flops / (card.flops * _FLOPS_SHARE)
            step = max(reading + computing, own.layers * _LAYER_SECONDS)
            seconds += batches * shape.completion * step
    return seconds
