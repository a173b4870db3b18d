"""A hundred mistakes that people type: each is one line that names the key and the remedy."""

import shlex
import shutil
from pathlib import Path

import pytest

from lsp_lightning.cli.main import main
from lsp_lightning.cli.synonyms import class_near, meant

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("untouched_process", "no_model")

FILES = {
    "empty.yaml": "",
    "list.yaml": "model: [1,2]\n",
    "tabs.yaml": "model:\n\tbeta: 1\n",
    "twice.yaml": "data:\n  num_queries: 4\n  num_queries: 8\n",
    "aliases.yaml": "a: &a [x,x]\n"
    + "".join(f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdef", "bcdefg")),  # noqa: B905
    "near.yaml": "modell: {beta: 1}\n",
    "hostile.yaml": '"mod\\e[2Jel": 1\n',
    "afile": "",
    "seed.yaml": "seed: 3\n",
    "split.yaml": "model: {rewards: [{class_path: SelfReward}, {init_args: {weight: 1}}]}\n",
    "beside.yaml": "model:\n  rewards:\n  - class_path: SelfReward\n    weight: 1\n",
    "optimizer.yaml": "model: {optimizer: {class_path: torch.optim.Adam, lr: 1}}\n",
    "logger.yaml": "trainer: {logger: mlflow}\n",
    "loggers.yaml": "trainer: {logger: [mlflow]}\n",
    "rewards.yaml": "model:\n  rewards:\n",
}
NO_KEY = "there is no such key; did you mean"
#: What is typed, and how the line goes on after "error: ". A line that begins with "+" follows
#: `fit --config tiny.yaml`. The first group needs no parser, so it is always run.
FAST = {
    "fitt": "command: there is no command 'fitt'; did you mean 'fit'?",
    "train --config tiny.yaml": "command: there is no command 'train'; choose one of fit, ",
    "--config tiny.yaml fit": "command: '--config' comes before the command; put the command",
    "fit --config": "config: has no value; write --config FILE",
    "fit --config nowhere.yaml": "config: no file 'nowhere.yaml'; give an existing YAML file",
    "fit --config folder": "config: 'folder' is a folder; give a YAML file",
    "fit --config empty.yaml": "config: 'empty.yaml' is empty; write lines of the form key: value",
    "fit --config list.yaml": "model: must be a mapping of keys to values, is [1, 2]; write lines",
    "fit --config tabs.yaml": "config: 'tabs.yaml' is not YAML (line 2: found character tab that",
    "fit --config twice.yaml": "data.num_queries: is set twice in 'twice.yaml' (lines 2 and 3); ",
    "fit --config aliases.yaml": "config: 'aliases.yaml' has more than 10,000 values, aliases",
    "+ --data '{\"seed\": 3}'": "data.seed: is set by --data, but follows seed_everything; set",
    "+ --data seed.yaml": "data.seed: is set in seed.yaml, but follows seed_everything; set seed",
    "+ --model.rewards.init_args.weight 3": "model.rewards.init_args.weight: does not say which",
    "+ --config split.yaml": "model.rewards: item 2 has no class_path; write it before init_args",
    "+ --model.rewards '[{init_args: {weight: 0.5}}]'": "model.rewards: item 1 has no class_path; ",
    "+ --config beside.yaml": "model.rewards: item 1 has weight beside class_path; put weight und",
    "+ --config optimizer.yaml": "model.optimizer: has lr beside class_path; put lr under init_",
    "+ --config rewards.yaml": "model.rewards: is empty in 'rewards.yaml'; write a list of rewards",
    "fit --ckpt_path": "ckpt_path: has no value; write --ckpt_path FILE; give a run's checkpoints/",
    "fit --ckpt_path --trainer.max_steps 9": "ckpt_path: has no value; write --ckpt_path FILE",
    "fit --ckpt_path folder": "ckpt_path: 'folder' is a folder; give a run's checkpoints/last.ckpt",
    "fit --ckpt_path run": "ckpt_path: 'run' is a folder; give run/checkpoints/last.ckpt",
    "fit --ckpt_path run/adapter": "ckpt_path: 'run/adapter' is a folder; give run/checkpoints/la",
    "+ --ckpt_path nowhere": "ckpt_path: no file 'nowhere'; give a run's checkpoints/last.ckpt",
    "+ --trust=yes": "--trust: has a value; write --trust alone",
}
SOME = {
    "fit": "model.base: not set; give --config FILE",
    "fit tiny.yaml": "command: 'tiny.yaml' is not a flag; write --config tiny.yaml",
    "+ --model.lr 1e-4": f"model.lr: {NO_KEY} 'model.optimizer.init_args.lr'?",
    "+ --model.lora.r 8": f"model.lora.r: {NO_KEY} 'rank'?",
    "+ --seed_everything abc": "seed_everything: must be a whole number, is abc; see --help",
    "+ --model.rewards SelfReward": "model.rewards: must be a list, is SelfReward; write a list: "
    "[{class_path: lsp_lightning.SelfReward}]",
    "+ --trainer.default_root_dir /proc/x": "trainer.default_root_dir: cannot create folder '/",
    "+ --trainer.strategy foo": "trainer.strategy: is 'foo' (You selected an invalid strategy",
    "+ --trainer.logger MLFlowLogger": "trainer.logger: MLFlowLogger needs the package mlflow, "
    "which is not installed; pip install mlflow",
    "+ --model.optimizer.init_args.lr -1": "model.optimizer: refuses its settings (Invalid learn",
}
MORE = {
    "export --config tiny.yaml": "ckpt_path: is not set; give a run's checkpoints/last.ckpt",
    "export --config tiny.yaml --form gguf": "form: must be one of 'adapter', 'merged', is gguf;",
    "plan --config tiny.yaml --gpu_gib 8GB": "gpu_gib: must be a number or null, is 8GB; see --h",
    "fit --config near.yaml": f"modell.beta: {NO_KEY} 'model.beta'?",
    "fit --config hostile.yaml": rf"mod\x1b[2Jel: {NO_KEY} 'model'?",
    "+ extra": "command: 'extra' is not a flag; write flags as --key value",
    "+ --beta 0.1": f"beta: {NO_KEY} 'model.beta'?",
    "+ --seed 3": f"seed: {NO_KEY} 'seed_everything'?",
    "+ --batch_size 8": f"batch_size: {NO_KEY} 'data.num_queries'?",
    "+ --epochs 3": f"epochs: {NO_KEY} 'trainer.max_steps'?",
    "+ --max_steps 3": f"max_steps: {NO_KEY} 'trainer.max_steps'?",
    "+ --model_name x": f"model_name: {NO_KEY} 'model.base'?",
    "+ --output_dir x": f"output_dir: {NO_KEY} 'trainer.default_root_dir'?",
    "+ --num_generations 8": f"num_generations: {NO_KEY} 'data.group_size'?",
    "+ --max_completion_length 9": f"max_completion_length: {NO_KEY} 'data.solver.max_new_tokens'?",
    "+ --learning_rate 1e-4": f"learning_rate: {NO_KEY} 'model.optimizer.init_args.lr'?",
    "+ --per_device_train_batch_size 8": f"per_device_train_batch_size: {NO_KEY} 'data.num_quer",
    "+ --kl_coef 0.1": f"kl_coef: {NO_KEY} 'model.beta'?",
    "+ --temperature 1": f"temperature: {NO_KEY} 'data.solver.temperature'?",
    "+ --load-in-4bit true": f"load_in_4bit: {NO_KEY} 'model.quantization'?",
    "+ --lora_r 8": f"lora_r: {NO_KEY} 'model.lora.rank'?",
    "+ --report_to wandb": f"report_to: {NO_KEY} 'trainer.logger'?",
    "+ --resume_from_checkpoint x": f"resume_from_checkpoint: {NO_KEY} 'ckpt_path'?",
    "+ --dataset x": f"dataset: {NO_KEY} 'data.queries'?",
    "+ --model Qwen/Qwen3-0.6B": "model: must be a mapping of keys to values, is Qwen/Qwen3-0.6B;"
    " did you mean --model.base Qwen/Qwen3-0.6B?",
    "plan --config tiny.yaml --gpu 8": f"gpu: {NO_KEY} 'gpu_gib'?",
    "+ --datasets f.jsonl": f"datasets: {NO_KEY} 'data.queries'?",
    "+ --trainer.total_epochs 3": f"trainer.total_epochs: {NO_KEY} 'trainer.max_steps'?",
    "+ --trainer.n_gpus_per_node 2": "trainer.n_gpus_per_node: there is no such key; leave it out: "
    "a run uses one GPU",
    "+ --actor_rollout_ref.rollout.n 8": f"actor_rollout_ref.rollout.n: {NO_KEY} 'data.group_siz",
    "+ --actor.kl_loss_coef 0.1": f"actor.kl_loss_coef: {NO_KEY} 'model.beta'?",
    "+ --adapter lora": f"adapter: {NO_KEY} 'model.lora'?",
    "+ --sequence_len 2048": f"sequence_len: {NO_KEY} 'data.solver.max_new_tokens'?",
    "+ --model beta=0.1": "model: must be a mapping of keys to values, is beta=0.1; did you mean "
    "--model.beta=0.1?",
    "+ model.beta=0.1": "command: 'model.beta=0.1' is not a flag; write --model.beta=0.1",
    "+ --model.lora none": "model.lora: must name a class by its path, as in module.Class, is none;"
    " did you mean null?",
    "+ --model.quantization none": "model.quantization: must be one of 'nf4' or null, is none; di",
    "+ --model.objective GRPO": "model.objective: must name a class by its path, as in module.Class"
    ", is GRPO; leave it out for GRPO: data.queries: {class_path: lsp_lightning.PromptFile",
    "+ --config logger.yaml": "trainer.logger: MLFlowLogger needs the package mlflow, which is not",
    "+ --config loggers.yaml": "trainer.logger: MLFlowLogger needs the package mlflow, which is no",
    "+ --trainer.logger csv": "trainer.logger: names csv, but every run writes metrics.csv; leave",
    "+ --trainer.logger '[wandb, tensorboard]'": "trainer.logger: names tensorboard, but its event",
    "validate --config tiny.yaml --data.heldout_reward nobody": "data.heldout_reward: no reward is",
    "+ --trainer.logger [mlflow]": "trainer.logger: MLFlowLogger needs the package mlflow, which i",
    "+ --seed_everything -1": "seed_everything: is -1; set 0 to 4294967295",
    "+ --seed_everything 99999999999": "seed_everything: is 99999999999; set 0 to 4294967295",
    "+ --trainer.max_steps 0": "trainer.max_steps: is below 1; set the number of rounds to play",
    "+ --trainer.max_steps -5": "trainer.max_steps: is below 1; set the number of rounds to play",
    "+ --trainer.max_steps 1e3": "trainer.max_steps: must be a whole number, is 1000.0; see --h",
    "+ --trainer.max_steps abc": "trainer.max_steps: must be a whole number, is abc; see --help",
    "+ --trainer.max_epochs 3": "trainer.max_epochs: is 3, but all rounds are one epoch; leave it",
    "+ --trainer.limit_train_batches 0": "trainer.limit_train_batches: is 0, but trainer.max_s",
    "+ --trainer.limit_train_batches 1": "trainer.limit_train_batches: is 1, but trainer.max_s",
    "+ --trainer.overfit_batches 1": "trainer.overfit_batches: is 1, but rounds are played, not re",
    "+ --trainer.check_val_every_n_epoch 0": "trainer.check_val_every_n_epoch: is 0, but all round",
    "+ --trainer.limit_val_batches 0.1": "trainer.limit_val_batches: is 0.1, which is less than on",
    "+ --trainer.accelerator tpu": "trainer.accelerator: is 'tpu' (Requirement 'torch_xla",
    "+ --trainer.max_time 1h": "trainer.max_time: is '1h' (`Timer(duration='1h')` is not a valid ",
    "+ --trainer.strategy deepspeed_stage_2": "trainer.strategy: is 'deepspeed_stage_2' (To use th",
    "validate --config tiny.yaml --data.heldout null": "data.heldout: is not set; give a file of h",
    "+ --trainer.val_check_interval 0": "trainer.val_check_interval: is 0; set a number of rounds",
    "+ --trainer.val_check_interval 2.5": "trainer.val_check_interval: is 2.5 (You have passed in",
    "+ --trainer.devices 0": "trainer.devices: is '0' (`Trainer(devices='0')` value is not a val",
    "+ --trainer.precision fp16": "trainer.precision: is fp16; leave it out and set model.dtype",
    "+ --trainer.profiler nope": "trainer.profiler: is 'nope' (When passing string value for the",
    "+ --trainer.default_root_dir afile": "trainer.default_root_dir: cannot create folder 'afile'",
    "+ --trainer.default_root_dir afile/x": "trainer.default_root_dir: cannot create folder 'afile",
    "+ --trainer.callbacks EarlyStoping": "trainer.callbacks: must name a class by its path, as in"
    " module.Class, is EarlyStoping; did you mean 'lightning.pytorch.callbacks.EarlyStopping'?",
    "+ --trainer.callbacks torch.optim.Adam": "trainer.callbacks: torch.optim.Adam is not a Callb",
    "+ --model.optimizer torch.optim.Adamm": "model.optimizer: cannot import torch.optim.Adamm (m",
    "+ --model.optimizer.init_args.lr abc": "model.optimizer.init_args.lr: must be a number, is a",
    "+ --model.optimizer.init_args.learning_rate 1": "model.optimizer.init_args.learning_rate: "
    f"{NO_KEY} 'lr'?",
    "+ --model.objective paper": "model.objective: must name a class by its path, as in module."
    "Class, is paper; did you mean 'lsp_lightning.Paper'?",
    "+ --model.objective lsp_lightning.SelfReward": "model.objective: lsp_lightning.SelfReward is "
    "not an Objective; see --help",
    "+ --data.queries q.jsonl": "data.queries: cannot import q.jsonl (No module named 'q'); write "
    "{class_path: lsp_lightning.PromptFile, init_args: {path: q.jsonl}}",
    "+ --model.lora 8": "model.lora: must be a mapping of keys to values, or null, is 8; see",
    "+ --model.beta nan": "model.beta: must be a number, is nan; see --help",
    "+ --model.base /no/folder": "model.base: no folder '/no/folder'; give a model folder, or a",
    "+ --data.heldout nowhere.jsonl": "data.heldout: no file 'nowhere.jsonl'; give the path of an",
    "+ --ckpt_path afile": "ckpt_path: 'afile' is not a checkpoint; give a run's checkpoints/last",
    "+ --weights_only false": "weights_only: is false, but every checkpoint is loaded as weights",
    "+ --mödel.beta 1": f"mödel.beta: {NO_KEY} 'model.beta'?",
    "+ --print_confg": f"print_confg: {NO_KEY} 'print_config'?",
}
TABLE = {**FAST, **SOME, **MORE}


def test_there_are_a_hundred():
    assert len(TABLE) >= 90


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the files that the table names."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("folder").mkdir()
    for name in ("run/checkpoints", "run/adapter"):
        Path(name).mkdir(parents=True)
    Path("run/checkpoints/last.ckpt").touch()
    shutil.copy(ROOT / "configs" / "tiny_lsp.yaml", "tiny.yaml")


@pytest.mark.parametrize(
    "typed", [pytest.param(t, marks=pytest.mark.slow if t in MORE else []) for t in TABLE]
)
def test_a_typed_mistake_is_one_line(typed, here, capfd):
    beginning = "fit --config tiny.yaml --trainer.default_root_dir out "
    args = shlex.split(typed.replace("+ ", beginning, 1) if typed.startswith("+") else typed)
    try:
        code = main(args)
    except SystemExit as stop:
        code = stop.code
    out, shown = capfd.readouterr()
    assert code == 2, shown
    assert shown.startswith(f"error: {TABLE[typed]}")
    assert len(shown.splitlines()) == 1
    assert not out
    assert len(shown) < 600
    left = {str(path) for path in Path("out").rglob("*")}
    assert left <= {"out/.claimed"}  # which goes when the process ends


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("lr", "model.optimizer.init_args.lr"),
        ("model.learning_rate", "model.optimizer.init_args.lr"),
        ("LR", "model.optimizer.init_args.lr"),
        ("group_size", "data.group_size"),
        ("seed", "seed_everything"),
        ("top_p", "data.solver.top_p"),
        ("nonsense", None),
        ("use_vllm", None),  # a key that this parser does not have
    ],
)
def test_a_name_of_another_trainer_leads_to_the_key(key, found):
    keys = ["model.optimizer", "data.group_size", "data.seed", "data.solver", "seed_everything"]
    assert meant(key, keys) == found


def test_a_synonym_in_the_settings_of_a_class_leads_to_its_key():
    assert meant("lora_r", ["rank", "alpha"]) == "rank"
    assert meant("learning_rate", ["lr", "betas"]) == "lr"


def test_a_mistyped_class_leads_to_the_nearest_of_its_kind():
    assert class_near("objective", "papr") == "lsp_lightning.Paper"
    assert class_near("optimizer", "adamw") == "torch.optim.AdamW"
    assert class_near("logger", "wandb") == "lightning.pytorch.loggers.WandbLogger"
    assert class_near("objective", "f") is None
