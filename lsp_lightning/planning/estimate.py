"""How much memory each part and each phase of a run takes."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from lsp_lightning.planning import phases as dry
from lsp_lightning.planning.lengths import PlannedRollout
from lsp_lightning.planning.models import shares_prompts, sizes
from lsp_lightning.planning.phases import Cost, Phase, cost
from lsp_lightning.planning.settings import RewardModel, Settings
from lsp_lightning.planning.shapes import Shape, batch_shape, rollout_shape

GIB = 2**30

#: Bytes that CUDA and the workspaces of its libraries take in each process. For consumer GPUs
#: 0.6 to 1 GB are reported.
CONTEXT = {"cuda": int(0.6 * GIB), "cpu": 0}

#: Bytes that the allocator holds per live byte: it rounds sizes up, and gaps remain between blocks.
#: For GPUs 10 to 15 % more are reported. It applies to temporary tensors, not to weights.
FRAGMENTATION = {"cuda": 1.12, "cpu": 1.0}


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a round."""

    name: str
    """The name of the phase."""
    resident: float
    """Bytes that stay during the whole phase."""
    temporary: float
    """Bytes that are allocated and freed during the phase, including the KV cache."""
    cache: float
    """Bytes of ``temporary`` that are the KV cache."""
    calls: int
    """Number of passes in a round, if all were as large as the largest."""
    flops: float
    """Floating-point operations of one of these passes."""

    @property
    def peak(self) -> float:
        """Most bytes at once."""
        return self.resident + self.temporary


@dataclass(frozen=True)
class Plan:
    """The memory of a run."""

    settings: Settings
    """The settings of the run."""
    parts: dict[str, float]
    """Bytes of each permanent part, by name."""
    phases: tuple[PhasePlan, ...]
    """The planned phases."""

    @property
    def largest(self) -> PhasePlan:
        """The phase that takes the most memory."""
        return max(self.phases, key=lambda phase: phase.peak)

    @property
    def peak(self) -> float:
        """Most bytes at once."""
        return self.largest.peak

    @property
    def cache(self) -> float:
        """Bytes of the largest KV cache."""
        return max(phase.cache for phase in self.phases)


@functools.lru_cache(maxsize=256)
def make_plan(settings: Settings, brief: bool = False) -> Plan:
    """The memory that a run with these settings takes.

    Args:
        settings: settings of the run.
        brief: plan only the two phases that usually take the most, the answers and the update.

    Raises:
        ConfigError: a model's config could not be loaded.
        Exception: a model's code needs data to run.
    """
    phases = _phases(settings)
    chosen = [name for name in phases if not brief or name in ("answers", "update")]
    return Plan(settings, _parts(settings), tuple(phases[name]() for name in chosen))


def phase_peak(settings: Settings, name: str) -> float:
    """The peak of one phase in bytes, or that of the answers for a phase that takes less."""
    phases = _phases(settings)
    return phases[name if name in phases else "answers"]().peak


def _phases(settings: Settings) -> dict[str, Callable[[], PhasePlan]]:
    """Functions that plan each phase, by name, in the order of a round."""
    resident = sum(_parts(settings).values())
    found: dict[str, Callable[[], PhasePlan]] = {}
    for rollout in settings.rollouts:
        if rollout.served or (rollout.name != "answers" and _is_less(settings, rollout)):
            continue
        found[rollout.name] = functools.partial(_rollout, settings, rollout, resident)
    for reward in settings.reward_models:
        name = f"judging by {reward.name}"
        found[name] = functools.partial(_scoring, settings, name, reward, resident)
    if settings.judge_prompt:
        found["judging by the reference"] = functools.partial(_judging, settings, resident)
    found["update"] = functools.partial(_learning, settings, resident)
    found["optimiser step"] = functools.partial(_step, settings, resident)
    return found


def _is_less(settings: Settings, rollout: PlannedRollout) -> bool:
    """Whether a rollout has no more prompts, rows or tokens at once than the answers."""
    answers = settings.rollout("answers")
    assert answers is not None
    if answers.served:
        return False
    shared = shares_prompts(settings.policy)
    budget = settings.rollout_tokens
    (this, _), (most, _) = (rollout_shape(r, budget, shared) for r in (rollout, answers))
    prefilled = this.prompts * this.prompt <= most.prompts * most.prompt
    return prefilled and this.rows <= most.rows and this.tokens(shared) <= most.tokens(shared)


