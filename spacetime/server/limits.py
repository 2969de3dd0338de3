"""What one client may ask of the server, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a server; each refusal names the one it met.

    body_bytes: of a request, also decompressed. tensors: inputs, and outputs, of a request.
    connections: open at once, on each port. queue: waiting requests of a tenant. read_seconds:
    for a request to arrive whole. idle_seconds: that a kept connection may rest.
    """

    body_bytes: int = 64 << 20
    tensors: int = 64
    connections: int = 1000
    queue: int = 1024
    read_seconds: float = 30.0
    idle_seconds: float = 75.0
