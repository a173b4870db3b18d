"""Transcripts: every query and answer of a run with its rewards, as Parquet."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.datamodule import rounds_played
from lsp_lightning.errors import WriteError, require_at_least
from lsp_lightning.rewards.scoring import unfilled
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.transcripts import OPEN_SHARD, open_row
from lsp_lightning.runs.writing import replacing, set_aside, write_text, writing
from lsp_lightning.types import Playout, SelfPlayRound

#: Number of rounds in one Parquet file.
_SHARD_ROUNDS = 100


class Transcripts(Callback):
    """Writes ``transcripts/*.parquet``, one row for each answer and for each refused query.

    Parquet files cannot be appended to, so the newest rounds are JSON lines until there are enough
    for a Parquet file.

    Args:
        every: keep every n-th round; 1 keeps all, 0 keeps none.
    """

    def __init__(self, every: int = 1) -> None:
        require_at_least(every, 0, "transcripts.every", "0 already keeps none")
        self.every = every
        self._kept = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop an interrupted run's rows for rounds that will be played again."""
        if self.every and trainer.is_global_zero:
            folder = _folder(trainer)
            folder.mkdir(parents=True, exist_ok=True)
            _forget_from(folder, rounds_played(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append the round, and close the shard when it is full."""
        if not self.every or batch.index % self.every or not trainer.is_global_zero:
            return
        with writing(_folder(trainer)):
            with _open_shard(trainer).open("a", encoding="utf-8") as file:
                for row in (*rows(batch), *refused_rows(batch)):
                    file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            self._kept += 1
            if self._kept % _SHARD_ROUNDS == 0:
                close_shard(_folder(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last shard."""
        if self.every and trainer.is_global_zero:
            with writing(_folder(trainer)):
                close_shard(_folder(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the last shard, so that all files are Parquet; a full disk leaves it open."""
        with suppress(WriteError):
            self.on_train_end(trainer, pl_module)


def rows(played: SelfPlayRound) -> Iterator[dict[str, Any]]:
    """One row of plain values for each answer of the round.

    Texts are whole. Where a model has thought, ``judged_answer`` is the answer without the
    thinking, and ``written_query`` the query with it.
    """
    playout = played.playout
    known = {"R": unfilled(played, "task"), "Q": unfilled(played, "quality")}
    written, place = _written_queries(playout), _places(played)
    for i, (query, answers, judged) in enumerate(
        zip(playout.query_texts, playout.answer_groups(), playout.spoken_groups(), strict=True)
    ):
        info = {f"query/{name}": values[i] for name, values in played.query_info.items()}
        passage = playout.passage(i)
        for j, answer in enumerate(answers):
            yield {
                "round": played.index,
                "number": i,
                "query": query,
                "valid": bool(playout.valid_N[i]),
                **place[i],
                **info,
                **({"written_query": written[i]} if i in written else {}),
                **({} if passage is None else {"passage": passage}),
                "answer": answer,
                **({} if judged[j] == answer else {"judged_answer": judged[j]}),
                **{
                    f"reward/{name}": float(scores[i, j] if scores.dim() == 2 else scores[i])
                    for name, scores in played.components.items()
                },
                **{name: None if x is None else float(x[i, j]) for name, x in known.items()},
            }


def _places(played: SelfPlayRound) -> list[dict[str, Any]]:
    """Where each query came from, and whether it entered training, if that varies."""
    playout, refused = played.playout, _played_though_refused(played.playout)
    found: list[dict[str, Any]] = [{} for _ in playout.query_texts]
    for i, row in enumerate(found):
        if playout.written is not None and not playout.written_N.all():
            row["replayed"] = bool(playout.replayed_N[i])
        if playout.past:
            row["past"] = i in playout.past
        if played.admitted_N is not None:
            row["admitted"] = bool(played.admitted_N[i])
        if i in refused:
            row["refused"] = refused[i]
    return found


def _played_though_refused(playout: Playout) -> dict[int, str]:
    """Why the gate refused a query that is played because no other was left, by query."""
    if playout.written is None:
        return {}
    answered = playout.written.answered_C.tolist()
    refused = playout.written.refused.items()
    return {answered[row]: found.reason for row, found in refused if answered[row] >= 0}


def refused_rows(played: SelfPlayRound) -> Iterator[dict[str, Any]]:
    """One row for each query that the gate refused and nobody answered."""
    written = played.playout.written
    if written is None:
        return
    place = {"admitted": False}
    if not played.playout.written_N.all():
        place["replayed"] = False
    if played.playout.past:
        place["past"] = False
    for row, found in written.refused.items():
        if int(written.answered_C[row]) >= 0:
            continue
        text, spoken = written.rollouts.texts[row], written.rollouts.spoken[row]
        yield {
            "round": played.index,
            "number": None,
            "query": found.text,
            "valid": bool(written.valid_C[row]),
            **place,
            "refused": found.reason,
            **({} if text == spoken else {"written_query": text}),
            "answer": None,
        }


def _written_queries(playout: Playout) -> dict[int, str]:
    """The whole text of each query that the Challenger wrote with thinking, by query."""
    if playout.written is None:
        return {}
    rollouts, rows = playout.written.rollouts, playout.written.answered_C.tolist()
    texts = zip(rows, rollouts.texts, rollouts.spoken, strict=True)
    return {i: text for i, text, spoken in texts if i >= 0 and text != spoken}


def close_shard(folder: Path) -> None:
    """Turn the open shard into a Parquet file named after its first round."""
    shard = folder / OPEN_SHARD
    if not shard.is_file():
        return
    lines = _read(shard)
    if lines:
        try:
            table = pa.Table.from_pylist(_aligned(lines))
        except (pa.ArrowException, TypeError, OverflowError):  # lines that another program wrote
            set_aside(shard)
            return
        _write(table, folder / f"rounds-{lines[0]['round']:06d}.parquet")
    shard.unlink(missing_ok=True)


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as partial:
        pq.write_table(table, partial)


def _forget_from(folder: Path, first_round: int) -> None:
    """Delete all rows of ``first_round`` and later, from the open shard and the closed ones.

    A damaged file is set aside: training does not need it.
    """
    for path in sorted(folder.glob("rounds-*.parquet")):
        try:
            table = pq.read_table(path)
            kept = table.filter(pa.compute.less(table["round"], first_round))
        except Exception:  # damaged bytes may raise anything
            set_aside(path)
            continue
        if kept.num_rows == 0:
            path.unlink()
        elif kept.num_rows < table.num_rows:
            _write(kept, path)
    shard = folder / OPEN_SHARD
    if shard.is_file():
        lines = [line for line in _read(shard) if line["round"] < first_round]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(shard, text)


def _read(shard: Path) -> list[dict[str, Any]]:
    """Rows of an open shard, without a last line that a crash cut off.

    If other lines are damaged, the file is set aside, and the whole lines are returned.
    """
    found = []
    # not splitlines: an answer may contain other line separators
    lines = shard.read_bytes().removesuffix(b"\n").split(b"\n")
    damaged = False
    for i, line in enumerate(lines if lines != [b""] else []):
        row = open_row(line)
        if row is not None:
            found.append(row)
        elif i < len(lines) - 1:
            damaged = True
    if damaged:
        set_aside(shard)
    return found


def _aligned(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give all rows the same columns; a column of several types becomes text."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    mixed = {
        name
        for name in names
        if len({type(line[name]) for line in lines if line.get(name) is not None}) > 1
    }

    def cell(line: dict[str, Any], name: str) -> Any:
        value = line.get(name)
        return str(value) if name in mixed and value is not None else value

    return [{name: cell(line, name) for name in names} for line in lines]


def _folder(trainer: Trainer) -> Path:
    return RunFolder(trainer.default_root_dir).transcripts_path


def _open_shard(trainer: Trainer) -> Path:
    return _folder(trainer) / OPEN_SHARD
