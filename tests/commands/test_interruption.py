"""Ctrl-C: the first one ends every command, whatever it is doing, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A shell that starts jobs behind itself leaves SIGINT ignored; a terminal does not.
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
COMMAND = HEARD + "from spacetime.__main__ import main; main()"
# A lock taken twice is native code that looks at no signal.
NATIVE = (
    "import ctypes; m = ctypes.create_string_buffer(64); "
    "lock = ctypes.CDLL(None).pthread_mutex_lock"
)
STUBBORN = (
    " while True:\n  try:\n   print(*said, flush=True)\n   lock(m), lock(m)\n"
    "  except BaseException: pass\n"
)
ENDING = HEARD + "from spacetime.interruption import *\n"


@contextmanager
def on_a_terminal(words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A process that leads a group on a terminal of its own; both ends of that."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process, ours, theirs
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def until(terminal: int, text: bytes) -> bytes:
    """All it writes up to `text`."""
    seen = b""
    while text not in seen:
        assert select.select([terminal], [], [], 100)[0], seen
        seen += os.read(terminal, 65536)
    return seen


def interrupted(
    words: Sequence[str], moment: bytes, says: bytes = b"spacetime: interrupted"
) -> bytes:
    """What a process writes that is interrupted, with all of its group, once it shows `moment`."""
    with on_a_terminal(words) as (process, ours, theirs):
        before = termios.tcgetattr(theirs)
        seen = until(ours, moment)
        os.killpg(process.pid, signal.SIGINT)
        seen += until(ours, says)
        assert process.wait(60) == 130
        assert termios.tcgetattr(theirs) == before
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            seen += os.read(ours, 65536)
    assert b"Traceback" not in seen
    assert b"terminate called" not in seen
    assert seen.rfind(b"\x1b[?25h") >= seen.rfind(b"\x1b[?25l"), "the cursor is hidden"
    return seen


@pytest.mark.parametrize(
    ("arguments", "moment"),
    [
        (("verify", "--device", "cpu"), b"loading PyTorch"),
        (("verify", "--device", "cpu"), b"opening partitions"),
        (("verify", "--device", "cpu"), b"pairs of partitions"),
        (("demo",), b"training models"),
        (("demo", "--model", "mobilenet", "--tenants", "2"), b"adding tenants"),
        (("bench", "models", "--quick"), b"bench models"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else value[0],
)
def test_a_command_ends_at_once(arguments: Sequence[str], moment: bytes, tmp_path: Path) -> None:
    out = () if arguments[0] != "demo" else ("--out", str(tmp_path))
    interrupted(["-c", COMMAND, *arguments, *out], moment)


def test_native_code_is_ended_and_so_is_what_swallows_the_interruption() -> None:
    code = f"{ENDING}{NATIVE}\nsaid = ['now']\nwith obeyed(0.1):\n{STUBBORN}"
    interrupted(["-c", code], b"now")


def test_a_thread_in_native_code_is_no_reason_to_abort(tmp_path: Path) -> None:
    body = (
        "import torch\n"
        "@torch.jit.script\n"
        "def busy(x: torch.Tensor):\n for _ in range(1000000000):\n  x = x + 1\n"
        "threading.Thread(target=busy, args=(torch.ones(8),), daemon=True).start()\n"
        "try:\n with obeyed():\n  print('now', flush=True); threading.Event().wait()\n"
        "except KeyboardInterrupt:\n os.write(2, b'spacetime: interrupted'); end_now(130)\n"
    )
    code = ENDING + "import os, threading\n" + body
    path = tmp_path / "busy_thread.py"  # TorchScript reads its source
    path.write_text(code)
    interrupted([str(path)], b"now")


def test_its_children_end_with_it() -> None:
    body = (
        "import subprocess\n"
        "kids = [subprocess.Popen(['cat'], stdin=subprocess.PIPE, start_new_session=s)"
        " for s in (False, True)]\n"
        "said = ['now', *(k.pid for k in kids), 'end']\n"
        f"{NATIVE}\nwith obeyed(0.1):\n{STUBBORN}"
    )
    seen = interrupted(["-c", ENDING + body], b" end")
    for pid in map(int, seen.split(b"now")[1].split(b" end")[0].split()):
        assert gone(pid)


def gone(pid: int) -> bool:
    """Whether a process that was told to end has; one that this one cannot wait for as a child."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], 60)[0])
    finally:
        os.close(end)


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from spacetime.interruption import obeyed\n"
        "with obeyed() as came:\n os.kill(os.getpid(), signal.SIGINT)\n assert not came()\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "went on\n"


def test_what_takes_ctrl_c_meanwhile_keeps_it() -> None:
    code = ENDING + (
        "import os\n"
        "with obeyed(0.05) as came, Interruption() as stop:\n"
        " os.kill(os.getpid(), signal.SIGINT)\n"
        " threading.Event().wait(0.5)\n"
        " assert stop.number == signal.SIGINT and not came()\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "went on\n"
