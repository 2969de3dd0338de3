"""What one client may ask of the server, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a server. A refusal names the bound that the request met.

    body_bytes: the most bytes of a request's body, as sent and after decompression.
    tensors: the most inputs of a request, and the most outputs it may name.
    connections: the most connections that are open at once, on each port.
    queue: the most requests of a tenant that wait for a launch.
    read_seconds: how long a request may take to arrive whole, and an answer to be taken.
    idle_seconds: how long a connection may stay open without a request.
    """

    body_bytes: int = 64 << 20
    tensors: int = 64
    connections: int = 1000
    queue: int = 1024
    read_seconds: float = 30.0
    idle_seconds: float = 75.0