def _parts(settings: Settings) -> dict[str, float]:
    size = sizes(settings.policy)
    adapted = settings.policy.adapted
    parts: dict[str, float] = {"weights": size.frozen if adapted else size.frozen + size.trained}
    if adapted:
        parts["adapters"] = size.trained
    else:
        parts["frozen copy"] = size.frozen + size.trained
    parts["gradients"] = size.trained
    parts["optimiser"] = size.trained_parameters * settings.optimizer.bytes_each
    for reward in settings.reward_models:
        if reward.placement == "resident":
            parts[f"reward model {reward.name}"] = sizes(reward.spec).frozen
    if settings.device == "cuda":
        parts["CUDA context"] = CONTEXT["cuda"]
    return parts


def _phase(
    settings: Settings, name: str, resident: float, taken: Cost, calls: int = 1
) -> PhasePlan:
    factor = FRAGMENTATION[settings.device]
    return PhasePlan(name, resident, taken.peak * factor, taken.cache, calls, taken.flops)


def _rollout(settings: Settings, rollout: PlannedRollout, resident: float) -> PhasePlan:
    shared = shares_prompts(settings.policy)
    shape, batches = rollout_shape(rollout, settings.rollout_tokens, shared)
    first = cost(dry.prefill, settings.policy, shape, rollout.sampling)
    last = cost(dry.decode, settings.policy, shape, rollout.sampling)
    taken = Cost(max(first.peak, last.peak), last.cache, last.flops)
    return _phase(settings, rollout.name, resident, taken, batches)


def _scoring(settings: Settings, name: str, reward: RewardModel, resident: float) -> PhasePlan:
    answers = next(r for r in settings.rollouts if r.name == "answers")
    length = min(reward.max_tokens, answers.length)
    count = answers.prompts * answers.draws
    rows = min(count, max(1, settings.pass_tokens // length))
    taken = cost(dry.scoring, reward.spec, Shape(rows, length, 0))
    if reward.placement != "resident":
        resident += sizes(reward.spec).frozen
    if reward.placement == "exclusive":
        resident -= sizes(settings.policy).frozen
    return _phase(settings, name, resident, taken, -(-count // rows))


def _judging(settings: Settings, resident: float) -> PhasePlan:
    """Plan the pass over the judge's prompts; prompts about one query share their start.

    The template's text after the answer cannot be shared. It is planned as if it came before the
    answer.
    """
    answers = next(r for r in settings.rollouts if r.name == "answers")
    before = settings.judge_prompt - answers.sampling.max_new_tokens
    rollout = replace(answers, prompt=before)
    return _passes(
        settings,
        "judging by the reference",
        resident,
        dry.judging,
        (rollout,),
        settings.pass_tokens,
    )


def _learning(settings: Settings, resident: float) -> PhasePlan:
    """Plan the update; the reference's pass over it takes less, because it keeps no activations."""
    trained = tuple(r for r in settings.rollouts if r.name in settings.trained)
    return _passes(settings, "update", resident, dry.update, trained, settings.micro_batch_tokens)


def _passes(
    settings: Settings,
    name: str,
    resident: float,
    phase: Phase,
    rollouts: tuple[PlannedRollout, ...],
    budget: int,
) -> PhasePlan:
    """Plan a phase of passes over these rollouts.

    The plan has the cost of the largest micro-batch, and the number of micro-batches per round.
    """
    shared = shares_prompts(settings.policy)
    shapes = [batch_shape(rollout, budget, shared) for rollout in rollouts]
    # tokens of the pass, plus tokens that attention reads
    shape = max(shapes, key=lambda shape: shape.tokens(shared) + shape.tokens(False))
    tokens = sum(_round_tokens(rollout, shared) for rollout in rollouts)
    calls = max(1, round(tokens / shape.tokens(shared)))
    return _phase(settings, name, resident, cost(phase, settings.policy, shape), calls)


def _round_tokens(rollout: PlannedRollout, shared: bool) -> int:
    """Tokens of all rows, with completions of full length."""
    rows = rollout.prompts * rollout.draws
    new = rollout.sampling.max_new_tokens
    return Shape(rows, rollout.prompt, new, rollout.draws).tokens(shared)


def _step(settings: Settings, resident: float) -> PhasePlan:
    """Plan the optimiser step; torch's optimisers copy the trained weights while they step."""
    temporary = 0.0 if "8bit" in settings.optimizer.name else float(sizes(settings.policy).trained)
    return _phase(settings, "optimiser step", resident, Cost(temporary))
