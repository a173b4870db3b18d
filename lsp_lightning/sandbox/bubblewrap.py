"""A sandbox for all of Python: CPython in bubblewrap, with hard limits and a seccomp filter."""

import json
import math
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.sandbox.base import (
    KEY,
    Limits,
    Outcome,
    Program,
    Sandbox,
    SandboxError,
    one_line,
)
from lsp_lightning.sandbox.plain import plain
from lsp_lightning.sandbox.reading import Reading, read
from lsp_lightning.sandbox.seccomp import seccomp_filter, supported

RUNNER = Path(__file__).with_name("runner.py")
REMEDY = "use the default lsp_lightning.sandbox.MontySandbox"
#: The first version with ``--disable-userns``.
OLDEST = (0, 8)
#: Size of the scratch folder, the only place where a program can write, in bytes.
SCRATCH_BYTES = 16 * 2**20
#: Largest size of a report line without its value, in bytes.
LINE_BYTES = 64
#: Largest size of the report without its values (start, end, an exception's message), in bytes.
REPORT_BYTES = 8192
PROBE_LIMITS = Limits(seconds=10.0)

#: Tries everything that the sandbox must stop; prints what worked, then "tried".
PROBE = """
import os, socket
def attempt(name, attack):
    try:
        attack()
    except OSError:
        return
    print(name)
def fork():
    if os.fork() == 0:
        os._exit(0)
attempt("reading files of the host", lambda: open({secret!r}).read())
attempt("writing files of the host", lambda: open({target!r}, "w"))
attempt("writing beside the scratch folder", lambda: open("/here", "w"))
attempt("reaching the network", lambda: socket.create_connection(("127.0.0.1", {port}), 1))
attempt("starting processes", fork)
print("tried")
"""


class BubblewrapSandbox(Sandbox):
    """Runs each program in a new CPython process that cannot see the host.

    A program has the standard library, read-only, and a scratch folder of 16 MiB in memory. It has
    no network, no ``/proc``, no environment variables, no second process or thread, and nothing
    that the kernel shares between sandboxes (file locks, inotify).

    Needs the system package ``bubblewrap`` (0.8 or later) and a kernel that allows user namespaces;
    Docker's default settings and some distributions do not.

    Two weaknesses remain. Memory that the kernel itself spends on a program (on empty files, for
    example) is bounded by the time limit only: about 100 MiB a second. And a program can escape
    through a bug in the kernel.
    """

    def _probe(self) -> None:
        if shutil.which("bwrap") is None:
            remedy = f"install bubblewrap 0.8 or later, or {REMEDY}"
            raise ConfigError(KEY, "bubblewrap is not installed", remedy)
        if not supported():
            problem = f"bubblewrap is not supported on {platform.machine()} (no seccomp filter)"
            raise ConfigError(KEY, problem, REMEDY)
        version = _version()
        if version is not None and version < OLDEST:
            problem = f"bubblewrap is version {'.'.join(map(str, version))}"
            raise ConfigError(KEY, problem, f"install 0.8 or later, or {REMEDY}")
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.create_server(("127.0.0.1", 0)) as host,
        ):
            secret, target = Path(folder, "secret"), Path(folder, "target")
            secret.write_text("secret", encoding="utf-8")
            source = PROBE.format(
                secret=str(secret), target=str(target), port=host.getsockname()[1]
            )
            try:
                outcome = self._execute(Program(source), PROBE_LIMITS)
            except SandboxError as error:
                remedy = f"install version 0.8 or later and allow user namespaces, or {REMEDY}"
                raise ConfigError(KEY, f"bubblewrap fails here ({error})", remedy) from error
        if outcome.status != "ok":
            problem = f"a test program fails in bubblewrap ({outcome.detail})"
            raise ConfigError(KEY, problem, REMEDY)
        if outcome.output != "tried\n":
            worked = ", ".join(outcome.output.split("\n")[:-2])
            problem = f"bubblewrap does not isolate programs on this machine: it allows {worked}"
            raise ConfigError(KEY, problem, REMEDY)

    def _run(self, program: Program) -> Outcome:
        return self._execute(program, self.limits)

    def _execute(self, program: Program, limits: Limits) -> Outcome:
        try:
            return self._box_up(program, limits)
        except OSError as error:  # the host has no file, pipe or process left
            raise SandboxError(f"bubblewrap could not be started: {error}") from error

    def _box_up(self, program: Program, limits: Limits) -> Outcome:
        nonce = secrets.token_hex(16)
        with ExitStack() as files:
            reader, writer = os.pipe()
            report = files.enter_context(open(reader, "rb", buffering=0))
            written = files.enter_context(open(writer, "wb", buffering=0))
            job = {
                "source": program.source,
                "function": program.function,
                "cases": [repr(case) for case in program.cases],
                "nonce": nonce,
                "report": writer,
                "cpu_seconds": math.ceil(limits.seconds) + 1,
                "memory": limits.memory_mib * 2**20,
            }
            stdin = files.enter_context(_memory_file(json.dumps(job).encode()))
            stderr = files.enter_context(_memory_file(b""))
            rules = files.enter_context(_memory_file(seccomp_filter(platform.machine())))
            process = subprocess.Popen(
                [*_box(rules.fileno(), program.world), *_interpreter()],
                stdin=stdin,
                stdout=subprocess.PIPE if program.function is None else subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(writer, rules.fileno()),
                env={},
            )
            written.close()  # else the reader would never see the end of the report
            with process:
                try:
                    room = REPORT_BYTES + LINE_BYTES * len(program.cases)
                    room += limits.output_bytes if program.cases else 0
                    reading = read(process, report, limits.seconds, limits.output_bytes, room)
                finally:
                    process.kill()  # --die-with-parent: the kernel kills everything inside as well
            if not reading.started:
                stderr.seek(0)
                message = one_line(stderr.read(4096).decode(errors="replace").strip())
                raise SandboxError(message or f"bubblewrap ended with status {process.returncode}")
        return _outcome(program, limits, reading, nonce, process.returncode)


