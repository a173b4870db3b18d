"""Which settings to change if a run does not fit."""

from collections.abc import Iterator
from dataclasses import replace

from lsp_lightning.planning.estimate import GIB, Plan, make_plan, phase_peak
from lsp_lightning.planning.settings import Optimizer, Settings

#: The state of bitsandbytes' 8-bit AdamW: two bytes per number, and for every 256 numbers two
#: float32 scales.
_ADAM_8BIT = Optimizer("PagedAdamW8bit", 2 + 2 * 4 / 256, True)

#: Smallest share of the peak that a suggested change must save.
_LEAST = 0.01
_MOST_LINES = 8


def advice(plan: Plan, room: float) -> list[str]:
    """Lines that say what to set, the largest saving first, until the run fits.

    Args:
        plan: a plan that does not fit.
        room: available bytes.
    """
    lines: list[str] = []
    while plan.peak > room and len(lines) < _MOST_LINES:
        name, least = plan.largest.name, (1 - _LEAST) * plan.peak
        # a change must help the largest phase, so the other phases are not computed
        tried = [
            (phase_peak(changed, name), text, changed) for text, changed in changes(plan.settings)
        ]
        helping = sorted((t for t in tried if t[0] <= least), key=lambda t: t[0])
        plans = [(text, make_plan(changed)) for _, text, changed in helping[:2]]
        if not plans:
            break
        text, better = min(plans, key=lambda pair: pair[1].peak)
        if better.peak > least:
            break
        lines.append(f"  set {text}: {plan.peak / GIB:.1f} -> {better.peak / GIB:.1f} GiB")
        plan = better
    if plan.peak > room:
        lines.append("  these settings cannot save enough: use a smaller model, or a larger GPU")
    return lines


def changes(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Every single change that may help, as text and as changed settings."""
    policy = settings.policy
    longest = max(r.length for r in settings.rollouts)
    if settings.micro_batch_tokens // 2 >= longest:
        half = settings.micro_batch_tokens // 2
        changed = replace(settings, micro_batch_tokens=half, pass_tokens=2 * half)
        yield f"model.micro_batch_tokens {half}", changed
    if not policy.checkpointing:
        changed = replace(settings, policy=replace(policy, checkpointing=True))
        yield "model.activation_checkpointing true", changed
    if settings.rollout_tokens // 2 >= longest:
        here = [r for r in settings.rollouts if not r.served]
        rows = sum(r.length * r.prompts * r.draws for r in here)
        half = min(settings.rollout_tokens, rows) // 2
        if half >= longest:
            yield f"model.rollouts.tokens {half}", replace(settings, rollout_tokens=half)
    if not policy.packed and policy.adapted:
        changed = replace(settings, policy=replace(policy, packed=True))
        yield "model.quantization nf4", changed
    if policy.adapted and settings.optimizer.bytes_each > 4:
        yield (
            "model.optimizer bitsandbytes.optim.PagedAdamW8bit",
            replace(settings, optimizer=_ADAM_8BIT),
        )
    yield from _of_reward_models(settings)
    yield from _of_lengths(settings)


def _of_reward_models(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Reward models in 4 bits, or in CPU memory while they do not judge."""
    for i, reward in enumerate(settings.reward_models):
        changes = []
        if not reward.spec.packed:
            packed = replace(reward, spec=replace(reward.spec, packed=True))
            changes.append(("quantization nf4", packed))
        for placement in ("offload", "exclusive"):
            if reward.placement not in (placement, "exclusive"):
                moved = replace(reward, placement=placement)
                changes.append((f"placement {placement}", moved))
        for text, changed in changes:
            models = (*settings.reward_models[:i], changed, *settings.reward_models[i + 1 :])
            yield f"{text} of reward {reward.name!r}", replace(settings, reward_models=models)


def _of_lengths(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Shorter answers. They change what is learned; at equal memory other changes are preferred."""
    answers = settings.rollout("answers")
    assert answers is not None
    new = answers.sampling.max_new_tokens
    if new < 128:
        return
    half = new // 2
    rollouts = tuple(
        replace(r, sampling=replace(r.sampling, max_new_tokens=half)) if r.key == answers.key else r
        for r in settings.rollouts
    )
    judge_prompt = settings.judge_prompt and settings.judge_prompt - (new - half)
    yield f"{answers.key} {half}", replace(settings, rollouts=rollouts, judge_prompt=judge_prompt)
