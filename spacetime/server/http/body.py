"""A request's body: bounded in size and time, and tensors copied once, to where they can lie."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import numpy as np

from spacetime.server.http.messages import BINARY_LENGTH
from spacetime.server.refusal import Refusal, RefusalKind, invalid

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Bytes = bytes | memoryview
CLOSE = ((b"connection", b"close"),)
_ALIGNED_BYTES = 64  # a cache line: vectorised loads are fastest from there
_LINGER_SECONDS = 1.0  # how long the rest of a body that is too large is read
_GZIP, _ZLIB = 31, 15  # window sizes of zlib, which choose the format


class ClientGone(Exception):
    """The connection closed before the request was answered; nobody reads an answer."""


async def read_body(receive: Receive, body: Body, *, seconds: float) -> None:
    """Fills `body` with all that `receive` gives.

    seconds: the most that may pass until all of it has arrived. Raises Refusal where it takes
    longer or is too large, and ClientGone.
    """
    try:
        await asyncio.wait_for(_fill(receive, body), seconds)
    except asyncio.TimeoutError:
        raise too_slow(seconds) from None


async def discard(receive: Receive, headers: Mapping[bytes, bytes]) -> None:
    """Reads and forgets the rest of a body that is too large, for at most _LINGER_SECONDS.

    A connection that is closed while bytes wait is reset, and its client never reads why.
    """
    if b"expect" in headers:  # it waits to be asked for the body
        return

    async def rest() -> None:
        while (await receive()).get("more_body", False):
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), _LINGER_SECONDS)


def too_slow(seconds: float) -> Refusal:
    """Returns the refusal of a request whose body did not arrive within `seconds`."""
    return Refusal(RefusalKind.SLOW, f"the body did not arrive in {seconds:g} s", CLOSE)


class Body:
    """A request's body as it comes: at most `most` bytes, as sent and after decompression.

    headers: the request's, with names in lower case. Raises Refusal, as its methods do.
    """

    __slots__ = ("_bytes", "_encoding", "_head", "_most")

    def __init__(self, headers: Mapping[bytes, bytes], most: int) -> None:
        declared = _length(headers.get(b"content-length", b"0"), "Content-Length")
        if declared > most:
            raise _too_large(most)
        split = headers.get(BINARY_LENGTH)
        self._head = None if split is None else _length(split, "Inference-Header-Content-Length")
        self._encoding = headers.get(b"content-encoding", b"identity")
        self._most = most
        plain = self._encoding == b"identity"
        # Only tensors need an address; JSON and what is compressed stay as they came.
        self._bytes: _Buffer | _Pieces = (
            _Pieces(most)
            if self._head is None or not plain
            else _Buffer(declared, self._head, most)
        )

    def add(self, piece: bytes) -> None:
        """Appends a piece of the body. Raises Refusal where the body becomes too large."""
        self._bytes.add(piece)

    def parts(self) -> tuple[Bytes, Bytes]:
        """Returns the JSON and the bytes behind it, of a body that is complete.

        Raises Refusal where it cannot be decompressed, or is shorter than its head says.
        """
        head = self._head
        data = _decompressed(self._encoding, self._bytes.filled, head or 0, self._most)
        if head is None:
            return data, b""
        if head > len(data):
            raise invalid("Inference-Header-Content-Length", f"is {head}, the body has {len(data)}")
        return data[:head], data[head:]


class _Pieces:
    """Bytes as they come, joined at the end, at no address in particular."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._length = 0
        self._all: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Appends a piece."""
        self._length += len(piece)
        if self._length > self._most:
            raise _too_large(self._most)
        self._all.append(piece)

    @property
    def filled(self) -> bytes:
        return self._all[0] if len(self._all) == 1 else b"".join(self._all)


class _Buffer:
    """Bytes as they come, copied once, with those behind the first `head` at an aligned address."""

    def __init__(self, expected: int, head: int, most: int) -> None:
        self._head = head
        self._most = most
        self._used = 0
        self._make(expected)

    def _make(self, size: int) -> None:
        space = np.empty(size + _ALIGNED_BYTES, np.uint8)
        start = -(space.__array_interface__["data"][0] + self._head) % _ALIGNED_BYTES
        self._view = space.data[start : start + size]

    def add(self, piece: bytes) -> None:
        """Appends a piece; the buffer of a body without a declared length grows by doubling."""
        end = self._used + len(piece)
        if end > self._most:
            raise _too_large(self._most)
        if end > len(self._view):
            held = self.filled
            self._make(min(max(2 * len(self._view), end), self._most))
            self._view[: self._used] = held
        self._view[self._used : end] = piece
        self._used = end

    @property
    def filled(self) -> memoryview:
        return self._view[: self._used]


async def _fill(receive: Receive, body: Body) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body.add(message.get("body", b""))
        more = message.get("more_body", False)


def _decompressed(encoding: bytes, data: Bytes, head: int, most: int) -> Bytes:
    if encoding == b"identity":
        return data
    if encoding not in {b"gzip", b"deflate"}:
        raise Refusal(
            RefusalKind.WRONG_MEDIA, "Content-Encoding: must be gzip, deflate or identity"
        )
    body = _Buffer(0, head, most)
    inflate = zlib.decompressobj(_GZIP if encoding == b"gzip" else _ZLIB)
    try:
        # One byte more than is allowed, so that `add` refuses a body that inflates beyond: a small
        # request must not make a large one.
        body.add(inflate.decompress(data, most + 1))
    except zlib.error as error:
        raise invalid("body", f"cannot be decompressed: {error}") from None
    if not inflate.eof:
        raise invalid("body", "ends before its compressed data does")
    return body.filled


def _length(text: bytes, name: str) -> int:
    if not text.isdigit() or len(text) > 18:  # more digits would not fit 64 bits
        raise invalid(name, f"must be a number of bytes, got {text.decode('latin-1')!r:.40}")
    return int(text)


def _too_large(most: int) -> Refusal:
    return Refusal(RefusalKind.TOO_LARGE, f"body: at most {most} bytes are taken", CLOSE)
