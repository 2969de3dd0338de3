"""One child process that serves a lane: started, asked, watched and ended from here."""

from __future__ import annotations

import builtins
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import spacetime
import spacetime._native as _native
from spacetime.errors import InvalidInput, LaneLost, ModelError, SpacetimeError
from spacetime.models.request import Work
from spacetime.processes.area import Area
from spacetime.processes.child import MOST_BYTES
from spacetime.processes.wire import NONSENSE, read_answers, write_batch

Answers = Any  # list[list[Tensor]] once it has answered
COMMAND = (sys.executable, "-m", "spacetime.processes.child")
ON_CORES = "spacetime.processes.hosted:Hosted"  # the class that holds models on cores
WITHIN = "SPACETIME_LANE"  # set in a lane's process, which opens no lanes in turn
_GUARD = """put what the script runs below `if __name__ == "__main__":`"""
LOOK_MS = 100  # between two looks at a process's heart
STILL_LOOKS = 20  # without a beat, after which a process is taken for hung
_STARTING_S = 120.0
_LEAVING_S = 5.0


class ChildProcess:
    """A process on `cores`, ready for models when made. Raises LaneLost where it does not start.

    host: the class that holds the models in the process, written `module:Class`; the process loads
    it. opens: the name and the kind of the device that the process opens for it; None: it gets the
    cores instead.

    Thread safety: run() by whoever holds `busy`; tell() by any thread; the rest likewise.
    """

    def __init__(
        self,
        lane: int,
        cores: Sequence[int],
        *,
        environment: Mapping[str, str] | None = None,
        host: str = ON_CORES,
        opens: tuple[str, str] | None = None,
        before_kill: Callable[[int], None] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        if WITHIN in os.environ:
            raise LaneLost(lane, f"it would be opened inside another lane's process: {_GUARD}")
        self.lane = lane
        self.cores = tuple(cores)
        self._before_kill = before_kill
        self.granted = 0  # cores or SMs, as the process sees them
        self.busy = Lock()
        self._telling = Lock()
        self._held = ExitStack()  # memory and socket
        try:
            self._page, self._inbox, self._outbox = self._area(), self._area(), self._area()
            self._mailbox = _native.Mailbox(self._page.fd)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._held.enter_context(self._control)
            with theirs:
                self._popen = self._started(theirs, dict(environment or {}), (host, opens), command)
            self.end_fd = os.pidfd_open(self._popen.pid)  # readable once it has ended
            self._held.callback(os.close, self.end_fd)
        except (OSError, RuntimeError) as why:  # of memory, of the system or of the mailbox
            self.release()
            raise LaneLost(lane, f"its process could not be started: {why}") from None
        self.pid = self._popen.pid
        self._await_ready()

    def _area(self) -> Area:
        area = Area.new()
        self._held.callback(area.close)
        return area

    def _started(
        self,
        theirs: socket.socket,
        environment: dict[str, str],
        loads: tuple[str, tuple[str, str] | None],
        command: Sequence[str],
    ) -> subprocess.Popen[bytes]:
        fds = {"mailbox": self._page.fd, "inbox": self._inbox.fd, "outbox": self._outbox.fd}
        host, opens = loads
        package = str(Path(spacetime.__file__).parent.parent)
        given = {
            "control": theirs.fileno(),
            **fds,
            "cores": self.cores,
            "parent": os.getpid(),
            "host": host,
            "open": opens,
            "path": [package, *(str(p) for p in sys.path)],
        }
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # A session of its own: what a terminal sends its group is not for a lane.
        return subprocess.Popen(
            [*command, json.dumps(given)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), WITHIN: "1"} | environment,
            pass_fds=[theirs.fileno(), *fds.values()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _await_ready(self) -> None:
        self._control.settimeout(_STARTING_S)
        try:
            said = self._control.recv(MOST_BYTES)
        except TimeoutError:
            said = b'{"failed": "it said nothing for so long"}'
        except OSError:
            said = b""
        self._control.settimeout(None)
        message = json.loads(said) if said else {}
        if "ready" in message:
            self.granted = int(message["granted"])
            return
        why = message.get("failed")
        if why is None:
            why = f"it {self.ended(_LEAVING_S)}"
        self.kill()
        self.release()
        raise LaneLost(self.lane, f"its process did not start: {why}")

    @property
    def alive(self) -> bool:
        """Whether it may be asked. A process that has died counts as alive until that is
        noticed."""
        return not self._mailbox.lost

    @property
    def beats(self) -> int:
        """Grows while the process is scheduled."""
        return self._mailbox.beats

    def run(self, batch: Sequence[Work]) -> Answers:
        """Flat outputs of each request; raises what the model raised, or LaneLost."""
        # Waking it before the batch is written was 40 us slower: Linux wakes it on this core.
        write_batch(self._inbox, batch)
        if not self._mailbox.call():
            raise LaneLost(self.lane, f"its process {self.pid} died while it ran the request")
        try:
            answers = read_answers(self._outbox)
        except NONSENSE as nonsense:
            self.kill()
            why = f"its process {self.pid} left no answer that can be read: {nonsense}"
            raise LaneLost(self.lane, why) from None
        if isinstance(answers, tuple):
            raise remote(*answers)
        return answers

    def tell(self, do: str, fd: int | None = None, **said: Any) -> dict[str, Any]:
        """Sends a message, with a descriptor; the reply. Raises InvalidInput, ModelError."""
        payload = json.dumps({"do": do, **said}).encode()
        try:
            with self._telling:
                socket.send_fds(self._control, [payload], [] if fd is None else [fd])
                reply = self._reply()
        except OSError:
            reply = b""
        if not reply:
            raise LaneLost(self.lane, f"its process {self.pid} {self.ended(_LEAVING_S)}")
        answer: dict[str, Any] = json.loads(reply)
        if "invalid" in answer:
            raise InvalidInput(*map(str, answer["invalid"]))
        if "raised" in answer:
            raise ModelError(str(said.get("name", "-")), remote(*map(str, answer["raised"])))
        return answer

    def _reply(self) -> bytes:
        """What it says to a message, however long it takes; nothing where it has ended or hangs."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        pulse = Pulse(self)
        while not poll.poll(LOOK_MS):
            if not pulse.felt():
                self.kill()  # which ends its socket
        return self._control.recv(MOST_BYTES)

    def lose(self) -> None:
        """Wakes everybody who waits for its answers: it gives no more, ever."""
        self._mailbox.lose()

    def kill(self) -> None:
        """Ends it at once, and waits until it has."""
        self.lose()
        if self._before_kill is not None and not self.poll():
            with suppress(SpacetimeError):  # a daemon that cannot do it: the process must end
                self._before_kill(self.pid)
        with suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait()

    def leave(self) -> None:
        """Lets it end: its socket ends; killed if it takes too long."""
        self.lose()
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._popen.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def poll(self) -> bool:
        """Whether it has ended; reaps it."""
        return self._popen.poll() is not None

    def ended(self, timeout_s: float) -> str:
        """How it ended, in words."""
        try:
            code = self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return "closed its socket and stays"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def release(self) -> None:
        """Gives memory and socket back; nobody may ask the process afterwards."""
        with self._telling:
            self._held.close()


class Pulse:
    """Finds a process that is not scheduled any more, by its heart.

    Looks are counted, not time: a machine that was suspended, or this process stopped, is no reason
    to take another one for hung.
    """

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._still, self._beats = 0, child.beats

    def felt(self) -> bool:
        """One look, LOOK_MS after the last: whether it still counts as alive."""
        beats = self._child.beats
        self._still = self._still + 1 if beats == self._beats else 0
        self._beats = beats
        return self._still < STILL_LOOKS


def remote(name: str, text: str) -> Exception:
    """What was raised elsewhere: Python's own class of that name, else a RuntimeError named so."""
    builtin = getattr(builtins, name, None)
    kind: type[Exception] = type(name if name.isidentifier() else "Unknown", (RuntimeError,), {})
    if isinstance(builtin, type) and issubclass(builtin, Exception):
        kind = builtin
    try:
        return kind(text)
    except TypeError:  # such as UnicodeDecodeError, which wants more than a text
        return RuntimeError(f"{name}: {text}")
