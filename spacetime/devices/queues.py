"""Hardware queues between host and device, asked for before anything initialises the driver.

Streams share these queues. With the driver's own eight, a lane may wait for another lane's kernel
although their SMs are apart. The driver reads the number once, when it is initialised.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import spacetime._native as _native

VARIABLE = "CUDA_DEVICE_MAX_CONNECTIONS"
WANTED = 32  # the most that the driver gives
_OF_MPS = (
    "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_SM_PARTITION",
)  # fmt: skip


@dataclass(slots=True)
class Queues:
    """How many queues a process asks its driver for.

    The first call of `ask` decides, and later ones repeat what it returned.
    """

    initialized: Callable[[], bool] = _native.driver_initialized
    why_few: str | None = field(default=None, init=False)

    def ask(self) -> str:
        """Asks for as many queues as there are. Returns why lanes have fewer; empty where not.

        It has to be called before anything that may initialise the driver, such as
        `torch.cuda.is_available`.
        """
        if self.why_few is None:
            self.why_few = self._asked()
        return self.why_few

    def _asked(self) -> str:
        given = os.environ.get(VARIABLE)
        if given is not None:
            few = given.isdecimal() and int(given) < WANTED
            return f"{VARIABLE}={given} gives {given} of {WANTED}; leave it unset" if few else ""
        if any(os.environ.get(name) for name in _OF_MPS):
            return "MPS allots them: more for one client would mean fewer clients"
        if self.initialized():
            return (
                f"this process initialised CUDA before spacetime could ask for {WANTED}; set "
                f"{VARIABLE}={WANTED} where it starts"
            )
        os.environ[VARIABLE] = str(WANTED)
        return ""


of_this_process = Queues()
