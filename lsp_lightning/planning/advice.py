"""What to change first where a run does not fit."""

from collections.abc import Iterator
from dataclasses import replace

from lsp_lightning.planning.estimate import GIB, Plan, make_plan, phase_peak
from lsp_lightning.planning.settings import Optimizer, Settings

#: Bytes that bitsandbytes' 8-bit AdamW keeps of each number: two states of a byte each, and a
#: float32 scale of each for every 256 numbers.
_ADAM_8BIT = Optimizer("PagedAdamW8bit", 2 + 2 * 4 / 256, True)

#: A change that saves less than this share of the peak is not worth a line.
_LEAST = 0.01
_MOST_LINES = 8


def advice(plan: Plan, room: float) -> list[str]:
    """Lines that say what to set, the greatest saving first, until it fits.

    Args:
        plan: one that does not fit.
        room: bytes that there are.
    """
    lines: list[str] = []
    while plan.peak > room and len(lines) < _MOST_LINES:
        name, least = plan.largest.name, (1 - _LEAST) * plan.peak
        # what does not help the largest phase does not help: the others need not be looked at
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
        lines.append("  more than these settings can save: use a smaller model, or a larger card")
    return lines


def changes(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Every single change that may help, and the settings with it."""
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
        here = [r for r in settings.rollouts if not r.elsewhere]
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
    for i, reward in enumerate(settings.reward_models):

        def changed(i: int = i, **how: object) -> Settings:
            models = list(settings.reward_models)
            models[i] = replace(models[i], **how)  # type: ignore[arg-type]
            return replace(settings, reward_models=tuple(models))

        if not reward.spec.packed:
            yield (
                f"quantization nf4 of reward {reward.name!r}",
                changed(spec=replace(reward.spec, packed=True)),
            )
        for placement in ("offload", "exclusive"):
            if reward.placement not in (placement, "exclusive"):
                yield (
                    f"placement {placement} of reward {reward.name!r}",
                    changed(placement=placement),
                )
        if reward.batch_tokens // 2 >= reward.max_tokens:
            half = reward.batch_tokens // 2
            yield f"batch_tokens {half} of reward {reward.name!r}", changed(batch_tokens=half)


def _of_lengths(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Shorter answers and smaller groups: they change what is learned, so they come last."""
    answers = settings.rollout("answers")
    assert answers is not None
    if answers.sampling.max_new_tokens >= 128:
        half = answers.sampling.max_new_tokens // 2
        saved = answers.sampling.max_new_tokens - half

        def shorter(key: str) -> tuple[object, ...]:
            return tuple(
                replace(r, sampling=replace(r.sampling, max_new_tokens=half)) if r.key == key else r
                for r in settings.rollouts
            )

        judge = settings.judge_prompt and settings.judge_prompt - saved
        rollouts = shorter(answers.key)
        yield (
            f"{answers.key} {half}",
            replace(settings, rollouts=rollouts, judge_prompt=judge),  # type: ignore[arg-type]
        )
