"""A rough estimate of the time of a round, from data sheets. Nothing was measured on a GPU."""

from dataclasses import dataclass

from lsp_lightning.planning.estimate import Plan
from lsp_lightning.planning.models import shares_prompts, sizes
from lsp_lightning.planning.shapes import rollout_shape


@dataclass(frozen=True)
class Card:
    """The data sheet of a GPU."""

    gib: int
    """Memory in GiB."""
    bandwidth: float
    """Memory bandwidth in bytes per second."""
    flops: float
    """16-bit tensor operations per second, accumulated in 32 bits."""


#: The slower of two common GPUs of each size: 4060 (not 3060 Ti), 3060 (not 4070), 4060 Ti (not
#: T4), 3090 (not 4090).
CARDS = (
    Card(8, 272e9, 30e12),
    Card(12, 360e9, 25e12),
    Card(16, 288e9, 44e12),
    Card(24, 936e9, 71e12),
)

#: Shares of the data sheet that plain PyTorch code usually reaches.
_BANDWIDTH_SHARE, _FLOPS_SHARE = 0.6, 0.3
#: Seconds per decoding step that a layer and its adapters spend on launching small operations.
_LAYER_SECONDS = 1.5e-3
#: Operations of the reference's pass relative to the update's: forward, backward, and usually a
#: recomputed forward.
_REFERENCE_SHARE = 0.33
#: Memory traffic of a 4-bit weight in bytes: reading it (0.5), writing it unpacked (2), and reading
#: that (2).
_PACKED_TRAFFIC = 4.5


def round_seconds(plan: Plan, gpu_gib: float | None) -> float:
    """Rough seconds per round from a data sheet, never checked on a GPU.

    Args:
        plan: the plan of the run.
        gpu_gib: memory of the GPU in GiB, which selects a data sheet; None is 24.
    """
    card = min(CARDS, key=lambda card: abs(card.gib - (gpu_gib or 24)))
    settings = plan.settings
    size, shared = sizes(settings.policy), shares_prompts(settings.policy)
    width = settings.policy.dtype.itemsize if settings.policy.dtype else 4
    traffic = size.parameters * (_PACKED_TRAFFIC if settings.policy.packed else width)
    phases = {phase.name: phase for phase in plan.phases}
    seconds = 0.0
    for phase in plan.phases:
        if settings.rollout(phase.name) is None:
            share = 1 + _REFERENCE_SHARE * (phase.name == "update")
            seconds += share * phase.calls * phase.flops / (card.flops * _FLOPS_SHARE)
    for rollout in settings.rollouts:
        if rollout.name != "held-out" and not rollout.served:
            shape, batches = rollout_shape(rollout, settings.rollout_tokens, shared)
            phase = phases[rollout.name if rollout.name in phases else "answers"]
            reading = (traffic + phase.cache / 2) / (card.bandwidth * _BANDWIDTH_SHARE)
            computing = phase.flops / (card.flops * _FLOPS_SHARE)
            step = max(reading + computing, size.layers * _LAYER_SECONDS)
            seconds += batches * shape.completion * step
    return seconds
