"""Attacks on time, memory, disk, processes and files of the host."""

import base64
import zlib

from sandbox.attack import STARTED, Attack

S = STARTED
#: 150 MB of zeros, compressed twice.
PACKED = base64.b85encode(zlib.compress(zlib.compress(bytes(15 * 10**7)))).decode()
#: Defines ``refused(f, ...)``, which prints the class of the OSError that f raises.
REFUSED = (
    "def refused(f, *a):\n"
    "    try:\n        f(*a)\n        print('REACHED', f, flush=True)\n"
    "    except OSError as e: print(type(e).__name__, flush=True)\n"
)

TIME = [
    Attack("endless loop", "timeout", f"{S}\nwhile True: pass", "timeout"),
    Attack(
        "loop that swallows every exception",
        "timeout",
        f"{S}\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "timeout",
    ),
    Attack("sleep", "timeout", f"import time\n{S}\ntime.sleep(1000)", "ok"),
    Attack("loop in C", "timeout", f"{S}\nsum(range(10**18))", "timeout"),
    Attack("endless iterator in C", "timeout", f"{S}\n1.5 in iter(int, 1)", "timeout"),
    Attack(
        "huge power",
        "timeout memory",
        f"{S}\nx = 10**9999\nx = x**9999\nx = x**9",
        "timeout memory",
    ),
    Attack(
        "regular expression that backtracks",
        "timeout",
        f"import re\n{S}\nre.match('(a+)+$', 'a' * 60 + 'b')",
        "ok error timeout",
    ),
    Attack(
        "ignored signals",
        "timeout",
        f"import signal\n{S}\nfor s in set(signal.Signals) - {{9, 19}}:\n"
        "    signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
    ),
    Attack("stops itself", "timeout", f"import os, signal\n{S}\nos.kill(os.getpid(), 19)"),
    Attack("new session", "timeout", f"import os\n{S}\nos.setsid()\nwhile True: pass"),
    Attack(
        "refuses to die with its parent",
        "timeout",
        f"import ctypes\nlibc = ctypes.CDLL(None)\n{S}\nlibc.prctl(1, 0)\nlibc.prctl(4, 0)\n"
        "while True: pass",
    ),
    Attack(
        "closes all files and goes on",
        "timeout",
        f"import os\n{S}\nos.closerange(0, 1000)\nwhile True: pass",
    ),
    Attack("reads from its input", "error", f"{S}\ninput()"),
    Attack(
        "waits for its input",
        "ok",
        f"import sys\n{S}\nprint(repr(sys.stdin.read()))",
        says="''",
    ),
    Attack(
        "exception with an endless message",
        "timeout",
        f"class E(Exception):\n    def __str__(self):\n        while True: pass\n{S}\nraise E",
    ),
    Attack(
        "loop at exit",
        "ok",
        f"import atexit\n{S}\n@atexit.register\ndef f():\n"
        "    print('REACHED', flush=True)\n    while True: pass",
    ),
]
MEMORY = [
    Attack("huge integer", "memory", f"{S}\nx = 1 << 10**10", "memory"),
    Attack("list that grows", "memory", f"{S}\nx = [1]\nwhile True: x += x", "memory"),
    Attack("text that doubles", "memory", f"{S}\nx = 'ab'\nwhile True: x += x", "memory"),
    Attack(
        "bytearray that grows",
        "memory",
        f"{S}\nx = bytearray(1000)\nwhile True: x += bytes(10**7)",
    ),
    Attack(
        "dict that grows",
        "memory timeout",
        f"{S}\nx, i = {{}}, 0\nwhile True:\n    x[i] = 'x' * 1000 + str(i)\n    i += 1",
        "memory timeout",
    ),
    Attack(
        "swallowed shortage of memory",
        "ok timeout",
        f"{S}\nkept = []\nfor n in range(30, 0, -1):\n    try:\n        while True:\n"
        "            kept.append(bytearray(1 << n))\n    except MemoryError: pass\n"
        "kept.clear()",
    ),
    Attack("mapped memory", "error", f"import mmap\n{S}\nmmap.mmap(-1, 1 << 40)"),
    Attack(
        "bomb in a packed text",
        "memory timeout",
        f"import base64, zlib\n{S}\nx = base64.b85decode({PACKED!r})\n"
        "for _ in range(2): x = zlib.decompress(x)",
    ),
    Attack(
        "file in memory",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(os.memfd_create, 'x')",
        says="PermissionError",
    ),
    Attack("nested parentheses", "error memory", f"{S}\neval('(' * 5000 + ')' * 5000)", "error"),
    Attack("nested signs", "error memory", f"{S}\neval('-' * 10**6 + '1')", "error"),
    Attack("deep recursion", "error", f"def f(): return f()\n{S}\nf()", "error"),
    Attack(
        "recursion past the stack",
        "error memory",
        f"import sys\ndef f(): return sorted([1], key=lambda _: f())\n{S}\n"
        "sys.setrecursionlimit(10**9)\nf()",
    ),
    Attack("flood of output", "output", f"{S}\nwhile True: print('x' * 1000)", "output"),
    Attack(
        "flood on the error stream",
        "timeout",
        f"import sys\n{S}\nwhile True: print('x' * 1000, file=sys.stderr)",
        "timeout",
    ),
    Attack(
        "flood on every open file",
        "error output",
        f"import os\n{S}\nwhile True:\n    for n in range(64):\n"
        "        try: os.write(n, b'x' * 4096)\n        except OSError: pass",
    ),
]
DISK = [
    Attack(
        "disk flood",
        "ok",
        f"import os\n{S}\ntotal = 0\nfor n in range(100):\n    try:\n"
        "        with open(f'f{n}', 'wb') as f:\n            while True:\n"
        "                total += f.write(bytes(2**20))\n    except OSError: pass\n"
        "s = os.statvfs('.')\nprint(s.f_blocks * s.f_frsize == 2**24, total <= 2**25)",
        says="True True",
    ),
    Attack(
        "inode flood",
        "timeout ok error",
        f"{S}\nn = 0\nwhile True:\n    n += 1\n    open(f'{{n}}', 'w').close()",
    ),
    Attack(
        "flood of open files",
        "ok",
        f"{S}\nkept = []\ntry:\n    while True: kept.append(open('/dev/null'))\n"
        "except OSError: print(len(kept) < 64)",
        says="True",
    ),
]
PROCESSES = [
    Attack(
        "fork bomb",
        "error",
        f"import os\n{S}\nwhile True:\n    os.fork()\n    print('REACHED', flush=True)",
    ),
    Attack(
        "fork chain",
        "error",
        f"import os\n{S}\nwhile True:\n    if os.fork(): os._exit(0)\n"
        "    print('REACHED', flush=True)",
    ),
    Attack(
        "daemon by two forks",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(os.fork)\nos.setsid()\nrefused(os.fork)",
        says="PermissionError\nPermissionError",
    ),
    Attack(
        "other programs",
        "ok",
        f"import os, subprocess, sys\n{REFUSED}{S}\nrefused(subprocess.run, [sys.executable])\n"
        "refused(os.posix_spawn, sys.executable, ['x'], {})\nrefused(subprocess._fork_exec) if 0 "
        "else print(os.system('true') != 0)",
        says="PermissionError\nPermissionError\nTrue",
    ),
    Attack(
        "thread bomb",
        "error memory timeout",
        f"import threading, time\n{S}\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(1000,)).start()",
    ),
    Attack(
        "bomb of tiny threads",
        "error memory timeout",
        f"import threading, time\nthreading.stack_size(32768)\n{S}\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(1000,)).start()",
    ),
    Attack(
        "becomes another program",
        "error",
        f"import os, sys\n{S}\nos.execv(sys.executable, ['x', '-c', 'print(1)'])",
    ),
    Attack("signal to its keeper", "ok error", f"import os\n{S}\nos.kill(os.getppid(), 9)"),
    Attack("signal to the first process", "ok error", f"import os\n{S}\nos.kill(1, 9)"),
    Attack("signal to all", "ok error", f"import os\n{REFUSED}{S}\nrefused(os.kill, -1, 9)"),
    Attack(
        "signal to the host's process",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(os.kill, @PID@, 9)\nrefused(os.killpg, @PID@, 9)",
        says="ProcessLookupError\nProcessLookupError",
    ),
]
RESOURCES = TIME + MEMORY + DISK + PROCESSES
