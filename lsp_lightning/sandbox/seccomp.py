"""A seccomp filter: the system calls that a sandboxed program may not make.

The filter is classic BPF, 8 bytes an instruction. It refuses what bubblewrap leaves open and what
could harm the host: new processes and threads, kernel memory that no limit counts, sockets, changes
to the modes of the host's files, and the calls that most kernel exploits start from. It also
refuses what the kernel shares between all programs of a user or all readers of a file (inotify,
locks, leases), because one sandbox could exhaust it or signal to another through it.
"""

import functools
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Offsets of a call's number, architecture and arguments in ``struct seccomp_data``, in bytes.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
KILL, ALLOW = 0x8000_0000, 0x7FFF_0000
EPERM, ENOTTY, ENOSYS = 0x0005_0001, 0x0005_0019, 0x0005_0026
#: The call does nothing and returns 0.
PRETEND = 0x0005_0000
#: Calls of the x32 interface carry this bit. Their numbers differ from those in the table below.
X32 = 0x4000_0000
#: The audit number of each architecture, and its column in the table below.
ARCHITECTURES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
#: First number of the calls that are newer than this table; one, ``statmount``, shows host paths.
UNKNOWN = 457

#: Refused calls: number on x86_64 and on aarch64 (None: the call does not exist there).
DENIED: dict[str, tuple[int | None, int | None]] = {
    # new processes, because each would get fresh limits; threads, because their number is not
    # limited for root, so they could use up all process numbers of the host
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    # access to other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "personality": (135, 92),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # the kernel itself and its log
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    # keys belong to the user, not to the namespace: the program could read root's keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large and often exploited; calls made through io_uring also bypass this filter
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    # limited for all processes of a user or of the machine together: one program could use them up
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "timer_create": (222, 107),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # these pass open files, which then count for the user and for no process
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # seen by everyone who opens the same file, also from another sandbox
    "flock": (73, 32),
    "futex_waitv": (449, 449),
    "futex_wake": (454, 454),
    "futex_wait": (455, 455),
    "futex_requeue": (456, 456),
    "mincore": (27, 232),
    "cachestat": (451, 451),
    "readahead": (187, 213),
    "fadvise64": (221, 223),
    # work of the whole machine: other programs' pages and processors
    "sync_file_range": (277, 84),
    "membarrier": (324, 283),
    "ioprio_set": (251, 30),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # some families ignore the network namespace (vsock reaches a virtual machine's host)
    "socket": (41, 198),
    # socketpair stays allowed; its buffers stay small because they cannot be enlarged
    "setsockopt": (54, 208),
    # memory that no process limit counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    # if root runs the sandbox, its user owns the host's /dev/null: protect mode, owner and times
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}

#: Calls that only pretend to work: a program's files are in memory, so there is nothing to flush,
#: while the same call on a file of the host would make its disk work.
PRETENDED: dict[str, tuple[int | None, int | None]] = {
    "sync": (162, 81),
    "syncfs": (306, 267),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
}


@dataclass(frozen=True)
class ByArgument:
    """A call that is decided by one of its arguments.

    Args:
        numbers: the call on x86_64 and on aarch64.
        argument: index of the argument; the kernel reads its low 32 bits.
        answers: the decision for each value.
        otherwise: the decision for every other value.
        mask: the bits of the argument to compare.
    """

    numbers: tuple[int, int]
    argument: int
    answers: Mapping[int, int]
    otherwise: int = EPERM
    mask: int = 0xFFFF_FFFF


#: Commands of fcntl that duplicate, read or set flags, or read a lock.
_FCNTL = dict.fromkeys((0, 1, 2, 3, 4, 5, 1030, 1032, 1034), ALLOW)
#: F_SETLK and F_SETLKW: a process never waits for its own locks, and it has its files for itself,
#: so success is the right answer (sqlite needs it). A real lock on a shared file would be a signal.
_LOCKS = dict.fromkeys((6, 7), PRETEND)
#: Commands of ioctl that set or clear FD_CLOEXEC and O_NONBLOCK, and count the bytes to read.
_IOCTL = dict.fromkeys((0x5450, 0x5451, 0x5421, 0x541B), ALLOW)
AF_UNIX, FUTEX_PRIVATE = 1, 128

BY_ARGUMENT = MappingProxyType(
    {
        # not: leases, notifications, owners and signals of a file, larger pipes, locks of a file
        "fcntl": ByArgument((72, 25), 1, _FCNTL | _LOCKS),
        # files in the sandbox are no terminals and no devices
        "ioctl": ByArgument((16, 29), 1, _IOCTL, ENOTTY),
        # a shared futex in a file of the host wakes processes in other sandboxes
        "futex": ByArgument((202, 98), 1, {FUTEX_PRIVATE: ALLOW}, mask=FUTEX_PRIVATE),
        # an unknown family makes the kernel load a module
        "socketpair": ByArgument((53, 199), 0, {AF_UNIX: ALLOW}),
    }
)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def supported() -> bool:
    """Whether the table has the call numbers of this machine."""
    return platform.machine() in ARCHITECTURES


@functools.cache
def seccomp_filter(machine: str) -> bytes:
    """The filter for ``platform.machine()``, as ``bwrap --seccomp`` reads it.

    Raises:
        KeyError: the table does not have this architecture.
    """
    architecture, column = ARCHITECTURES[machine]
    program = [
        # check the architecture first: 32-bit calls have other numbers
        _instruction(LOAD, ARCHITECTURE),
        _instruction(EQUAL, architecture, if_true=1),
        _instruction(RETURN, KILL),
        _instruction(LOAD, NUMBER),
        _instruction(AT_LEAST, X32, if_false=1),
        _instruction(RETURN, KILL),
        _instruction(AT_LEAST, UNKNOWN, if_false=1),
        _instruction(RETURN, ENOSYS),
    ]
    for table, decision in ((DENIED, EPERM), (PRETENDED, PRETEND)):
        for numbers in table.values():
            number = numbers[column]
            if number is not None:
                program += [_instruction(EQUAL, number, if_false=1), _instruction(RETURN, decision)]
    for rule in BY_ARGUMENT.values():
        checks = _checks(rule)
        number = rule.numbers[column]
        program += [_instruction(EQUAL, number, if_false=len(checks)), *checks]
    program.append(_instruction(RETURN, ALLOW))
    return b"".join(program)


def _checks(rule: ByArgument) -> list[bytes]:
    """The instructions that decide a call by its argument; they always end in a decision."""
    checks = [_instruction(LOAD, ARGUMENTS + 8 * rule.argument), _instruction(AND, rule.mask)]
    for value, decision in rule.answers.items():
        checks += [_instruction(EQUAL, value, if_false=1), _instruction(RETURN, decision)]
    return [*checks, _instruction(RETURN, rule.otherwise)]
