"""What each part and phase of a run takes of a device's memory."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from lsp_lightning.planning import phases as dry
from lsp_lightning.planning.lengths import Rollout
from lsp_lightning.planning.models import shares_prompts, sizes
from lsp_lightning.planning.phases import Cost, Phase, cost
from lsp_lightning.planning.settings import RewardModel, Settings
from lsp_lightning.planning.shapes import Shape, batch_shape, rollout_shape

GIB = 2**30

#: What CUDA itself takes in each process, with the workspaces of its libraries: 0.6 to 1 GB are
#: reported for consumer cards.
CONTEXT = {"cuda": int(0.6 * GIB), "cpu": 0}

#: What the allocator holds above what lives: sizes are rounded up, and gaps remain between blocks.
#: 10 to 15 % are reported for GPUs; it touches what comes and goes, not the weights.
FRAGMENTATION = {"cuda": 1.12, "cpu": 1.0}


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a round."""

    name: str
    """What happens."""
    resident: float
    """Bytes that are there all the time."""
    passing: float
    """Bytes that come and go, the KV cache included."""
    cache: float
    """Bytes of these that are the KV cache."""
    calls: int
    """How often the largest pass is made in a round."""
    flops: float
    """Floating-point operations of one."""

    @property
    def peak(self) -> float:
        """Bytes at once, at most."""
        return self.resident + self.passing


@dataclass(frozen=True)
class Plan:
    """What a run takes."""

    settings: Settings
    """Of what."""
    parts: dict[str, float]
    """Bytes of each part that stays, by name."""
    phases: tuple[PhasePlan, ...]
    """The phases of a round."""

    @property
    def largest(self) -> PhasePlan:
        """The phase that takes most."""
        return max(self.phases, key=lambda phase: phase.peak)

    @property
    def peak(self) -> float:
        """Bytes at once, at most."""
        return self.largest.peak

    @property
    def cache(self) -> float:
        """Bytes of the largest KV cache."""
        return max(phase.cache for phase in self.phases)


@functools.lru_cache(maxsize=256)
def make_plan(settings: Settings, brief: bool = False) -> Plan:
    """What a run with these settings takes.

    Args:
        settings: of the run.
        brief: only the two phases that mostly take most, the answers and the update.

    Raises:
        ConfigError: a model's config cannot be had.
        Exception: a model's code cannot be run without its data.
    """
    phases = _phases(settings)
    chosen = [name for name in phases if not brief or name in ("answers", "update")]
    return Plan(settings, _parts(settings), tuple(phases[name]() for name in chosen))


def phase_peak(settings: Settings, name: str) -> float:
    """The peak of one phase alone, in bytes; of the answers, where it takes less than they do."""
    phases = _phases(settings)
    return phases[name if name in phases else "answers"]().peak


def _phases(settings: Settings) -> dict[str, Callable[[], PhasePlan]]:
    """What plans each phase, by its name, in the order of a round."""
    stays = sum(_parts(settings).values())
    found: dict[str, Callable[[], PhasePlan]] = {}
    for rollout in settings.rollouts:
        if rollout.elsewhere or (rollout.name != "answers" and _is_less(settings, rollout)):
            continue
        found[rollout.name] = functools.partial(_rollout, settings, rollout, stays)
    for reward in settings.reward_models:
        name = f"judging by {reward.name}"
        found[name] = functools.partial(_scoring, settings, name, reward, stays)
    if settings.judge_prompt:
        found["judging by the reference"] = functools.partial(_judging, settings, stays)
    found["update"] = functools.partial(_learning, settings, stays)
    found["optimiser step"] = functools.partial(_step, settings, stays)
    return found


def _is_less(settings: Settings, rollout: Rollout) -> bool:
    """Whether a rollout has no more of anything than that of the answers: then it takes no more."""
    answers = settings.rollout("answers")
    assert answers is not None
    if answers.elsewhere:
        return False
    shared = shares_prompts(settings.policy)
    budget = settings.rollout_tokens
    (own, _), (most, _) = (rollout_shape(r, budget, shared) for r in (rollout, answers))
    prefilled = own.prompts * own.prompt <= most.prompts * most.prompt
    return prefilled and own.rows <= most.rows and own.tokens(shared) <= most.tokens(shared)


