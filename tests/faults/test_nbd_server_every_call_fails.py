"""A device fails the k-th call, for every k: the error reaches the request that met it, and the session goes on."""

import errno
import struct
from dataclasses import replace

import pytest

from blockwright.device.base import Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NotSupported
from blockwright.nbd.server.export import Export
from blockwright.testing import FaultDevice
from tests.support.runningserver import running

KIB, MIB = 1 << 10, 1 << 20
REQUESTS = [
    # command, offset, length, flags
    (1, 0, 4096, 0),
    (0, 0, 4096, 0),
    (1, 100, 200_000, 1),
    (0, 50, 300_000, 0),
    (0, 0, 2 * MIB + 5, 0),
    (1, MIB, 2 * MIB + 7, 0),
    (6, 4096, 8192, 0),
    (4, 8192, 8192, 0),
    (3, 0, 0, 0),
    (7, 0, 4 * MIB, 0),
    (0, 3 * MIB, 512, 4),
]


class Kind(ForwardingDevice):
    def __init__(self, inner, **traits):
        super().__init__(inner, traits=replace(inner.traits, **traits))


KINDS = {
    "in line": {"known_extents": False},
    "in memory": {},
    "by workers": {"waits": Waits.ALWAYS, "known_extents": False},
    "one at a time": {"waits": Waits.ALWAYS, "parallelism": 1},
}


def errors_of(client, framing):
    """Send each request, and return the error of each: all of them are answered, in any case."""
    found = []
    for cookie, (command, offset, length, flags) in enumerate(REQUESTS):
        if framing == "simple" and (command == 7 or flags & 4):
            found.append(0)
            continue
        data = b"x" * length if command == 1 else b""
        client.request(command, cookie, offset, length, data, flags)
        if framing == "simple":
            error, answered, _ = client.reply(length if command == 0 else 0)
        else:
            chunks, error = client.chunks(), 0
            answered = {cookie for _, cookie, _ in chunks}.pop()
            for kind, _, payload in chunks:
                if kind & 0x8000:
                    (error,) = struct.unpack_from(">I", payload)
                    assert b"input/output error" in payload
        assert answered == cookie
        found.append(error)
    return found


@pytest.mark.parametrize("framing", ["simple", "structured"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_reaches_the_request_that_met_it(kind, framing):
    failing = FaultDevice(MemoryDevice(4 * MIB))
    with running([Export("", Kind(failing, **KINDS[kind]))]) as server, server.client() as client:
        client.go(structured=framing == "structured", context=framing == "structured")
        assert not any(errors_of(client, framing))  # afterwards there is data where it reads
        failing.count = 0
        assert not any(errors_of(client, framing))
        calls = failing.count
        assert calls >= 9
        hit = set()
        for number in range(calls):
            failing.count, failing.fail_at, failing.failed = 0, number, False
            errors = errors_of(client, framing)
            assert failing.failed
            failed = [index for index, error in enumerate(errors) if error]
            # A hint that fails (extents before a read) need not fail the request.
            assert len(failed) <= 1, (number, errors)
            assert {errors[index] for index in failed} <= {errno.EIO}
            hit |= set(failed)
        wanted = {index for index, each in enumerate(REQUESTS) if framing != "simple" or each[0] != 7}
        if framing == "simple":
            wanted -= {len(REQUESTS) - 1}
        assert hit == wanted
    assert not any("internal" in reason for reason in server.reasons())


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "x"), 28),
        (OSError(errno.EDQUOT, "x"), 28),
        (OSError(errno.EROFS, "x"), 1),
        (OSError(errno.ENXIO, "x"), 5),
        (OSError("no number"), 5),
        (Corrupt("x"), 5),
        (NotSupported("x"), 22),  # ENOTSUP answers FAST_ZERO and nothing else
        (MemoryError(), 12),
        (KeyError("x"), 5),
        (ZeroDivisionError(), 5),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_number(kind, error, number):
    def fail():
        raise error

    failing = FaultDevice(MemoryDevice(4 * MIB), fail_at=0, lasting=True, error=fail)
    with running([Export("", Kind(failing, **KINDS[kind]))]) as server, server.client() as client:
        client.go()
        for command in (0, 1, 3, 6):
            length = 0 if command == 3 else 512
            client.request(command, 9, 0, length, bytes(512) if command == 1 else b"")
            assert client.reply() == (number, 9, b""), command
        client.request(100, 1)
        assert client.reply()[0] == 22


def test_a_read_that_fails_half_way_is_padded_and_says_where(tmp_path):
    """Chunks announce their length before their bytes are read."""

    class Half(Kind):
        def _read_into(self, offset, buffers):
            if offset + sum(map(len, buffers)) > MIB:
                raise OSError(errno.EIO, "broken here")
            super()._read_into(offset, buffers)

    inner = MemoryDevice(content=b"x" * 4 * MIB)
    device = Half(inner, known_extents=False, waits=Waits.SOMETIMES)
    with running([Export("", device)]) as server, server.client() as client:
        client.go(structured=True)
        client.request(0, 5, 0, 4 * MIB)
        chunks = client.chunks()
        assert chunks[0][0] == 1
        assert len(chunks[0][2]) == 8 + 4 * MIB
        kind, _, payload = chunks[-1]
        assert kind == 0x8002
        number, length = struct.unpack_from(">IH", payload)
        assert (number, payload[6 : 6 + length]) == (5, b"input/output error")
        (offset,) = struct.unpack_from(">Q", payload, 6 + length)
        assert 0 < offset <= MIB
        client.request(0, 6, 0, 512)
        assert client.chunks()[0][2][8:] == b"x" * 512
