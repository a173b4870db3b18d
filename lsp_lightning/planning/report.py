"""The plan as text."""

from lsp_lightning.errors import ConfigError
from lsp_lightning.planning.advice import advice
from lsp_lightning.planning.estimate import GIB, Plan, make_plan
from lsp_lightning.planning.models import sizes
from lsp_lightning.planning.settings import Settings
from lsp_lightning.planning.speed import round_seconds

#: Share of a GPU's memory that a run can use: the screen takes some, and the nominal size is not
#: all available.
USABLE = 0.92
#: Parameters below which a plan warns of 4 bits; `fit` measures their cost.
_SMALL = 500_000_000


def plan_or_error(settings: Settings) -> Plan:
    """The plan of these settings.

    Raises:
        ConfigError: a model's config could not be loaded, or its code needs data to run.
    """
    try:
        return make_plan(settings)
    except ConfigError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            "model.base",
            f"{settings.policy.source!r} cannot be planned ({type(error).__name__}: {reason})",
            "run fit without a plan; it halves batches when memory runs out",
        ) from error


def report(settings: Settings, gpu_gib: float | None) -> str:
    """The plan as a table, whether it fits, and what to change if not.

    Args:
        settings: settings of the run.
        gpu_gib: memory of the GPU in GiB; None leaves out whether the run fits.
    """
    plan = plan_or_error(settings)
    dtype = str(settings.policy.dtype).removeprefix("torch.")
    base = f"{settings.policy.source}, {'nf4, ' if settings.policy.packed else ''}{dtype} on a GPU"
    lines = [base, "", *_rows("permanent", plan.parts)]
    lines += ["", *_rows("peak by phase", {p.name: p.peak for p in plan.phases})]
    lines += [f"  largest KV cache: {plan.cache / GIB:.2f} GiB"]
    if settings.optimizer.paged:
        lines.append("  the optimiser state can move to CPU memory")
    lines += [f"  {assumption}" for assumption in settings.assumptions]
    if settings.policy.packed and sizes(settings.policy).parameters < _SMALL:
        lines.append("  4 bits cost a model of this size much (.3 nats a token at 135M parameters)")
    seconds, more = round_seconds(plan, gpu_gib), ""
    if any(rollout.served for rollout in settings.rollouts):
        more = ", without the server's rollouts"
    lines += [
        "",
        f"a round takes roughly {seconds:.0f} s (estimated from a GPU data sheet){more}",
    ]
    if gpu_gib is None:
        return "\n".join([*lines, f"peak: {plan.peak / GIB:.1f} GiB; check a GPU with --gpu_gib 8"])
    room = USABLE * gpu_gib * GIB - plan.peak
    if room >= 0:
        return "\n".join([*lines, f"fits on {gpu_gib:g} GiB: yes, {room / GIB:.1f} GiB to spare"])
    lines.append(
        f"fits on {gpu_gib:g} GiB: no, {-room / GIB:.1f} GiB too much in {plan.largest.name}"
    )
    return "\n".join([*lines, *advice(plan, USABLE * gpu_gib * GIB)])


def line(settings: Settings) -> str:
    """The plan in one line, from the two phases that usually take the most memory."""
    plan = make_plan(settings, brief=True)
    parts = ", ".join(f"{name} {_short(size)}" for name, size in plan.parts.items())
    return (
        f"memory: about {_short(plan.peak)} at most ({plan.largest.name}): {parts}, "
        f"KV cache {_short(plan.cache)}"
    )


def _short(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.0f} MiB"


def _rows(title: str, sizes: dict[str, float]) -> list[str]:
    width = max(map(len, [title, *sizes])) + 2
    rows = [f"  {name:<{width}}{size / GIB:6.2f}" for name, size in sizes.items()]
    return [f"{title:<{width + 2}}{'GiB':>6}", *rows]