def _version() -> tuple[int, ...] | None:
    """The version of the installed bubblewrap; None if it does not say."""
    try:
        done = subprocess.run(
            ["bwrap", "--version"], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"bubblewrap (\d{1,9}(?:\.\d{1,9})+)", done.stdout)
    return tuple(map(int, found[1].split("."))) if found else None


def _memory_file(content: bytes) -> Any:
    """An open file in memory with this content, positioned at its start."""
    file = os.fdopen(os.memfd_create("sandbox"), "w+b", buffering=0)
    file.write(content)
    file.seek(0)
    return file


def _box(rules: int, world: int) -> list[str]:
    """The bubblewrap command; ``rules`` is the open file with the seccomp filter."""
    command = [
        shutil.which("bwrap") or "bwrap",  # found by the host's PATH, which the program cannot see
        *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *_libraries(),
        *_python(),
    ]
    # not --dev: its file system in memory has no size limit
    command += ["--dev-bind", "/dev/null", "/dev/null"]
    command += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/"]
    command += ["--chdir", "/tmp", "--setenv", "HOME", "/tmp", "--setenv", "MALLOC_ARENA_MAX", "1"]
    command += ["--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    command += ["--setenv", "PYTHONHASHSEED", str(world), "--seccomp", str(rules)]
    return command


def _libraries() -> list[str]:
    """Bind the system's shared libraries and their loader, but no programs.

    If root runs this, the program's user owns root's files on the host: bind nothing secret.
    """
    libraries = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    if not libraries.is_dir():  # this distribution has no folder per architecture
        libraries = Path("/usr/lib")
    arguments = ["--ro-bind", str(libraries), str(libraries)]
    for name in ("/usr/lib64", "/usr/lib/ld-linux-aarch64.so.1", "/etc/ld.so.cache"):
        arguments += ["--ro-bind-try", name, name]
    for name in ("/lib", "/lib64"):
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        else:
            arguments += ["--ro-bind-try", name, name]
    return arguments


def _python() -> list[str]:
    """Bind the interpreter and its standard library to ``/python``, without installed packages."""
    executable = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    arguments = ["--ro-bind", executable, "/python/bin/python"]
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for name in sorted({"lib", sys.platlibdir}):
        # the system's Python shares its lib folder with other programs
        folder = f"{name}/{version}" if sys.base_prefix == "/usr" else name
        arguments += ["--ro-bind-try", f"{sys.base_prefix}/{folder}", f"/python/{folder}"]
        packages = f"{name}/{version}/site-packages"
        if Path(sys.base_prefix, packages).is_dir():
            arguments += ["--tmpfs", f"/python/{packages}", "--remount-ro", f"/python/{packages}"]
    return arguments


def _interpreter() -> list[str]:
    """The command that runs ``runner.py``, without user site, bytecode caches or packages."""
    text = RUNNER.read_text(encoding="utf-8")
    # not -I, which would ignore PYTHONHASHSEED; --clearenv already empties the environment
    return ["--", "/python/bin/python", "-P", "-s", "-S", "-B", "-X", "utf8", "-c", text]


def _outcome(program: Program, limits: Limits, reading: Reading, nonce: str, code: int) -> Outcome:
    """The outcome, from the report, the output and the exit status; any doubt is an error."""
    output = reading.output[: limits.output_bytes].decode(errors="replace")
    if reading.stopped == "timeout":
        return Outcome("timeout", output, detail=f"not done after {limits.seconds} s")
    if reading.stopped == "output":
        return Outcome("output", output, detail="printed more than the limit")
    if reading.stopped == "report":
        return Outcome("error", output, detail="returned more than the limit")
    try:
        lines = [_line(line, nonce) for line in reading.report.split(b"\n")[1:-1]]
        last = lines.pop() if lines else []
        if last[:1] == ["raised"] and code == 1:
            kind, text = str(last[1]), str(last[2])
            detail = one_line(f"{kind}: {text}" if text else kind)
            return Outcome("memory" if kind == "MemoryError" else "error", output, detail=detail)
        if last != ["end"] or code != 0:
            return Outcome("error", output, detail=f"exited early, status {code}")
        values = [value for word, value in lines if word == "value"]
        if len(lines) != len(program.cases) or len(values) != len(lines):
            detail = f"{len(lines)} results for {len(program.cases)} cases"
            return Outcome("error", output, detail=detail)
        answers = plain(values, limits.output_bytes)
    except (ValueError, IndexError, RecursionError) as error:
        return Outcome("error", output, detail=one_line(f"invalid report: {error}"))
    return Outcome("ok", output, tuple(answers) if isinstance(answers, list) else ())


def _line(line: bytes | bytearray, nonce: str) -> list[Any]:
    """One line of the report, decoded.

    Raises:
        ValueError: the runner did not write this line, or it is not a JSON list.
        RecursionError: it is nested too deeply.
    """
    mark, _, text = line.decode().partition(" ")
    words = json.loads(text)
    if mark != nonce or type(words) is not list:
        raise ValueError("a forged report line")
    return words
