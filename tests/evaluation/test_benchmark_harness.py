"""Tasks of lm-evaluation-harness: our figures are those of its definition and of its command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from small_game import make_policy, stir

from lsp_lightning import ConfigError, Player, Policy
from lsp_lightning.evaluation.benchmarks import Side, load_benchmarks, run_benchmarks
from lsp_lightning.export import export_run
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.tinyworld import BASE_DIR, DATA_DIR
from lsp_lightning.types import Sampling

pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra `benchmarks`)")

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from lsp_lightning.evaluation.benchmarks.harness import HarnessBenchmark, _check_name, _check_safe
from lsp_lightning.evaluation.benchmarks.harness_model import PolicyLM

ROOT = Path(__file__).parents[2]
GENERATE = {
    "task": "tiny_generate",
    "output_type": "generate_until",
    "doc_to_text": "{{query}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOOSE = {
    "task": "tiny_choose",
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_target": "gold",
    "doc_to_choice": "choices",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
#: What the card of an export tells of a run.
FACTS = {
    "rounds": 1,
    "num_queries": 4,
    "group_size": 3,
    "rewards": [],
    "objective": {"class": "Learnability"},
    "alpha_ch": 0.2,
    "kl": "k1_in_reward",
    "beta": 0.05,
    "quantization": None,
    "init_adapter": None,
    "lora": {"rank": 4, "alpha": 8},
    "chat_template_kwargs": None,
    "optimizer": {},
    "seed": 0,
    "versions": {},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Data sets are converted in this test's folder, and no hub is asked."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def policy():
    """A policy of the tiny world that training has changed, and made worse."""
    policy = make_policy(BASE_DIR)
    stir(policy, 0.05)
    return policy


def docs(n: int = 24) -> list[dict]:
    """Tasks with right answers and wrong choices."""
    lines = (DATA_DIR / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["level"] >= 2][:: len(rows) // (2 * n)][:n]
    found = []
    for row in rows:
        answer = row["reference"]
        choices = sorted({answer, f"{answer}1", f"7{answer}", "0"})
        gold = choices.index(answer)
        found.append({"query": row["query"], "answer": answer, "choices": choices, "gold": gold})
    return found


def write(folder: Path, task: dict, rows: list[dict] | None = None, **changes) -> str:
    """The YAML file of a task over these rows."""
    data = folder / f"{task['task']}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows or docs()))
    file = folder / f"{task['task']}.yaml"
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
    file.write_text(yaml.safe_dump({**task, **source, "test_split": "test", **changes}))
    return str(file)


def run(policy: Policy, *names: str, limit=None, **kwargs):
    sides = policy, Player.local(policy), FrozenPlayer(policy)
    return run_benchmarks(load_benchmarks(names, limit), *sides, **kwargs)


def model(policy: Policy, after: bool = True, seed: int = 0) -> PolicyLM:
    sides = Side.both(policy, Player.local(policy), FrozenPlayer(policy))
    return PolicyLM(sides[after], seed, "test")


def requests(kind: str, *arguments) -> list[Instance]:
    return [Instance(kind, {}, a, i, ("t", i, 1)) for i, a in enumerate(arguments)]


# -- figures ---------------------------------------------------------------------------------------


def test_exact_match_is_the_share_of_answers_that_equal_the_solution(policy, tmp_path, capfd):
    [score] = run(policy, write(tmp_path, GENERATE))
    assert capfd.readouterr().out == ""
    for estimate, player in (
        (score.before, FrozenPlayer(policy)),
        (score.after, Player.local(policy)),
    ):
        prompts = [policy.codec.encode("{query}", {"query": doc["query"]}) for doc in docs()]
        drawn = player.respond(prompts, 1, Sampling(0.0, 24), seed=0)
        found = [text.split("\n")[0] for text in drawn.spoken]
        expected = [text == doc["answer"] for text, doc in zip(found, docs(), strict=True)]
        assert estimate.value == pytest.approx(sum(expected) / len(expected))
    assert score.n == len(docs())
    assert score.before.value > score.after.value
    assert score.difference.value == pytest.approx(score.after.value - score.before.value)


def test_choices_are_ranked_by_their_log_probs(policy, tmp_path):
    [score] = run(policy, write(tmp_path, CHOOSE))
    right = []
    with torch.no_grad(), policy.model.disable_adapter():
        for doc in docs():
            prompt = policy.codec.encode("{query}", {"query": doc["query"]})
            found = []
            for choice in doc["choices"]:
                ids = policy.codec.tokenizer(choice, add_special_tokens=False)["input_ids"]
                rows = policy.causal_lm.eval()(input_ids=torch.tensor([prompt + ids])).logits[0]
                each = rows.log_softmax(-1)[len(prompt) - 1 : -1]
                found.append(sum(float(row[i]) for row, i in zip(each, ids, strict=True)))
            right.append(found.index(max(found)) == doc["gold"])
    policy.model.train()
    assert score.before.value == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_an_untrained_policy_differs_in_no_task(tmp_path, quantization):
    policy = make_policy(BASE_DIR, quantization=quantization)
    for score in run(policy, write(tmp_path, GENERATE), write(tmp_path, CHOOSE)):
        assert score.before == score.after
        assert (score.difference.value, score.difference.error) == (0.0, 0.0)


def test_a_limit_takes_the_first_tasks_and_few_shot_examples_are_the_same_for_both(tmp_path):
    file = write(tmp_path, GENERATE, num_fewshot=2, fewshot_split="test")
    [score] = run(make_policy(BASE_DIR), file, limit=5)
    assert (score.n, score.difference.error) == (5, 0.0)


def test_a_group_is_scored_over_the_tasks_of_all_its_members(policy, tmp_path):
    first = write(tmp_path, {**GENERATE, "task": "one"}, docs()[:5])
    second = write(tmp_path, {**GENERATE, "task": "two"}, docs()[5:12])
    metrics = [{"metric": "exact_match", "aggregation": "mean", "weight_by_size": True}]
    group = {"group": "both", "task": ["one", "two"], "aggregate_metric_list": metrics}
    (tmp_path / "group.yaml").write_text(yaml.safe_dump(group))
    manager = TaskManager(include_defaults=False, include_path=str(tmp_path))
    benchmark = HarnessBenchmark("both", manager.load(["both"]), None)
    sides = policy, Player.local(policy), FrozenPlayer(policy)
    [whole] = run_benchmarks([benchmark], *sides)
    each = run(policy, first, second)
    assert (whole.benchmark, whole.n) == ("both", 12)
    assert whole.after.value == pytest.approx(
        (5 * each[0].after.value + 7 * each[1].after.value) / 12
    )
    assert whole.difference is not None


def test_a_metric_that_is_no_mean_of_tasks_has_no_difference(policy, tmp_path):
    # the perplexity of all words together: the task's own figures are pairs of numbers
    task = {
        "task": "tiny_perplexity",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{query}}",
        "metric_list": [
            {"metric": "word_perplexity"},
        ],
    }
    [score] = run(policy, write(tmp_path, task))
    assert (score.metric, score.n, score.difference) == ("word_perplexity", len(docs()), None)
    assert not score.higher_is_better
    assert 1 < score.before.value != score.after.value
    assert score.row()[-1] == "-"


@pytest.mark.slow
def test_the_harness_own_command_gives_the_exported_model_the_same_figures(policy, tmp_path):
    files = [write(tmp_path, GENERATE), write(tmp_path, CHOOSE)]
    ours = {score.benchmark: score for score in run(policy, *files)}
    twin = make_policy(BASE_DIR)
    twin.load_state_dict(policy.state_dict())
    export_run(twin, str(BASE_DIR), "merged", tmp_path / "merged", FACTS)
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--apply_chat_template"]
    command += ["--model_args", f"pretrained={tmp_path / 'merged'},dtype=float32"]
    command += ["--tasks", *files, "--device", "cpu", "--output_path", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    [file] = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    for name, metric in (("tiny_generate", "exact_match"), ("tiny_choose", "acc")):
        assert ours[name].after.value == pytest.approx(theirs[name][f"{metric},none"], abs=1e-6)
        error = theirs[name][f"{metric}_stderr,none"]
        assert ours[name].after.error == pytest.approx(error, abs=1e-6)
    assert ours["tiny_generate"].before.value != ours["tiny_generate"].after.value


# -- the model -------------------------------------------------------------------------------------


def test_a_repeated_prompt_is_sampled_anew_and_a_seed_repeats_all(tiny_policy):
    settings = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12, "until": []}
    asked = requests("generate_until", *[("<|user|>hello<|assistant|>", settings)] * 3)
    texts = model(tiny_policy).generate_until(asked)
    assert len(set(texts)) == 3
    assert model(tiny_policy).generate_until(asked) == texts
    assert model(tiny_policy, seed=1).generate_until(asked) != texts


def test_answers_end_before_any_of_the_stop_texts(tiny_policy):
    prompt, settings = "<|user|>hello<|assistant|>", {"max_gen_toks": 30}
    [whole] = model(tiny_policy).generate_until(
        requests("generate_until", (prompt, {**settings, "until": []}))
    )
    stops = [whole[20], whole[9:11]]
    [cut] = model(tiny_policy).generate_until(
        requests("generate_until", (prompt, {**settings, "until": stops}))
    )
    assert cut == whole[: min(whole.index(stop) for stop in stops)]


def test_a_whole_text_has_the_sum_of_its_tokens_log_probs_in_windows_too(tiny_policy, monkeypatch):
    text = "the user asks and the assistant answers"
    lm = model(tiny_policy)
    [whole] = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    ids = [lm.prefix_token_id, *lm.tok_encode(text)]
    with torch.no_grad():
        rows = tiny_policy.causal_lm.eval()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = sum(float(rows[i, ids[i + 1]]) for i in range(len(ids) - 1))
    assert whole == pytest.approx(expected, abs=1e-3)
    monkeypatch.setattr(PolicyLM, "max_length", 8)
    [windows] = lm.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    assert windows != whole
    assert windows == pytest.approx(whole, rel=0.2)


def test_a_prompt_that_does_not_fit_loses_its_beginning_with_a_warning(
    tiny_policy, monkeypatch, recwarn
):
    monkeypatch.setattr(PolicyLM, "max_length", 20)
    settings = {"max_gen_toks": 5, "until": []}
    asked = requests("generate_until", ("x" * 50, settings), ("x" * 15, settings))
    first, second = model(tiny_policy).generate_until(asked)
    assert first == second
    assert "lose their beginning" in str(recwarn.pop().message)
    too_long = requests("generate_until", ("x", {"max_gen_toks": 20}))
    with pytest.raises(ConfigError, match="answers of a task may have 20 tokens"):
        model(tiny_policy).generate_until(too_long)


def test_chats_are_rendered_as_in_training(tiny_qwen3_folder):
    policy = make_policy(tiny_qwen3_folder, chat_template_kwargs={"enable_thinking": False})
    lm = model(policy)
    turns = [{"role": "user", "content": "hello"}]
    encoded = policy.codec.encode("{query}", {"query": "hello"})
    assert lm.tok_encode(lm.apply_chat_template(turns)) == encoded
    begun = lm.apply_chat_template([*turns, {"role": "assistant", "content": "So"}], False)
    assert lm.tok_encode(begun) == policy.codec.encode("{query}", {"query": "hello"}, prefix="So")


# -- what cannot work ------------------------------------------------------------------------------


def test_an_unknown_name_is_one_line_with_near_names():
    known = ["gsm8k", "gsm8k_cot", "ifeval", "mmlu_law"]
    with pytest.raises(ConfigError, match="no benchmark is named 'gsm8'; near names: gsm8k"):
        _check_name("gsm8", known)
    with pytest.raises(ConfigError, match="near names: humaneval"):
        _check_name("human_eval", known)
    with pytest.raises(ConfigError, match="prints all names"):
        _check_name("zzzz", known)


def test_files_that_cannot_be_loaded_are_one_line(tmp_path):
    cases = {
        "missing.yaml": (None, "there is no file"),
        "broken.yaml": ("task: [", "could not be loaded"),
        "list.yaml": ("- 1", "could not be loaded"),
        "empty.yaml": ("", "could not be loaded"),
        "group.yaml": ("group: g\ntask: [a]\n", "is a group"),
        "hub.yaml": (
            yaml.safe_dump({**GENERATE, "dataset_path": "nobody/nothing", "test_split": "test"}),
            "the data set of .*nobody/nothing",
        ),
        "gone.yaml": (
            yaml.safe_dump(
                {**GENERATE, "dataset_path": "json", "dataset_kwargs": {"data_files": "gone.jsonl"}}
            ),
            "the data set of",
        ),
    }
    for name, (text, message) in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            load_benchmarks([str(tmp_path / name)])
        assert "\n" not in str(caught.value)


def test_a_template_that_names_no_key_of_the_rows_is_one_line_before_a_model_loads(tmp_path):
    with pytest.raises(ConfigError, match=r"could not be loaded .*'quety' is undefined"):
        load_benchmarks([write(tmp_path, GENERATE, doc_to_text="{{quety}}")])


def test_a_task_that_runs_code_without_a_sandbox_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="without a sandbox; use humaneval"):
        load_benchmarks([write(tmp_path, GENERATE, unsafe_code=True)])


def test_a_task_of_the_harness_that_runs_code_is_refused_before_it_is_loaded():
    with pytest.raises(ConfigError, match="'mbpp' runs code in answers without a sandbox"):
        _check_safe("mbpp", {"unsafe_code": True})
    _check_safe("gsm8k", {})


def test_the_task_shown_in_the_documentation_runs(tmp_path, monkeypatch):
    pages = [page.read_text() for page in (ROOT / "docs").glob("evaluation*.md")]
    [shown] = re.findall(r"```yml\n(task: my_task\n.*?)```", "\n".join(pages), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.yaml").write_text(shown)
    row = {"question": docs()[0]["query"], "answer": docs()[0]["answer"]}
    (tmp_path / "my_task.jsonl").write_text(json.dumps(row) + "\n")
    [score] = run(make_policy(BASE_DIR), "my_task.yaml")
    assert (score.benchmark, score.metric, score.n) == ("my_task", "exact_match", 1)