def _parts(settings: Settings) -> dict[str, float]:
    own = sizes(settings.policy)
    adapted = settings.policy.adapted
    parts: dict[str, float] = {"weights": own.frozen if adapted else own.frozen + own.trained}
    if adapted:
        parts["adapters"] = own.trained
    else:
        parts["frozen copy"] = own.frozen + own.trained
    parts["gradients"] = own.trained
    parts["optimiser"] = own.trained_parameters * settings.optimizer.bytes_each
    for reward in settings.reward_models:
        if reward.placement == "resident":
            parts[f"reward model {reward.name}"] = sizes(reward.spec).frozen
    if settings.device == "cuda":
        parts["CUDA context"] = CONTEXT["cuda"]
    return parts


def _phase(settings: Settings, name: str, stays: float, taken: Cost, calls: int = 1) -> PhasePlan:
    factor = FRAGMENTATION[settings.device]
    return PhasePlan(name, stays, taken.peak * factor, taken.cache, calls, taken.flops)


def _rollout(settings: Settings, rollout: Rollout, stays: float) -> PhasePlan:
    shared = shares_prompts(settings.policy)
    shape, batches = rollout_shape(rollout, settings.rollout_tokens, shared)
    first = cost(dry.prefill, settings.policy, shape, rollout.sampling)
    last = cost(dry.decode, settings.policy, shape, rollout.sampling)
    taken = Cost(max(first.peak, last.peak), last.cache, last.flops)
    return _phase(settings, rollout.name, stays, taken, batches)


def _scoring(settings: Settings, name: str, reward: RewardModel, stays: float) -> PhasePlan:
    answers = next(r for r in settings.rollouts if r.name == "answers")
    length = min(reward.max_tokens, answers.length)
    count = answers.prompts * answers.draws
    rows = min(count, max(1, reward.batch_tokens // length))
    taken = cost(dry.scoring, reward.spec, Shape(rows, length, 0))
    if reward.placement != "resident":
        stays += sizes(reward.spec).frozen
    if reward.placement == "exclusive":
        stays -= sizes(settings.policy).frozen
    return _phase(settings, name, stays, taken, -(-count // rows))


def _judging(settings: Settings, stays: float) -> PhasePlan:
    """A judge's prompts: what stands before the answer is taken to be shared by those to a query.

    Conservative, for they also end alike, which nothing can share.
    """
    answers = next(r for r in settings.rollouts if r.name == "answers")
    before = settings.judge_prompt - answers.sampling.max_new_tokens
    rollout = replace(answers, prompt=before)
    return _passes(
        settings, "judging by the reference", stays, dry.judging, (rollout,), settings.pass_tokens
    )


def _learning(settings: Settings, stays: float) -> PhasePlan:
    """The largest micro-batch; the reference's pass over it takes less, for it keeps nothing."""
    trained = tuple(r for r in settings.rollouts if r.name in settings.trained)
    return _passes(settings, "update", stays, dry.update, trained, settings.micro_batch_tokens)


def _passes(
    settings: Settings,
    name: str,
    stays: float,
    phase: Phase,
    rollouts: tuple[Rollout, ...],
    budget: int,
) -> PhasePlan:
    """Micro-batches over rollouts; the largest, and how many like it hold the round's tokens."""
    shared = shares_prompts(settings.policy)
    shapes = [batch_shape(rollout, budget, shared) for rollout in rollouts]
    # what goes through the model, and what attention reads
    shape = max(shapes, key=lambda shape: shape.tokens(shared) + shape.tokens(False))
    tokens = sum(_round_tokens(rollout, shared) for rollout in rollouts)
    calls = max(1, round(tokens / shape.tokens(shared)))
    return _phase(settings, name, stays, cost(phase, settings.policy, shape), calls)


def _round_tokens(rollout: Rollout, shared: bool) -> int:
    """Tokens of all completions of full length."""
    rows = rollout.prompts * rollout.draws
    new = rollout.sampling.max_new_tokens
    return Shape(rows, rollout.prompt, new, rollout.draws).tokens(shared)


def _step(settings: Settings, stays: float) -> PhasePlan:
    """The optimiser: torch's own hold another copy of what is trained meanwhile."""
    passing = 0.0 if "8bit" in settings.optimizer.name else float(sizes(settings.policy).trained)
    return _phase(settings, "optimiser step", stays, Cost(passing))
