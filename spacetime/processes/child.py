"""The process of one lane, `spacetime.processes.child`: `process` starts it, never a person.

The main thread takes models and leaves from a socket, and ends the process when the socket ends. A
second thread serves launches exactly as a lane's thread of a session does, with the same families
and runners; a native third one beats.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

MOST_BYTES = 1 << 18  # of one message
BEAT_NS = 20_000_000


def main(arguments: Sequence[str]) -> None:
    """Serves the lane whose socket, memory and settings are given as JSON."""
    given = json.loads(arguments[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us
    control = socket.socket(fileno=given["control"])
    try:
        sys.path[:] = given["path"]
        if given["cores"]:
            os.sched_setaffinity(0, given["cores"])  # before PyTorch counts them
        lane = _Lane(given)
    except BaseException as error:
        _send(control, {"failed": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from None
    threading.Thread(target=lane.serve, name="spacetime-lane", daemon=True).start()
    _send(control, {"ready": os.getpid(), "granted": lane.hosted.granted})
    while True:
        message, fds, _, _ = socket.recv_fds(control, MOST_BYTES, 1)
        if not message:
            os._exit(0)  # the launching side has closed or died; nobody waits for anything here
        _send(control, lane.obey(json.loads(message), fds))


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.send(json.dumps(message).encode())


class _Lane:
    """The tenants of this process and the memory their launches come through."""

    def __init__(self, given: dict[str, Any]) -> None:
        # Imported here: an import that fails is reported on the socket, and cores are set before.
        import spacetime._native as _native  # noqa: PLC0415
        from spacetime.processes import wire  # noqa: PLC0415
        from spacetime.processes.area import Area  # noqa: PLC0415

        self._wire = wire
        self.cores = given["cores"] or sorted(os.sched_getaffinity(0))
        self._mailbox = _native.Mailbox(given["mailbox"])
        self._heart = _native.Heart(self._mailbox, BEAT_NS, given["parent"])
        self._inbox, self._outbox = Area(given["inbox"]), Area(given["outbox"])
        room, _, maker = given["host"].partition(":")
        self.hosted = getattr(import_module(room), maker)(*(given["open"] or [self.cores]))

    def serve(self) -> None:
        """Body of the serving thread: answers every launch, for ever."""
        from spacetime.models.compiled_error import as_raised  # noqa: PLC0415
        from spacetime.models.timing import lane_threads  # noqa: PLC0415

        with lane_threads(len(self.cores)):
            while self._mailbox.next():
                try:
                    batch = self._wire.read_batch(self._inbox, self.hosted.known_as)
                    self._wire.write_answers(self._outbox, self.hosted.run(*batch))
                except BaseException as error:
                    self._wire.write_error(self._outbox, as_raised(error))
                    del error
                self._mailbox.answer()

    def obey(self, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """What the launching side asks for besides launches; errors as data."""
        from spacetime.errors import InvalidInput, ModelError, text_of  # noqa: PLC0415

        verbs: dict[str, Callable[..., dict[str, Any]]] = {
            "add": partial(self.hosted.add, *fds),
            "update": partial(self.hosted.update, *fds),
            "leave": self.hosted.leave,
            "lines": self.hosted.lines,
        }
        try:
            return verbs[message.pop("do")](**message)
        except InvalidInput as error:
            return {"invalid": [error.tenant, error.field, error.expected, error.got]}
        except BaseException as error:
            cause = error.cause if isinstance(error, ModelError) else error
            return {"raised": [type(cause).__name__, text_of(cause)]}
        finally:
            for fd in fds:
                os.close(fd)


if __name__ == "__main__":
    main(sys.argv[1:])
