"""``list settings``: every setting once, with a meaning, and not more of them than one can read."""

import re
import subprocess
import sys

import pytest

from lsp_lightning.cli import settings
from lsp_lightning.cli.main import main


@pytest.fixture(scope="module")
def sections():
    return settings.all_sections()


def keys(sections, title=None):
    return [s.key for part in sections if title in (None, part.title) for s in part.settings]


def test_there_are_few_settings(sections):
    once, uses = settings.counts(sections)
    assert once <= 124
    assert uses > once


def test_every_setting_has_a_meaning_that_stands_alone(sections):
    for section in sections:
        for setting in section.settings:
            assert len(setting.meaning.split()) >= 2, (section.title, setting.key)
            assert "see above" not in setting.meaning, (section.title, setting.key)


def test_what_classes_share_is_listed_once_under_their_base(sections):
    shared = keys(sections, "every reward of model.rewards")
    assert shared == [f"init_args.{key}" for key in ("weight", "name", "enters", "standardize")]
    assert keys(sections, "every objective of model.objective") == [
        "init_args.advantage_scale",
        "init_args.invalid_query",
        "init_args.penalty",
    ]
    assert keys(sections, "every kind of rollouts of model.rollouts") == ["init_args.tokens"]
    assert "init_args.weight" not in keys(sections, "NoveltyReward of model.rewards")
    every = [(section.title, key) for section in sections for key in keys([section])]
    assert len(every) == len(set(every))


def test_the_gate_the_pool_and_each_check_are_listed(sections):
    assert {"data.gate.solve_rate", "data.pool.share"} <= set(keys(sections))
    of_checks = {
        name: keys(sections, f"{name} of data.gate.checks")
        for name in ("WellFormed", "Matches", "Novel", "Judged")
    }
    assert of_checks == {
        "WellFormed": ["init_args.verifier"],
        "Matches": ["init_args.pattern"],
        "Novel": ["init_args.near", "init_args.memory"],
        "Judged": ["init_args.least", "init_args.prompt"],
    }


def test_a_key_that_only_contains_others_is_marked_and_not_counted(sections):
    groups = {s.key for section in sections for s in section.settings if s.is_group}
    assert {"data.solver", "init_args.limits", "init_args.client"} <= groups
    assert "model.lora" not in groups  # it can be null
    once, _ = settings.counts(sections)
    listed = sum(len(section.settings) for section in sections)
    assert once == listed - sum(s.is_group for section in sections for s in section.settings)


def test_the_list_is_of_all_rooms_that_have_settings(sections):
    assert list(dict.fromkeys(section.group for section in sections)) == [
        "model",
        "data",
        "gate",
        "pool",
        "objectives",
        "rewards",
        "verifiers",
        "sandboxes",
        "sampling",
        "rollouts",
        "checkpoint",
        "transcripts",
        "examples",
    ]
    assert {"model.base", "model.lora.rank", "data.num_queries", "checkpoint.every"} <= set(
        keys(sections)
    )
    assert "data.seed" not in keys(sections)  # seed_everything sets it


def test_the_command_prints_the_list_and_both_counts(capsys, sections):
    assert main(["list", "settings"]) == 0
    shown = capsys.readouterr().out
    once, uses = settings.counts(sections)
    assert shown.splitlines()[-1].startswith(f"{once} settings ({uses} if shared")
    assert "  model.base (required)\n      folder or hub id" in shown
    assert "  model.beta = 0.05\n" in shown
    assert not re.search("<lambda|<class|object at", shown)
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "error: list: has no topic; write lsp-lightning list settings"),
        (["metric"], "error: list: 'metric' is not a topic; write lsp-lightning list settings"),
        (["settings", "more"], "error: list: 'settings more' is not a topic; write"),
    ],
)
def test_another_topic_is_one_line(args, line, capsys):
    assert main(["list", *args]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(line)
    assert len(shown.err.splitlines()) == 1


def test_a_mistyped_topic_loads_nothing_heavy():
    code = (
        "import sys; from lsp_lightning.cli.main import main; main(['list', 'x'])\n"
        "print(sorted({'torch', 'lightning', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
