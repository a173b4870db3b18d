"""Runs inside the bubblewrap sandbox: one program with all its calls, one report line per call.

Do not trust this process once the program has started, because the program shares it and can forge
the report. That gains it nothing: the report holds values but no verdict, and a program may return
any value it likes. This file imports nothing from the package, which does not exist in the sandbox:
the interpreter gets the file's text.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

#: Largest file, in bytes; the size of the scratch folder is limited by its file system.
MAX_FILE = 16 * 2**20
MAX_FILES_OPEN = 64


def restrict(seconds: int, memory: int) -> None:
    """Set hard limits: CPU time in seconds, memory in bytes. No second process can start."""
    most = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: MAX_FILE,
        resource.RLIMIT_NOFILE: MAX_FILES_OPEN,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_STACK: 8 * 2**20,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    for limit, value in most.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def check(value: object) -> None:
    """Raise TypeError for values that JSON would change: subclasses, sets, keys other than str."""
    kind = type(value)
    if kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]
            check(item)
    elif kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise TypeError("a dict with a key that is not str")
            check(item)
    elif value is not None and kind not in (bool, int, float, str):
        raise TypeError("not None, bool, int, float, str, list, tuple or dict")


def play(job: dict[str, Any], tell: Callable[..., None]) -> None:
    """Run the source, call the function for each case, and report each value."""
    out = sys.stdout
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    # the cases are Python literals, because JSON has no tuples
    cases = [eval(case, {"__builtins__": {}}) for case in job["cases"]]
    try:
        exec(compile(job["source"], "<program>", "exec", dont_inherit=True), namespace)
        for arguments in cases:
            value = eval(job["function"], namespace)(*arguments)
            check(value)
            tell("value", value)
        if job["function"] is None:
            out.flush()
    except MemoryError as error:
        error.__traceback__ = None
        namespace.clear()  # writing the report needs some memory
        raise


def main() -> None:
    """Read the job from standard input, run it, and write the report to the job's pipe."""
    job = json.loads(sys.stdin.buffer.read())
    restrict(job["cpu_seconds"], job["memory"])
    report, null = os.dup(job["report"]), os.open(os.devnull, os.O_RDWR)
    os.close(job["report"])
    for standard in (0, 2) if job["function"] is None else (0, 1, 2):
        os.dup2(null, standard)
    encode, write = json.JSONEncoder(allow_nan=False, check_circular=False).encode, os.write
    nonce = job.pop("nonce")

    def tell(*words: object) -> None:
        line = f"{nonce} {encode(words)}\n".encode()
        while line:
            line = line[write(report, line) :]

    leave = os._exit  # skips the program's atexit functions, threads and destructors
    try:
        tell("started")
        play(job, tell)
        tell("end")
    except BaseException as error:
        kind, text = type(error).__name__, ""
        try:
            text = str(error)[:200]
        finally:
            tell("raised", kind, text)
            leave(1)
    leave(0)


if __name__ == "__main__":
    main()
