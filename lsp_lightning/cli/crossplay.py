"""``lsp-lightning crossplay``: who takes part, what is printed, and what is written."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsp_lightning.callbacks.progress import say
from lsp_lightning.cli.long_work import progress
from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.evaluation.crossplay import (
    BASE,
    KEY,
    TRAINED,
    Contender,
    CrossPlay,
    Game,
    cross_play,
    require_players,
)
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.start_adapter import check_start_adapter
from lsp_lightning.module import SelfPlayModule
from lsp_lightning.rewards import Reward
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text, writing
from lsp_lightning.text.table import table_lines
from lsp_lightning.text.terminal import escaped, width_of, wrap

#: All adapters that the run has kept, or this many of them, evenly spread.
SNAPSHOTS, _MOST_SNAPSHOTS = "snapshots", 5
_LINES = 6


def contenders(players: Sequence[str] | None, run: RunFolder, rounds: int) -> list[Contender]:
    """The policies that take part, checked before a model is loaded.

    Args:
        players: what the user typed: "base", "trained", "snapshots" or folders of adapters. None
            takes the base, the kept adapters of the run and the trained weights.
        run: the run of the checkpoint.
        rounds: how many rounds the checkpoint has played.

    Raises:
        ConfigError: a folder is not an adapter, or fewer than two policies would play.
    """
    found: list[Contender] = []
    players = [BASE, SNAPSHOTS, TRAINED] if players is None else players
    for player in players:
        if player == BASE:
            found.append(Contender("base", BASE))
        elif player == TRAINED:
            found.append(Contender(f"round {rounds}", TRAINED))
        elif player == SNAPSHOTS:
            kept = run.snapshots()
            if TRAINED in players:
                kept.pop(rounds, None)  # the same weights
            for number in _spread(sorted(kept), _MOST_SNAPSHOTS):
                check_start_adapter(str(kept[number]))
                found.append(Contender(f"round {number}", str(kept[number])))
        else:
            try:
                check_start_adapter(player)
            except ConfigError as error:
                names = f"set {BASE}, {TRAINED}, {SNAPSHOTS} or folders of adapters"
                raise ConfigError(KEY, error.problem, names) from error
            found.append(Contender(_name(Path(player)), player))
    require_players(found)
    return found


def _spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly spread."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[(i + 1) * len(numbers) // (most + 1)] for i in range(most)]


def _name(folder: Path) -> str:
    """A short name: the run's, and the part of it that the folder is."""
    path = folder.resolve()
    if path.parent.name == "snapshots":
        return f"{path.parent.parent.name}, {path.name.replace('-', ' ')}"
    return path.parent.name if path.name == "adapter" else path.name


@dataclass(frozen=True)
class Sizes:
    """How much is played."""

    queries: int
    """Queries of each Challenger."""
    answers: int
    """Answers of each Solver to each query."""


def check(module: SelfPlayModule, data: SelfPlayDataModule, sizes: Sizes) -> list[Reward]:
    """The task rewards that score the answers.

    Raises:
        ConfigError: the run has no Challenger, or so few queries and answers cannot be scored.
    """
    require_at_least(sizes.queries, 2, "queries", "a mean over one query has no error")
    require_at_least(sizes.answers, 1, "answers", "a query needs an answer")
    if not data.queries.selfplay:
        problem = "reads queries from a file, so there is no Challenger"
        remedy = "use a run of self-play, or lsp-lightning evaluate"
        raise ConfigError("data.queries", problem, remedy)
    rewards = [r for r in module.rewards if r.enters == "task" and r.weight != 0]
    comparing = [reward for reward in rewards if reward.needs_group]
    if sizes.answers < 2 and comparing:
        problem = f"is {sizes.answers}, but {comparing[0].name!r} compares answers"
        raise ConfigError("answers", problem, "set 2 or more")
    return rewards


def play(
    policy: Policy,
    rewards: Sequence[Reward],
    data: SelfPlayDataModule,
    who: Sequence[Contender],
    sizes: Sizes,
) -> CrossPlay:
    """Play the game of a run; progress goes to stderr."""
    for reward in rewards:
        reward.connect(FrozenPlayer(policy))
    game = Game(
        source=data.queries,
        rewards=rewards,
        sampling=data.solver,
        solver_prompt=data.solver_prompt,
        passage_prompt=data.passage_prompt,
        num_queries=sizes.queries,
        group_size=sizes.answers,
        seed=data.seed,
    )
    with progress() as told:
        return cross_play(policy, who, game, told)


