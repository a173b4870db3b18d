"""What a round and a held-out set tell, as torchmetrics that average over processes."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lsp_lightning.functional import dead_groups, query_values
from lsp_lightning.selfplay import Advantages
from lsp_lightning.types import SelfPlayRound
from lsp_lightning.update import UpdateFacts


class Means(nn.Module):
    """Means by name, made when a name is first seen; NaN does not count."""

    def __init__(self) -> None:
        super().__init__()
        self._means = nn.ModuleDict()
        # moves with the module, so that new metrics are made where processes can exchange them
        self.register_buffer("_place", torch.zeros(()), persistent=False)
        self._place: Tensor

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        """Take in one value, or a tensor of values, for each name."""
        for name, value in values.items():
            tensor = torch.as_tensor(value, dtype=torch.float32)
            if not tensor.isnan().all():
                self._mean(name).update(tensor.to(self._place.device))

    def compute(self) -> dict[str, Tensor]:
        """The means over all processes of what was taken in since the last call."""
        result = {}
        for name in self._names():
            metric = self._mean(name)
            with warnings.catch_warnings():  # a name that only other processes have seen
                warnings.filterwarnings("ignore", message=".*before the ``update`` method.*")
                result[name] = metric.compute()
            metric.reset()
        return result

    def _mean(self, name: str) -> MeanMetric:
        name = name.replace(".", "_")  # no module may have a dot in its name
        if name not in self._means:
            self._means[name] = MeanMetric(nan_strategy="ignore").to(self._place.device)
        metric = self._means[name]
        assert isinstance(metric, MeanMetric)
        return metric

    def _names(self) -> list[str]:
        """Names that any process has seen since the last call, in one order for all of them."""
        own = [name for name in self._means if self._mean(name).update_called]
        if not dist.is_available() or not dist.is_initialized():
            return own
        everybodys: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(everybodys, own)
        return sorted({name for names in everybodys for name in names})


def pass_at_k(solved: Tensor, k: int) -> Tensor:
    """Chance that one of k draws solves it, from n draws each: ``1 - C(n-c, k) / C(n, k)``.

    The unbiased estimate of arXiv 2107.03374. (tasks, n) of 0 and 1 -> (tasks,).
    """
    n = solved.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs 1 <= k <= {n} draws")
    correct = solved.sum(dim=1, keepdim=True)
    places = torch.arange(n - k + 1, n + 1, dtype=solved.dtype, device=solved.device)
    return 1 - (1 - correct / places).clamp_min(0).prod(dim=1)


def round_metrics(
    played: SelfPlayRound,
    advantages: Advantages,
    facts: UpdateFacts,
    gradient_norm: Tensor,
    seconds: Mapping[str, float],
) -> dict[str, Tensor | float]:
    """All that is logged of a round, by name; ``seconds`` is wall time by phase."""
    judged_N = played.judged_N
    rewards_NG = played.rewards_NG[judged_N]
    values_N = query_values(rewards_NG)
    metrics: dict[str, Tensor | float] = {
        "loss": facts.loss,
        "reward": rewards_NG,
        "value": values_N,
        "value_std": values_N.std(unbiased=False),
        "dead_groups": dead_groups(_solver_total(played)[judged_N]).float(),
        "advantage_std/solver": advantages.solver_NG.std(unbiased=False),
        "gradient_norm": gradient_norm,
        "skipped": float(not torch.isfinite(gradient_norm)),
        "tokens_per_second": _sampled_tokens(played) / sum(seconds.values()),
        **{f"seconds/{phase}": s for phase, s in seconds.items()},
    }
    if played.quality_NG is not None:
        metrics["quality"] = played.quality_NG[judged_N]
    if advantages.challenger_N is not None:
        metrics["advantage_std/challenger"] = advantages.challenger_N.std(unbiased=False)
    for role, rows in facts.roles.items():
        metrics[f"kl/{role}"] = facts.log_ratio_R[rows]
        metrics[f"entropy/{role}"] = facts.entropy_R[rows]
    metrics |= facts.importance
    metrics |= _text_metrics(played)
    for name, scores in played.components.items():
        metrics[f"reward/{name}"] = scores
        metrics[f"unjudged/{name}"] = scores.isnan().float()
    told: dict[str, Tensor | float] = dict(played.reward_metrics)
    for name, values in played.query_facts.items():
        told |= fact_metrics(name, values)
    return told | metrics  # what rewards call their facts never hides what is measured here


def fact_metrics(name: str, values: Sequence[object]) -> dict[str, float]:
    """The mean of numbers and truths; of texts the entropy of their shares, in nats."""
    known = [value for value in values if value is not None]
    if not known:
        return {}
    if all(isinstance(value, bool | int | float) for value in known):
        return {f"queries/{name}": sum(map(float, known)) / len(known)}  # type: ignore[arg-type]
    shares = torch.tensor(list(Counter(map(str, known)).values()), dtype=torch.float32) / len(known)
    return {f"queries/{name}_entropy": float(torch.special.entr(shares).sum())}


def _text_metrics(played: SelfPlayRound) -> dict[str, Tensor | float]:
    playout = played.playout
    texts = playout.query_texts
    metrics: dict[str, Tensor | float] = {
        "queries/invalid": 1 - playout.valid_N.float(),
        "queries/duplicate": 1 - len(set(texts)) / len(texts),
        "queries/characters": torch.tensor([float(len(text)) for text in texts]),
        "answers/tokens": playout.answers.completion_mask.sum(1).float(),
        "answers/truncated": playout.answers.truncated.float(),
    }
    if playout.queries is not None:
        metrics["queries/tokens"] = playout.queries.completion_mask.sum(1).float()
        metrics["queries/truncated"] = playout.queries.truncated.float()
    return metrics


def _solver_total(played: SelfPlayRound) -> Tensor:
    if played.quality_NG is None:
        return played.rewards_NG
    return played.rewards_NG + played.quality_NG


def _sampled_tokens(played: SelfPlayRound) -> int:
    """Tokens that the engine drew for this round."""
    playout = played.playout
    rollouts = [r for r in (playout.queries, playout.answers) if r is not None]
    return sum(int(r.completion_mask.sum()) for r in rollouts)
