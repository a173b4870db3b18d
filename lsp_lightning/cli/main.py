"""The console script. Light: help and typing mistakes are answered before anything heavy loads."""

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lsp_lightning import __version__
from lsp_lightning.cli.threads import wait_asleep
from lsp_lightning.errors import ConfigError

COMMANDS = {
    "fit": "play and learn; writes a run's folder",
    "validate": "score the held-out tasks for choosing settings",
    "test": "score the held-out tasks for reporting",
    "predict": "answer the held-out queries and write the answers",
    "plan": "what a run will take of a GPU's memory, before anything is loaded",
    "export": "write what a run has learned for use elsewhere",
    "chat": "talk to the base, or to what a run has made of it",
}

HELP = """\
usage: lsp-lightning COMMAND [--config FILE ...] [--key value ...]

Language Self-Play: one language model writes the questions and answers them, and learns from both.

commands:
{commands}

  lsp-lightning COMMAND --help          every key with its meaning and default
  lsp-lightning COMMAND --print_config  the whole config, after overlays and flags

examples:
  lsp-lightning fit --config configs/tiny_lsp.yaml
  lsp-lightning fit --config configs/tiny_lsp.yaml --data.group_size 16 --trainer.max_steps 200
  lsp-lightning fit --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt --trainer.max_steps 300
  lsp-lightning test --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt
  lsp-lightning export --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt --form merged --out my_model
  lsp-lightning chat --ckpt_path runs/tiny_lsp/checkpoints/last.ckpt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. -> 0, or 1 where the run failed, or 2 for a mistake in its set-up."""
    args = [underscored(arg) for arg in (sys.argv[1:] if argv is None else argv)]
    if not args or args[0] in ("-h", "--help"):
        lines = [f"  {name:<10}{meaning}" for name, meaning in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if args[0] == "--version":
        print(f"lsp-lightning {__version__}")
        return 0
    if os.getcwd() not in sys.path:  # rewards of the user's own lie in modules beside the config
        sys.path.append(os.getcwd())
    try:
        _check_command(args[0])
        args = with_run_config(args)
        check_config_files(args)
        # read when the libraries are imported, so set before
        wait_asleep()
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        if not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from lsp_lightning.cli.app import run_command

        return run_command(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def check_config_files(args: Sequence[str]) -> None:
    """Whether each config file is there and is YAML, without keys of earlier versions.

    Raises:
        ConfigError: one is not; names it.
    """
    import yaml

    for path in (Path(a) for f, a in _flags(args) if f in ("--config", "-c")):
        if not path.is_file():
            raise ConfigError("config", f"no file {str(path)!r}", "give an existing YAML file")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError("config", f"{str(path)!r} is not UTF-8", "save it so") from error
        except yaml.YAMLError as error:
            place = " ".join(str(error).split())
            raise ConfigError(
                "config", f"{str(path)!r} is not YAML ({place})", "mend it"
            ) from error
        if not isinstance(content, dict | None):
            raise ConfigError(
                "config", f"{str(path)!r} is not a mapping of keys", "write key: value lines"
            )


def with_run_config(args: Sequence[str]) -> list[str]:
    """A checkpoint given without a config brings the one of its run; what is typed goes over it.

    Raises:
        ConfigError: no such checkpoint.
    """
    args = list(args)
    flags = dict(_flags(args))
    path = flags.get("--ckpt_path")
    if path is None or path == "null":
        return args
    checkpoint = Path(path)
    if not checkpoint.is_file():
        raise ConfigError("ckpt_path", f"no file {path!r}", "give a run's checkpoints/last.ckpt")
    if not {"--config", "-c"} & set(flags):
        config = checkpoint.resolve().parent.parent / "config.yaml"
        if not config.is_file():
            raise ConfigError("config", f"no {config} beside the checkpoint", "give --config FILE")
        # its folder may have been moved, or the command be typed elsewhere: go on where it lies
        root = ["--trainer.default_root_dir", str(config.parent)]
        args[1:1] = ["--config", str(config), *root]
    return args


def underscored(arg: str) -> str:
    """A flag typed with dashes, ``--gpu-gib=8``, as its key is spelled; all else as it is."""
    flag, equals, value = arg.partition("=")
    if not flag.startswith("--"):
        return arg
    return "--" + flag[2:].replace("-", "_") + equals + value


def _flags(args: Sequence[str]) -> list[tuple[str, str]]:
    """Flags with their values, written ``--flag value`` or ``--flag=value``."""
    found = []
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        flag, equals, value = arg.partition("=")
        if flag.startswith("-"):
            found.append((flag, value if equals else following))
    return found


def _check_command(command: str) -> None:
    if command in COMMANDS:
        return
    if command.startswith("-"):
        raise ConfigError(
            "command", f"{command!r} stands before it", "type the command first: fit ..."
        )
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(COMMANDS)}"
    raise ConfigError("command", f"there is no {command!r}", hint)


if __name__ == "__main__":
    raise SystemExit(main())
