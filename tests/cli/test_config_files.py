"""Config files are read before anything is imported that takes time."""

import re

import pytest

from lsp_lightning.cli.main import check_config_files
from lsp_lightning.errors import ConfigError


def check(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    check_config_files(["fit", "--config", str(path)])
    return str(path)


@pytest.mark.parametrize("seed", ["3", "null"])
def test_a_seed_of_the_data_in_a_file_is_refused(seed, tmp_path):
    # the parser takes the value of seed_everything in its place, without a word
    name = re.escape(repr(str(tmp_path / "c.yaml")))
    line = (
        rf"^data\.seed: is set in {name}, but follows seed_everything; set seed_everything there$"
    )
    with pytest.raises(ConfigError, match=line):
        check(tmp_path, f"data:\n  seed: {seed}\n")


@pytest.mark.parametrize(
    "text", ["", "data:\n", "data: {num_queries: 2}\n", "seed_everything: 3\n"]
)
def test_other_files_are_taken(text, tmp_path):
    check(tmp_path, text)
