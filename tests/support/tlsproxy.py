"""A proxy of HTTP/2 that ends TLS: what reaches a server through it came encrypted, and its headers are looked at.

It asks clients for certificates where it is told to, or for an API key, and knows which headers a client sent, as
gRPC's metadata are.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.support.tools import missing

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS, _CONTINUATION = 1, 4, 9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20


class TlsProxy:
    """``address`` is where it listens; ``paths`` and ``seen`` are what was asked for, and by which headers."""

    def __init__(self, upstream: str, api_key: str | None) -> None:
        self.upstream = upstream
        self.api_key = api_key
        self.address = ""
        self.seen: list[dict[str, str]] = []
        self.subjects: set[str] = set()

    def values(self, header: str) -> set[str | None]:
        """Every value that requests had of a header, None among them where one had none."""
        return {each.get(header) for each in self.seen}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        self.subjects |= {value for part in (shown or {}).get("subject", ()) for key, value in part}
        headers = _Headers(self.seen)
        first = b""
        while not headers.asked:
            data = await reader.read(1 << 16)
            if not data:
                writer.transport.abort()
                return
            first += data
            headers.take(data)
        asked = self.seen[-1].get("authorization", "")
        if self.api_key is not None and asked != f"Bearer {self.api_key}":
            await _deny(reader, writer, headers, asked)
            return
        await self._pass_on(reader, writer, headers, first)

    async def _pass_on(self, reader, writer, headers: "_Headers", first: bytes) -> None:
        host, _, port = self.upstream.rpartition(":")
        inner, outer = await asyncio.open_connection(host, int(port))
        outer.write(first)
        try:
            there = asyncio.create_task(_pump(reader, outer, headers.take))
            back = asyncio.create_task(_pump(inner, writer, lambda _data: None))
            _, others = await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            for each in others:
                each.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            for each in (outer, writer):
                each.transport.abort()


async def _pump(reader, writer, look) -> None:
    while data := await reader.read(1 << 16):
        look(data)
        writer.write(data)
        await writer.drain()


async def _deny(reader, writer, headers: "_Headers", asked: str) -> None:
    """Answer every request as gRPC does that is not allowed: trailers alone, with the reason."""
    from hpack import Encoder

    encoder = Encoder()
    writer.write(_frame(_SETTINGS, 0, 0) + _frame(_SETTINGS, _ACK, 0))
    while True:
        for stream in headers.asked:
            answer = {":status": "200", "content-type": "application/grpc", "grpc-status": "16"}
            block = encoder.encode(answer | {"grpc-message": f"no such key: {asked}"})
            writer.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, block))
        headers.asked.clear()
        await writer.drain()
        data = await reader.read(1 << 16)
        if not data:
            writer.transport.abort()
            return
        headers.take(data)


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


class _Headers:
    """Decodes the headers of one connection's requests (RFC 9113, section 6.2); ``asked`` are their streams."""

    def __init__(self, seen: list[dict[str, str]]) -> None:
        from hpack import Decoder

        self._decoder = Decoder()
        self.asked: list[int] = []
        self._seen = seen
        self._data = b""
        self._block = b""
        self._begun = False

    def take(self, data: bytes) -> None:
        self._data += data
        if not self._begun:
            if len(self._data) < len(_PREFACE):
                return
            assert self._data.startswith(_PREFACE)
            self._begun, self._data = True, self._data[len(_PREFACE) :]
        while len(self._data) >= 9:
            size, kind, flags = int.from_bytes(self._data[:3], "big"), self._data[3], self._data[4]
            if len(self._data) < 9 + size:
                return
            self._frame(kind, flags, int.from_bytes(self._data[5:9], "big"), self._data[9 : 9 + size])
            self._data = self._data[9 + size :]

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                body = body[1 : len(body) - body[0]]
            self._block = body[5:] if flags & _PRIORITY else body
        elif kind == _CONTINUATION:
            self._block += body
        else:
            return
        if flags & _END_HEADERS:
            found = self._decoder.decode(self._block)
            self._seen.append({str(name): str(value) for name, value in found})
            self.asked.append(stream)


@contextmanager
def tls_proxy(
    upstream: str, certificate: tuple[Path, Path], clients: Path | None = None, api_key: str | None = None
) -> Iterator[TlsProxy]:
    """Run one before ``upstream``; ``clients`` is the authority that clients' certificates must be of."""
    if find_spec("hpack") is None:
        missing("hpack is missing: pip install hpack")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2"])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    proxy, ready, loop = TlsProxy(upstream, api_key), threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def main() -> None:
        loop.set_exception_handler(lambda _loop, _found: None)  # of clients that went away in the middle
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
        proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await over.wait()
        server.close()
        here = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for each in here:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*here, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="TLS proxy")
    thread.start()
    try:
        assert ready.wait(60)
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(60)
        loop.close()
