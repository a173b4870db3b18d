"""Attacks through what the kernel shares between all programs of a user or readers of a file."""

from sandbox.attack import STARTED, Attack
from sandbox.attacks_reach import CALL, direct
from sandbox.attacks_resources import REFUSED

S = STARTED
#: Opens a file and a folder of the host that every sandbox sees: ``library`` and ``folder``.
HOST = (
    f"import fcntl, os\n{REFUSED}library = os.open(os.__file__, os.O_RDONLY)\n"
    "folder = os.open(os.path.dirname(os.__file__), os.O_RDONLY)\n"
    "null = os.open(os.devnull, os.O_RDWR)\nr, w = os.pipe()\n"
    "own = os.open('own', os.O_RDONLY | os.O_CREAT, 0o600)\n"
)
LIMITS = [
    direct("inotify and fanotify", 253, 294, 300),
    Attack(
        "all inotify instances of the user",
        "ok",
        f"import ctypes\n{S}\n"
        "print(sum(ctypes.CDLL(None).inotify_init1(0) >= 0 for _ in range(60)))",
        says="started\n0\n",
    ),
    Attack(
        "contexts for asynchronous reads, which are limited for the whole machine",
        "ok",
        f"{CALL}context = ctypes.c_ulong(0)\n{S}\ncall(206, 99, ctypes.addressof(context))",
        says="refused",
    ),
    Attack(
        "timers, which count as signals of the user",
        "ok",
        f"{CALL}timer = ctypes.c_int(0)\n{S}\ncall(222, 1, 0, ctypes.addressof(timer))",
        says="refused",
    ),
    Attack(
        "signals that wait in a queue",
        "ok",
        f"{CALL}import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [34])\n"
        "info = (ctypes.c_int * 32)(34, 0, -1)\n"
        f"{S}\nfor number, ids in ((129, [os.getpid()]), (297, [os.getpid()] * 2)):\n"
        "    call(number, *ids, 34, ctypes.addressof(info))",
        says="refused\nrefused",
    ),
    Attack(
        "open files in flight, which no process holds",
        "ok",
        f"import array, socket\n{REFUSED}a, b = socket.socketpair()\n{S}\n"
        "fds = array.array('i', [a.fileno()] * 250)\n"
        "refused(a.sendmsg, [b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])",
        says="PermissionError\n",
    ),
    Attack(
        "large pipes, whose pages count for the user",
        "ok",
        f"{HOST}{S}\nrefused(fcntl.fcntl, w, 1031, 2**20)",
        says="PermissionError\n",
    ),
    direct("filters and rules of its own", 317, 444, arguments="2, 0, 0, 0, 0"),
    direct("pages moved between pipes", 275, 276, 278),
]
FILES = [
    Attack(
        "leases on files",
        "ok",
        f"{HOST}{S}\nfor f in (library, own): refused(fcntl.fcntl, f, 1024, fcntl.F_RDLCK)\n"
        "refused(fcntl.fcntl, own, 1025)",
        says="PermissionError\nPermissionError\nPermissionError\n",
    ),
    Attack(
        "notices of what happens in a folder",
        "ok",
        f"{HOST}{S}\nfor f in (folder, os.open('/tmp', 0)): refused(fcntl.fcntl, f, 1026, 1)",
        says="PermissionError\nPermissionError\n",
    ),
    Attack(
        "signals sent by files",
        "ok",
        f"{HOST}import struct\n{S}\nfor f in (library, r):\n"
        "    refused(fcntl.fcntl, f, fcntl.F_SETOWN, os.getpid())\n"
        "    refused(fcntl.fcntl, f, 10, 9)\n"
        "    refused(fcntl.fcntl, f, 15, struct.pack('ii', 1, os.getpid()))\n"
        "    refused(fcntl.ioctl, f, 0x5452, struct.pack('i', 1))\n"
        "    refused(fcntl.ioctl, f, 0x8901, struct.pack('i', os.getpid()))",
        says=("PermissionError\n" * 3 + "OSError\n" * 2) * 2,
    ),
    Attack(
        "locks on files of the host",
        "ok",
        f"{HOST}import struct\nlock = struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0)\n{S}\n"
        "for f in (library, folder, null):\n    refused(fcntl.flock, f, fcntl.LOCK_EX)\n"
        "    refused(fcntl.flock, f, fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
        "for f in (library, null):\n    for c in (37, 38): refused(fcntl.fcntl, f, c, lock)",
        says="PermissionError\n" * 10,
    ),
    Attack(
        "hints about the life of a file",
        "ok",
        f"{HOST}{S}\nfor c in (1036, 1038): refused(fcntl.fcntl, own, c, bytes(8))",
        says="PermissionError\nPermissionError\n",
    ),
    Attack(
        "futex in a file of the host",
        "ok",
        f"{HOST}{CALL}libc.mmap.restype = ctypes.c_void_p\n"
        f"place = libc.mmap(None, 4096, 1, 1, library, 0)\n{S}\n"
        "call(202, place, 0, 0, id(b''), 0, 0)\ncall(202, place, 1, 9, 0, 0, 0)\n"
        "print(libc.syscall(202, ctypes.c_void_p(place), 129, 9, None, None, 0))",
        says="refused\nrefused\n0\n",
    ),
    Attack(
        "which pages of the host's files are in memory",
        "ok",
        f"{HOST}{CALL}libc.mmap.restype = ctypes.c_void_p\n"
        f"place = libc.mmap(None, 4096, 1, 1, library, 0)\nfound = ctypes.c_int()\n{S}\n"
        "call(27, place, 4096, ctypes.addressof(found))\n"
        "refused(os.posix_fadvise, library, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        "call(187, library, 0, 4096)\n"
        "call(451, library, id(b'x' * 16) + 32, id(b'y' * 80) + 32, 0)",
        says="refused\nPermissionError\nrefused\nrefused\n",
    ),
    direct("pages and processors of others", 324, 237, 238, 256, 279, 251, 277),
    Attack(
        "sockets of families that make the kernel load modules",
        "ok",
        f"import socket\n{REFUSED}{S}\nfor f in (2, 10, 16, 30, 38, 40):\n"
        "    refused(socket.socketpair, f)",
        says="PermissionError\n" * 6,
    ),
]
SHARED = LIMITS + FILES
