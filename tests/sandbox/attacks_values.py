"""Attacks on the return of values: on the runner in the sandbox, and on the report's reader."""

from sandbox.attack import STARTED, Attack

S = STARTED
#: Defines ``runner()``: the variables of the runner, with ``tell``, which writes the report.
FIND = (
    "import sys\ndef runner():\n    f = sys._getframe()\n"
    "    while 'tell' not in f.f_locals: f = f.f_back\n    return f.f_locals\n"
)


def back(name: str, ends: str, body: str, monty: str = "", before: str = "") -> Attack:
    """An attack from inside of the called function."""
    lines = "\n".join(f"    {line}" for line in f"{S}\n{body}".split("\n"))
    return Attack(name, ends, f"{before}\ndef attack():\n{lines}", monty, function="attack")


VALUES = [
    back("nested deeply", "error", "x = []\nfor _ in range(10**5): x = [x]\nreturn x", "error"),
    back("nested too deeply", "error", "x = []\nfor _ in range(200): x = [x]\nreturn x", "error"),
    back("holds itself", "error", "x = []\nx.append(x)\nreturn x", "error"),
    back("dict that holds itself", "error", "x = {}\nx['a'] = x\nreturn x", "error"),
    back(
        "shared parts, endless when written out",
        "error timeout memory",
        "x = [1]\nfor _ in range(60): x = [x, x]\nreturn x",
        "error timeout memory",
    ),
    back("not a number", "error", "return float('nan')", "error"),
    back("infinite", "error", "return [1, float('-inf')]", "error"),
    back("infinite when read", "error", "return 10**400 * 1.0", "error"),
    back("integer of ten thousand digits", "error", "return 10**9999", "error"),
    back("integer of a million bits", "error", "return 1 << 10**6", "error"),
    back("enormous text", "error", "return 'x' * 10**7", "error"),
    back("enormous list", "error", "return [0] * 10**5", "error"),
    back("half a character", "error", "return '\\ud800'"),
    back("set", "error", "return {1, 2}", "error"),
    back("bytes", "error", "return b'x'", "error"),
    back("complex number", "error", "return 1j", "error"),
    back("function", "error", "return attack", "error"),
    back("type", "error", "return int", "error"),
    back("range that looks like text", "error", "return range(3)", "error"),
    back("keys that are not text", "error", "return {1: 2}", "error"),
    back("no ellipsis", "error", "return ...", "error"),
    back(
        "object that equals everything",
        "error",
        "return A()",
        "error",
        before="class A:\n    def __eq__(self, other): return True",
    ),
    back("lying int", "error", "return L(1)", before="class L(int): __eq__ = lambda s, o: True"),
    back("lying str", "error", "return L('1')", before="class L(str): __eq__ = lambda s, o: True"),
    back("lying list", "error", "return L()", before="class L(list): __eq__ = lambda s, o: True"),
    back(
        "named tuple",
        "error",
        "return P(1, 2)",
        "error",
        before="from collections import namedtuple\nP = namedtuple('P', 'a b')",
    ),
    back(
        "object that claims another class",
        "error",
        "return C()",
        before="class C:\n    __class__ = property(lambda self: int)",
    ),
]
EXITS = [
    Attack("exit at once", "error", f"import sys\n{S}\nsys.exit(0)"),
    Attack("exit by exception", "error", f"{S}\nraise SystemExit(0)", "error"),
    Attack("exit past everything", "error", f"import os\n{S}\nos._exit(0)"),
    back("exit in the call", "error", "raise SystemExit(0)", "error"),
    back("exit past the runner", "error", "os._exit(0)", before="import os"),
    back("interrupt", "error", "raise KeyboardInterrupt", "error"),
    Attack(
        "hostile message",
        "error",
        f"{S}\nraise Exception('\\x1b[31mok\\n\\r\\u202e' * 1000)",
        "error",
    ),
    Attack("pretended time-out", "error", f"{S}\nraise TimeoutError('x')", "error"),
    Attack(
        "exception class with a hostile name",
        "error",
        f"{S}\nraise type('\\x1b[2J\\n' * 1000, (Exception,), {{}})",
    ),
]
FORGERY = [
    back(
        "forged line",
        "error",
        'for n in range(3, 64):\n    try: os.write(n, b\'["value", 1]\\n["end"]\\n\')\n'
        "    except OSError: pass\nreturn 1",
        before="import os",
    ),
    back(
        "forged line and exit",
        "error",
        'for n in range(64):\n    try: os.write(n, b\'started ["value", 1]\\nx ["end"]\\n\')\n'
        "    except OSError: pass\nos._exit(0)",
        before="import os",
    ),
    back("two results", "error", "runner()['tell']('value', 1)\nreturn 1", before=FIND),
    back(
        "result and exit",
        "error",
        "runner()['tell']('value', 1)\nos._exit(0)",
        before=f"import os\n{FIND}",
    ),
    back(
        "deep line of report",
        "error",
        "r = runner()['tell'].__closure__\nraw(r, b'[' * 5000)\nreturn 1",
        before=f"import os\n{FIND}\ndef raw(cells, text):\n"
        "    v = {type(c.cell_contents): c.cell_contents for c in cells}\n"
        "    os.write(v[int], v[str].encode() + b' ' + text + b'\\n')",
    ),
    back(
        "broken characters in the report",
        "error",
        "for n in range(3, 64):\n    try: os.write(n, b'\\xff\\xfe\\x00\\n')\n"
        "    except OSError: pass\nreturn 1",
        before="import os",
    ),
    back(
        "flood of the report",
        "error",
        "while True: runner()['tell']('value', 'x' * 10000)",
        before=FIND,
    ),
    back(
        "report without an end",
        "error",
        "for n in range(3, 64):\n    try: os.write(n, b'x' * 20000)\n"
        "    except OSError: pass\nos._exit(0)",
        before="import os",
    ),
    back(
        "closed report",
        "error",
        "os.closerange(0, 64)\nreturn 1",
        before="import os",
    ),
    back(
        "not a number, told to the report",
        "error",
        "c = {type(x.cell_contents): x.cell_contents for x in runner()['tell'].__closure__}\n"
        "os.write(c[int], c[str].encode() + b' [\"value\", NaN]\\n')\n"
        "os.write(c[int], c[str].encode() + b' [\"end\"]\\n')\nos._exit(0)",
        before=f"import os\n{FIND}",
    ),
    Attack(
        "broken characters in the output",
        "ok",
        f"import os\n{S}\nos.write(1, b'\\xff\\xc3\\x28')",
    ),
]
ESCAPES = [
    Attack(
        "walk over all classes",
        "ok error",
        f"{S}\nfor c in ().__class__.__base__.__subclasses__():\n"
        "    g = getattr(c.__init__, '__globals__', {})\n    if 'system' in g:\n"
        "        print('status', g['system']('id > /tmp/id') == 0)",
        "error",
    ),
    Attack(
        "functions restored by a reload",
        "error",
        f"import importlib, os, sys\nsys.modules.pop('posix')\nimport posix\n{S}\n"
        "importlib.reload(os).fork()\nprint('REACHED')",
    ),
    back(
        "patched runner",
        "ok error",
        "json.dumps = json.JSONEncoder.encode = lambda *a: '1'\nos.write = print\n"
        "os._exit = sys.exit = lambda *a: None\nbuiltins.type = lambda *a: int\n"
        "builtins.len = builtins.str = builtins.isinstance = None\nreturn 5",
        before="import builtins, json, os, sys",
    ),
    back(
        "traced runner",
        "ok error timeout",
        "sys.settrace(spy)\nf = sys._getframe()\nwhile f:\n    f.f_trace = spy\n    f = f.f_back\n"
        "return 5",
        before="import sys\ndef spy(frame, *_):\n    frame.f_locals.clear()\n    return spy",
    ),
    back(
        "objects found by the collector",
        "ok error",
        "for o in gc.get_objects():\n    if type(o) is dict and 'cases' in o: o.clear()\n"
        "for m in list(sys.modules.values()): vars(m).clear()\nreturn 5",
        before="import gc, sys",
    ),
    back(
        "all names deleted",
        "ok error",
        "for n in list(vars(builtins)): delattr(builtins, n)\nreturn 5",
        before="import builtins",
    ),
    back(
        "global names shadowed", "ok", "return 5", "ok", before="list = int = str = type = len = 0"
    ),
]
BACK = VALUES + EXITS + FORGERY + ESCAPES
