"""Config files are read before anything is imported that takes time."""

import os
import time

import pytest
import yaml

from lsp_lightning.cli.config_files import ready_configs
from lsp_lightning.cli.main import run_with_config
from lsp_lightning.errors import ConfigError


def check(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ready_configs(["fit", "--config", str(path)])


def aliases(first, form):
    """Eight levels of ten aliases each: a hundred million values in a few lines."""
    lines = [f"a: &a {first}"]
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        lines.append(f"{name}: &{name} " + form(before))
    return "\n".join(lines)


REFUSED = {
    # the parser takes the value of seed_everything in its place, without a word
    "seed of the data": ("data:\n  seed: 3\n", "data.seed: is set in '.*c.yaml', but follows seed"),
    "no seed of the data": ("data: {seed: null}", "data.seed: is set in .*; set seed_everything$"),
    "empty": ("", "config: '.*c.yaml' is empty; write lines"),
    "comments": ("# model:\n", "config: '.*c.yaml' is empty; write lines"),
    "a list": ("- 1\n", "config: '.*' is not a mapping of keys to values; write lines"),
    "a word": ("hello", "config: '.*' is not a mapping of keys to values; write lines"),
    "an empty group": ("model:\ndata: {}\n", "model: is empty in '.*'; write keys below it"),
    "an empty callback": ("examples:\n", "examples: is empty in '.*'; write keys below it"),
    "a group that is a list": ("model: [1, 2]", r"model: must be a mapping .*, is \[1, 2\]; write"),
    "a group that is a number": ("data: 5", "data: must be a mapping of keys to values, is 5; wri"),
    "tabs": ("model:\n\tbeta: 1", "config: '.*' is not YAML .line 2: .*tab.*; indent with spaces"),
    "broken": ("model: [1, {2", "config: '.*' is not YAML .line 1: .*; fix it"),
    "two documents": ("a: 1\n---\nb: 1", "config: '.*' is not YAML .line 2: .*document.; fix it"),
    "a zero byte": ("model: \0", "config: '.*' is not YAML .*; fix it"),
    "other bytes": ("model: \xe9".encode("latin-1"), "config: '.*' is not UTF-8; save it"),
    "a key twice": (
        "data:\n  group_size: 4\n  group_size: 8\n",
        r"data.group_size: is set twice in '.*' \(lines 2 and 3\); remove one",
    ),
    "a group twice": ("data: {}\nmodel: {}\ndata: {}", r"data: is set twice in .*1 and 3\); remov"),
    "a key twice in a list": (
        "model: {rewards: [{class_path: a, class_path: b}]}",
        "model.rewards.class_path: is set twice",
    ),
    "a key that is a number": ("1: 2", "config: '.*' has the key 1; write keys as words"),
    "a key that is a list": ("? [1]\n: 2", "config: '.*' has a key that is not a word; fix it"),
    "a tag that runs code": (
        "model: !!python/object/apply:os.system [echo]",
        "config: '.*' is not YAML .line 1: could not determine a constructor",
    ),
    "lists of aliases": (
        aliases("[x]", lambda name: f"[{','.join(['*' + name] * 10)}]"),
        "config: '.*' has more than 10,000 values, aliases written out; give the config of a run",
    ),
    "mappings of aliases": (
        aliases("{k: 1}", lambda name: f"{{{','.join(f'k{i}: *{name}' for i in range(10))}}}"),
        "config: '.*' has more than 10,000 values",
    ),
    "merged aliases": (
        aliases(
            "{k: 1}", lambda name: f"{{{','.join(f'm{i}: {{<<: *{name}}}' for i in range(9))}}}"
        ),
        "config: '.*' has more than 10,000 values",
    ),
    "an alias of itself": ("model: &m\n  base: *m\n", "config: '.*' has an alias of itself"),
    "many brackets": ("[" * 3000, "config: '.*' is nested too deeply; fix it"),
    "a large file": (
        "key: value\n" * 30_000,
        "config: '.*' is larger than 200 kB; give the config",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_no_run_can_take_is_refused_in_one_line(case, tmp_path):
    text, line = REFUSED[case]
    start = time.process_time()
    with pytest.raises(ConfigError, match=f"^{line}") as error:
        check(tmp_path, text)
    assert len(str(error.value).splitlines()) == 1
    assert time.process_time() - start < 3


def test_a_file_of_100_mb_is_refused_unread(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    start = time.process_time()
    with pytest.raises(ConfigError, match="is larger than 200 kB"):
        ready_configs(["fit", f"--config={path}"])
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "data: {num_queries: 2}\n",
        "seed_everything: 3\n",
        "model: {base: x}\ndata: {}",
        "\ufeffmodel: {beta: 0.1}",
        "model: &m {beta: 0.1}\ndata: {<<: *m, num_queries: 3}",
    ],
)
def test_other_files_are_taken(text, tmp_path):
    assert check(tmp_path, text) == ["fit", "--config", str(tmp_path / "c.yaml")]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "has no value"), ("none.yaml", "no file 'none.yaml'"), (".", "'.' is a folder")],
)
def test_a_file_that_is_not_there(name, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^config: {problem}"):
        ready_configs(["fit", "--config", name])


@pytest.mark.parametrize("value", ['{"seed": 3}', '{"num_queries": 2, "seed": null}', "more.yaml"])
def test_a_seed_of_the_data_cannot_be_typed_around(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text("seed: 3\n")
    for args in (["--data", value], [f"--data={value}"]):
        with pytest.raises(ConfigError, match=r"^data\.seed: is set .*; set seed_everything$"):
            ready_configs(["fit", *args])
    (tmp_path / "c.yaml").write_text(f"data: {value}\n")
    with pytest.raises(ConfigError, match=r"^data\.seed: is set "):
        ready_configs(["fit", "--config", "c.yaml"])


def test_a_config_from_a_pipe_is_read_once():
    reader, writer = os.pipe()
    os.write(writer, b"data: {num_queries: 2}\n")
    os.close(writer)
    try:
        args = ready_configs(["fit", "--config", f"/dev/fd/{reader}", "--model.beta", "1"])
    finally:
        os.close(reader)
    assert args == ["fit", "--config", "data: {num_queries: 2}\n", "--model.beta", "1"]


def test_a_flag_names_an_entry_of_a_list_only_after_its_class():
    with pytest.raises(ConfigError, match=r"^model\.rewards\.init_args\.weight: does not say"):
        ready_configs(["fit", "--model.rewards.init_args.weight", "3"])
    with pytest.raises(ConfigError, match=r"^trainer\.callbacks\.patience: does not say which"):
        ready_configs(["fit", "--trainer.callbacks.patience=3"])
    args = ["fit", "--model.rewards+=lsp_lightning.SelfReward", "--model.rewards.weight", "3"]
    assert ready_configs(args) == args


def test_a_config_of_a_run_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path):
    start, end = "# lightning.pytorch==2.6.6\n", "ckpt_path: null\nweights_only: null\n"
    body, last = "data:\n  num_queries: 4\n", "examples:\n  every: 25\n"
    config, checkpoint = tmp_path / "config.yaml", tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    args = ["fit", "--ckpt_path", str(checkpoint)]
    whole = f"{start}{body}{last}{end}"
    for text in (whole, f"{start}{body}{end}", body):  # an older run's; one written by hand
        config.write_text(text)
        assert run_with_config(args).path == tmp_path
    for stop in range(len(start), whole.index(end)):
        config.write_text(whole[:stop])
        with pytest.raises(ConfigError, match=r"^ckpt_path: its config.yaml ends too early"):
            run_with_config(args)


def test_the_short_name_of_a_logger_leaves_the_rest_of_a_file_as_it_is(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {lr: 1e-3, base: 'on', n: null}\ntrainer: {logger: [wandb], max_steps: 3}\n"
    )
    text = ready_configs(["fit", "--config", str(path)])[2]
    assert "lr: 1e-3\n" in text
    before, after = yaml.safe_load(path.read_text()), yaml.safe_load(text)
    assert after["trainer"].pop("logger") == ["lightning.pytorch.loggers.WandbLogger"]
    assert before["trainer"].pop("logger") == ["wandb"]
    assert after == before