def as_json(found: CrossPlay, sizes: Sizes) -> dict[str, Any]:
    """The result as plain values; None where nothing could be judged."""
    means, errors = found.matrix
    ratings = found.ratings
    named = None if ratings is None else dict(zip(("solver", "challenger"), ratings, strict=True))
    return {
        "players": list(found.names),
        "n": sizes.queries,
        "group_size": sizes.answers,
        "scale": "solve rate" if found.is_rate else "mean R",
        "solve_rate": [list(map(_plain, row)) for row in means.tolist()],
        "standard_error": [list(map(_plain, row)) for row in errors.tolist()],
        "malformed": found.malformed_K.tolist(),
        "ratings": named and {role: _rated(table) for role, table in named.items()},
        "findings": list(findings(found)),
    }


def _rated(table: Tensor) -> list[dict[str, float]]:
    return [dict(zip(("rating", "low", "high"), row, strict=True)) for row in table.tolist()]


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def write(found: CrossPlay, path: Path, sizes: Sizes) -> None:
    """Write the result as JSON."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, _text(found, sizes))
    say(f"written to {path}")


def _text(found: CrossPlay, sizes: Sizes) -> str:
    return json.dumps(as_json(found, sizes), indent=2, ensure_ascii=False) + "\n"


def lines(found: CrossPlay, width: int) -> Iterator[str]:
    """The matrix, the ratings, and what they say, for a terminal."""
    means, errors = found.matrix
    names = [escaped(name) for name in found.names]
    what = "share of queries solved" if found.is_rate else "mean R"
    yield from wrap(
        f"{what}: a row for each Challenger, a column for each Solver; ± is one standard error",
        width,
        _LINES,
    )
    rows = [
        [name, *(_cell(float(m), float(e)) for m, e in zip(mean, error, strict=True)), f"{bad:.2f}"]
        for name, mean, error, bad in zip(
            names, means, errors, found.malformed_K.tolist(), strict=True
        )
    ]
    yield from table_lines(["queries by", *names, "malformed"], rows, width)
    if found.ratings is not None:
        yield ""
        yield from wrap("Elo ratings with 95 % intervals, relative to the first row", width, _LINES)
        solver, challenger = ([_interval(row) for row in t.tolist()] for t in found.ratings)
        rated = [list(row) for row in zip(names, solver, challenger, strict=True)]
        yield from table_lines(["", "as Solver", "as Challenger"], rated, width)
    yield ""
    for sentence in findings(found):
        yield from wrap(sentence, width, _LINES)


def _cell(mean: float, error: float) -> str:
    return "-" if math.isnan(mean) else f"{mean:.2f} ±{error:.2f}"


def _interval(row: Sequence[float]) -> str:
    rating, low, high = row
    return f"{rating:+.0f} [{low:+.0f}, {high:+.0f}]"


def findings(found: CrossPlay) -> Iterator[str]:
    """Whether the last Challenger is harder, and the last Solver better, than the first."""
    first, last = found.names[0], found.names[-1]
    end = len(found.names) - 1
    change, error = found.challenger_change(0, end, 0)
    if not math.isnan(error):
        verdict = _verdict(-change, error, "harder", "easier")
        yield (
            f"For {first} as Solver the queries of {last} are {verdict} those of {first}: "
            f"{change:+.2f} {_range(change, error)}."
        )
    change, error = found.solver_change(0, end, 0)
    if not math.isnan(error):
        verdict = _verdict(change, error, "better", "worse")
        yield (
            f"At the queries of {first} as Challenger, {last} is {verdict} {first}: "
            f"{change:+.2f} {_range(change, error)}."
        )


def _verdict(gain: float, error: float, more: str, less: str) -> str:
    """The comparison that the 95 % interval of a gain allows."""
    if abs(gain) <= 1.96 * error:
        return f"not clearly {more} or {less} than"
    return f"{more if gain > 0 else less} than"


def _range(change: float, error: float) -> str:
    return f"[{change - 1.96 * error:+.2f}, {change + 1.96 * error:+.2f}]"


def print_result(found: CrossPlay, sizes: Sizes, as_json: bool) -> None:
    """Print the result as JSON, or as tables with what they say."""
    if as_json:
        print(_text(found, sizes), end="")
        return
    for line in lines(found, width_of(sys.stdout) - 1):
        print(line)
