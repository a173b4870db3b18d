"""Attacks on the host's files, network, secrets and kernel."""

from sandbox.attack import STARTED, Attack
from sandbox.attacks_resources import REFUSED

S = STARTED
#: Defines ``call(number, ...)``: makes a system call and prints whether it was refused.
CALL = (
    "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "def call(*a):\n"
    "    r = libc.syscall(*(ctypes.c_long(x) for x in a))\n"
    "    print('refused' if r == -1 and ctypes.get_errno() in (1, 38) else 'REACHED', flush=True)\n"
)


def direct(name: str, *numbers: int, arguments: str = "0, 0, 0, 0, 0") -> Attack:
    """System calls by number (x86_64), without functions of Python or libc."""
    lines = "\n".join(f"call({number}, {arguments})" for number in numbers)
    says = "\n".join(["refused"] * len(numbers))
    return Attack(f"direct call: {name}", "ok", f"{CALL}{S}\n{lines}", says=says)


FILES = [
    Attack(
        "reads a secret of the host",
        "error",
        f"{S}\nprint(open(@SECRET_FILE@).read())",
        "error",
    ),
    Attack(
        "reads keys and accounts",
        "ok",
        f"import os\n{REFUSED}{S}\nfor p in ('/etc/shadow', '/etc/passwd', '/root', '/home', "
        "os.path.expanduser('~/.ssh'), @PROJECT@): refused(os.open, p, os.O_RDONLY)",
        says="FileNotFoundError\n" * 6,
    ),
    Attack(
        "looks for the project and its tests",
        "ok",
        f"import os\n{S}\nall = [os.path.join(d, f) for d, _, fs in os.walk('/') for f in fs]\n"
        "print('REACHED' if any('lsp_lightning' in f or 'test_attacks' in f for f in all) "
        "else 'nothing', sorted(os.listdir('/')))",
        says="nothing ['dev', 'etc', 'lib', 'lib64', 'python', 'tmp', 'usr']",
    ),
    Attack("writes to the host", "error", f"{S}\nopen(@TARGET@, 'w').write('x')", "error"),
    Attack(
        "writes wherever it can",
        "ok",
        f"import os\n{S}\nfor d, _, _ in os.walk('/'):\n    try:\n"
        "        open(os.path.join(d, 'dropped.py'), 'w')\n        print('writable', d)\n"
        "    except OSError: pass\nprint('over')",
        says="started\nwritable /tmp\nover\n",
    ),
    Attack(
        "dots, symbolic and hard links",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(open, '../../../../..' + @SECRET_FILE@)\n"
        "os.symlink(@SECRET_FILE@, 'link')\nrefused(open, 'link')\n"
        "refused(os.link, @SECRET_FILE@, 'hard')\nrefused(os.link, os.__file__, 'hard')\n"
        "refused(os.chmod, os.__file__, 0o777)",
        says="FileNotFoundError\nFileNotFoundError\nFileNotFoundError\nOSError\nPermissionError\n",
    ),
    Attack(
        "drops modules for the next run",
        "ok",
        f"import os\n{S}\nfor m in ('json', 'os', 'sitecustomize', 'usercustomize', 'encodings'):\n"
        "    open(f'/tmp/{m}.py', 'w').write('print(\"REACHED\")')",
    ),
    Attack(
        "changes the mode of the host's devices",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(os.chmod, os.devnull, 0o666)\n"
        "refused(os.chown, os.devnull, -1, -1)\nrefused(os.utime, os.devnull)\n"
        "for n in range(64):\n    try: os.fstat(n)\n    except OSError: continue\n"
        "    refused(os.fchmod, n, 0o666)",
        says="PermissionError\n" * 7,
    ),
    Attack(
        "attributes of files, which take memory",
        "ok",
        f"import os\nopen('x', 'w').close()\n{REFUSED}{S}\n"
        "refused(os.setxattr, 'x', 'user.a', bytes(60000))",
        says="Error\n",
    ),
    Attack(
        "memory in the buffers of sockets",
        "ok",
        f"import socket\n{REFUSED}a, b = socket.socketpair()\n{S}\n"
        "refused(a.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 10**9)",
        says="PermissionError\n",
    ),
    Attack(
        "makes devices",
        "ok",
        f"import os, stat\n{REFUSED}{S}\nfor n in (0x801, 0xfe00, 0x101):\n"
        "    refused(os.mknod, f'/tmp/{n}', 0o666 | stat.S_IFBLK, n)\n"
        "    refused(os.mknod, f'/tmp/{n}', 0o666 | stat.S_IFCHR, n)",
        says="PermissionError\n" * 6,
    ),
    Attack(
        "reads what the kernel tells of processes",
        "ok",
        f"import os\n{REFUSED}{S}\nfor p in ('1/environ', '1/root', 'self/mountinfo', 'self/maps', "
        "'kmsg', 'sys/kernel/core_pattern'): refused(os.open, '/proc/' + p, os.O_RDONLY)",
        says="FileNotFoundError\n" * 6,
    ),
    Attack(
        "mounts its own view of processes",
        "ok",
        f"{CALL}import os\nos.mkdir('/tmp/p')\n{S}\n"
        "r = libc.mount(b'proc', b'/tmp/p', b'proc', 0, None)\nprint(r, ctypes.get_errno())",
        says="-1 1",
    ),
    Attack(
        "reads secrets of the environment",
        "ok",
        f"import os, ctypes\n{S}\n"
        "print(dict(os.environ), ctypes.CDLL(None).getenv(b'@SECRET_NAME@'))",
    ),
    Attack(
        "reads the environment's secret by name",
        "error",
        f"import os\n{S}\nos.environ['PATH']",
        "error",
    ),
    Attack(
        "looks at its inherited files",
        "ok",
        f"import os\n{S}\nfor n in range(3, 64):\n    try: print('file', n, os.fstat(n).st_mode)\n"
        "    except OSError: pass\nprint(os.read(0, 9))",
        says="b''",
    ),
]
NETWORK = [
    Attack(
        "connects to the outside",
        "ok",
        f"import socket\n{REFUSED}{S}\nrefused(socket.create_connection, ('1.1.1.1', 53), 1)\n"
        "refused(socket.getaddrinfo, 'example.com', 80)\n"
        "refused(socket.create_server, ('0.0.0.0', 8000))",
        says="PermissionError\ngaierror\nPermissionError\n",
    ),
    Attack(
        "connects to a service of the host",
        "ok",
        f"import socket\n{REFUSED}{S}\nfor h in ('127.0.0.1', 'localhost', '::1'):\n"
        "    refused(socket.create_connection, (h, @PORT@), 1)",
        says="started\n",
    ),
    Attack(
        "other families of sockets",
        "ok",
        f"import socket\n{REFUSED}{S}\nfor f in (1, 10, 16, 17, 31, 38, 40, 44):\n"
        "    refused(socket.socket, f, socket.SOCK_STREAM)",
        says="PermissionError\n" * 8,
    ),
    Attack(
        "socket of a pair made into a connection",
        "ok",
        f"import socket\na, b = socket.socketpair(type=socket.SOCK_DGRAM)\n{REFUSED}{S}\n"
        "refused(a.sendto, b'x', @UNIX_PATH@)\nrefused(a.sendto, b'x', '\\0' + @UNIX_NAME@)",
        says="FileNotFoundError\nConnectionRefusedError\n",
    ),
]
KERNEL = [
    Attack("crash by a null pointer", "error", f"import ctypes\n{S}\nctypes.string_at(0)"),
    Attack(
        "crash by its own code object",
        "error",
        f"import types\ndef f(): pass\n{S}\n"
        "exec(f.__code__.replace(co_code=b'\\x64\\xff' * 99, co_stacksize=0))",
    ),
    direct("fork and vfork", 57, 58),
    direct("clone", 56, arguments="17, 0, 0, 0, 0"),
    Attack(
        "threads past libc, which root's limits do not count",
        "ok",
        "import ctypes, mmap\nlibc = ctypes.CDLL(None)\nstack = mmap.mmap(-1, 65536)\n"
        "top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + 60000\n"
        f"{S}\nmade = [libc.clone(libc.pause, ctypes.c_void_p(top), 0x50F00, None) for _ in '99']\n"
        "print(set(made))",
        says="{-1}",
    ),
    direct("clone into new namespaces", 56, arguments="0x7E020011, 0, 0, 0, 0"),
    direct("clone3", 435, arguments="id(b''), 88, 0, 0, 0"),
    direct("ptrace and memory of others", 101, 310, 311, 434, 438),
    direct("unshare and setns", 272, 308, arguments="0x10000000, 0, 0, 0, 0"),
    direct("mounts", 165, 166, 155, 161, 428, 430, 442),
    direct("keys", 248, 249, 250),
    direct("bpf, perf, userfaultfd, io_uring", 321, 298, 323, 425, 426, 427),
    direct("modules and kexec", 175, 313, 246, 320, 169, 103),
    direct("memory that no limit counts", 319, 447, 29, 68, 64, 240),
    direct("socket", 41, arguments="40, 1, 0, 0, 0"),
    direct("calls newer than the filter", 457, 458, 467, 1000),
    Attack(
        "calls of the x32 interface",
        "error",
        f"import ctypes\n{S}\nctypes.CDLL(None).syscall(0x40000000 + 57)\nprint('REACHED')",
    ),
    Attack(
        "calls of the 32-bit interface",
        "error",
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        f"{S}\nprint('REACHED', f())",
    ),
    Attack(
        "raises its limits",
        "ok",
        f"import resource as r\n{S}\nfor n in range(16):\n    hard = r.getrlimit(n)[1]\n"
        "    try:\n        if hard != -1:\n            r.setrlimit(n, (-1, -1))\n"
        "            print('REACHED', n)\n    except (ValueError, OSError): pass\n"
        "print([r.getrlimit(n)[1] != -1 for n in (0, 1, 4, 7, 9)])",
        says="[True, True, True, True, True]",
    ),
    Attack(
        "limits of the first process",
        "ok error",
        f"import resource as r\n{S}\ntry: r.prlimit(1, r.RLIMIT_CPU, (0, 0))\n"
        "except OSError: print('refused')",
    ),
    Attack(
        "asks for capabilities and identities",
        "ok",
        f"import os\n{REFUSED}{S}\nrefused(os.setuid, 0)\nrefused(os.setgroups, [0])\n"
        "refused(os.chroot, '/tmp')\nrefused(os.nice, -5)\nrefused(os.sched_setscheduler, 0, 1, "
        "os.sched_param(9))\nprint(os.getuid(), os.getresuid())",
        says="65534 (65534, 65534, 65534)",
    ),
]
REACH = FILES + NETWORK + KERNEL
