"""The console script. It prints help and reports typing mistakes before heavy imports."""

import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lsp_lightning import __version__
from lsp_lightning.cli.config_files import flags_of, ready_configs
from lsp_lightning.cli.output import (
    BROKEN_PIPE,
    INTERRUPTED,
    complain,
    escape_messages,
    flush_stdout,
    ready_streams,
)
from lsp_lightning.cli.threads import wait_asleep
from lsp_lightning.cli.trust import TRUST, Permissions
from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.folder import LAST

COMMANDS = {
    "fit": "play rounds and train on them; writes a run's folder",
    "pilot": "play one round and say whether a run has anything to learn; writes no run",
    "validate": "score the held-out tasks that are for choosing settings",
    "test": "score the held-out tasks that are for reporting",
    "predict": "answer the held-out queries and write the answers to a file",
    "evaluate": "measure a policy against the base: win rates, pass@k, benchmarks",
    "crossplay": "let Challengers and Solvers of several rounds play against each other",
    "show": "print the queries and answers of a run with their scores",
    "report": "write a page about runs: verdicts, curves, queries and answers",
    "reproduce": "play the paper's comparisons again and say what is seen (an hour)",
    "plan": "estimate GPU memory before loading anything",
    "export": "export the trained adapter or merged model",
    "chat": "chat with the base model or a trained checkpoint",
    "list": "list settings: every setting with its default and meaning",
}

_CHECKPOINT = f"give a run's checkpoints/{LAST}"

HELP = """\
usage: lsp-lightning COMMAND [--config FILE ...] [--key value ...]

Language Self-Play: one language model writes questions, answers them, and learns from both.

commands:
{commands}

  lsp-lightning COMMAND --help          every key with its meaning and default
  lsp-lightning COMMAND --print_config  the whole config, after all files and flags
  lsp-lightning COMMAND --ckpt_path FILE --trust
                                        let the config beside a checkpoint run code

examples:
  lsp-lightning pilot --config configs/tiny_lsp.yaml
  lsp-lightning fit --config configs/tiny_lsp.yaml
  lsp-lightning fit --config configs/tiny_lsp.yaml --data.group_size 16 --trainer.max_steps 200
  lsp-lightning fit --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt --trainer.max_steps 300
  lsp-lightning test --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt
  lsp-lightning evaluate --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt --draws 16
  lsp-lightning export --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt --form merged --out my_model
  lsp-lightning chat --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt
  lsp-lightning show runs/tiny_lsp --round -1
  lsp-lightning report runs/tiny_lsp
  lsp-lightning reproduce --arms base grpo lsp --seeds 0 1 2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 if the run failed or the pilot says that it cannot start, or 2 for a mistake in the
        command or its config; 130 after Ctrl-C, and 141 if the reader of the output has gone.
    """
    ready_streams()
    escape_messages()
    try:
        status = _run([underscored(arg) for arg in (sys.argv[1:] if argv is None else argv)])
    except ConfigError as error:
        complain(error)
        status = 2
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        if flush_stdout("\n"):  # another pipe broke
            raise
        return BROKEN_PIPE
    except SystemExit:  # --help and --print_config
        flush_stdout()
        raise
    return status if flush_stdout() else BROKEN_PIPE


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        lines = [f"  {name:<11}{meaning}" for name, meaning in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if args[0] == "--version":
        print(f"lsp-lightning {__version__}")
        return 0
    if os.getcwd() not in sys.path:  # a config may name a module in this folder
        sys.path.append(os.getcwd())
    _check_command(args[0])
    if args[0] == "show":
        from lsp_lightning.cli.show import show

        return show(args[1:])
    if args[0] == "report":
        from lsp_lightning.cli.report import report

        return report(args[1:])
    if args[0] == "reproduce":
        from lsp_lightning.cli.reproduce import reproduce

        return reproduce(args[1:])
    if args[0] == "list":
        from lsp_lightning.cli.settings import list_topic

        return list_topic(args[1:])
    args, trust = without_trust(with_json(args))
    permissions, run = None, run_with_config(args)
    if run is not None:
        permissions = None if trust else Permissions(run.path, args)
        # the folder may have been moved since, so the path in the config may be wrong; flags that
        # follow override the config
        folder = ["--trainer.default_root_dir", str(run.path)]
        args[1:1] = ["--config", str(run.config_path), *folder]
    args = ready_configs(args)
    # libraries read these when they are imported
    wait_asleep()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from lsp_lightning.cli.app import run_command

    return run_command(args, permissions)


def run_with_config(args: Sequence[str]) -> RunFolder | None:
    """The run whose config is used: the command names its checkpoint and no config.

    Raises:
        ConfigError: there is no such checkpoint, or no config in its run's folder.
    """
    flags = dict(flags_of(args))
    path = flags.get("--ckpt_path")
    if path is None or path == "null":
        return None
    if not path or path.startswith("--"):
        raise ConfigError("ckpt_path", "has no value", f"write --ckpt_path FILE; {_CHECKPOINT}")
    if Path(path).is_dir():
        raise ConfigError("ckpt_path", f"{path!r} is a folder", _inside(Path(path)))
    if not Path(path).is_file():
        raise ConfigError("ckpt_path", f"no file {path!r}", _CHECKPOINT)
    if {"--config", "-c"} & set(flags):
        return None
    run = RunFolder.of_checkpoint(path)
    if not run.config_path.is_file():
        problem = f"no {run.config_path.name} in the run's folder {str(run.path)!r}"
        raise ConfigError("config", problem, "give --config FILE")
    if not run.config_is_whole():
        problem = f"its config.yaml ends too early ({str(run.config_path)!r})"
        raise ConfigError("ckpt_path", problem, "restore it, or give all settings by --config FILE")
    return run


def _inside(folder: Path) -> str:
    """What to give instead of a folder: the checkpoint in it or beside it."""
    for run in (folder, folder.parent):
        checkpoint = RunFolder(run).checkpoint_path
        if checkpoint.is_file():
            return f"give {shlex.quote(str(checkpoint))}"
    return _CHECKPOINT


def with_json(args: Sequence[str]) -> list[str]:
    """The arguments with ``--json true`` in place of ``--json`` alone."""
    following = [*args[1:], ""]
    return [
        f"{arg}=true" if arg == "--json" and after not in ("true", "false") else arg
        for arg, after in zip(args, following, strict=True)
    ]


def without_trust(args: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--trust``, and whether it was there."""
    if any(arg.startswith(f"{TRUST}=") for arg in args):
        raise ConfigError(TRUST, "has a value", f"write {TRUST} alone")
    return [arg for arg in args if arg != TRUST], TRUST in args


def underscored(arg: str) -> str:
    """Spell a flag with dashes (``--gpu-gib=8``) as its key; leave any other word unchanged."""
    flag, equals, value = arg.partition("=")
    if not flag.startswith("--"):
        return arg
    return "--" + flag[2:].replace("-", "_") + equals + value


def _check_command(command: str) -> None:
    if command in COMMANDS:
        return
    if command.startswith("-"):
        raise ConfigError(
            "command",
            f"{command!r} comes before the command",
            "put the command before its flags: lsp-lightning fit --config ...",
        )
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}"
    raise ConfigError("command", f"there is no command {command!r}", hint)


if __name__ == "__main__":
    raise SystemExit(main())
