"""Means of metrics: every value counts once, NaN never, over one process and over two."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from lsp_lightning.runtime.means import Means
from lsp_lightning.training.metrics import info_metrics

NAN = float("nan")


def test_a_mean_counts_every_value_once():
    means = Means()
    means.update({"a": 1.0, "b": torch.tensor([[1.0, 2.0], [3.0, 6.0]])})
    means.update({"a": torch.tensor([2.0, 6.0])})
    assert {name: mean.item() for name, mean in means.compute().items()} == {"a": 3.0, "b": 3.0}


def test_nan_values_are_ignored():
    means = Means()
    means.update({"some": torch.tensor([1.0, NAN, 3.0]), "none": torch.tensor([NAN, NAN])})
    means.update({"some": NAN, "late": NAN})
    means.update({"late": 5.0})
    assert {name: mean.item() for name, mean in means.compute().items()} == {
        "some": 2.0,
        "late": 5.0,
    }


def test_compute_resets_the_means():
    means = Means()
    means.update({"a": 1.0, "b": 1.0})
    means.compute()
    means.update({"a": 3.0})
    assert {name: mean.item() for name, mean in means.compute().items()} == {"a": 3.0}
    assert means.compute() == {}


def test_the_mean_of_nothing_but_nan_is_nan_where_it_is_kept():
    means = Means(keep_nan=True)
    means.update({"a.b": 1.0, "c": NAN, "d": torch.tensor([])})
    found = means.compute()
    assert found["a_b"] == 1
    assert found["c"].isnan()
    assert found["d"].isnan()
    means.update({"a.b": NAN})
    [found] = means.compute().values()
    assert found.isnan()
    means.update({"c": 2.0})
    assert means.compute() == {"c": 2.0}


def test_names_may_have_dots_and_slashes():
    means = Means()
    means.update({"reward/a.b": 2.0})
    assert [mean.item() for mean in means.compute().values()] == [2.0]


def one_of_two_processes(rank: int, folder: str) -> None:
    """Means over two processes, of which only the first has a value for a level."""
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=20),
    )
    means = Means()
    means.update({"value": float(rank)})
    means.update(info_metrics("level", (None, None) if rank else (1, 2)))
    means.update({"z": 10.0 + rank})
    found = {name: mean.item() for name, mean in means.compute().items()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_name_that_only_one_process_has_blocks_nothing_and_shifts_no_other_mean(tmp_path):
    # in one process all queries are malformed, so it has no level
    torch.multiprocessing.spawn(one_of_two_processes, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["value"] == pytest.approx(0.5)
        assert found["z"] == pytest.approx(10.5)
        assert found.get("queries/level", 1.5) == pytest.approx(1.5)
