"""A seccomp filter: the system calls that a sandboxed program may not make.

The filter is classic BPF, 8 bytes an instruction. It refuses what bubblewrap leaves open and what
could harm the host: new processes and threads, kernel memory that no limit counts, sockets, changes
to the modes of the host's files, and the calls that most kernel exploits start from.
"""

import platform
import struct

#: Offsets of a call's number and architecture in ``struct seccomp_data``, in bytes.
NUMBER, ARCHITECTURE = 0, 4
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
KILL, ALLOW = 0x8000_0000, 0x7FFF_0000
EPERM, ENOSYS = 0x0005_0001, 0x0005_0026
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
    "fanotify_init": (300, 262),
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


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def supported() -> bool:
    """Whether the table has the call numbers of this machine."""
    return platform.machine() in ARCHITECTURES


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
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            program += [_instruction(EQUAL, number, if_false=1), _instruction(RETURN, EPERM)]
    program.append(_instruction(RETURN, ALLOW))
    return b"".join(program)
