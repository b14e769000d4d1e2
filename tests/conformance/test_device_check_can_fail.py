"""The conformance check finds each of these broken devices, and says how to replay what it found."""

import random
import threading

import pytest

from blockwright.device.base import BlockDevice, FileRun, ResizableDevice, Traits
from blockwright.device.cache import CachedDevice
from blockwright.device.concat import Concat
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.overlay import _BASE, _ZERO, Overlay
from blockwright.device.window import Window
from blockwright.errors import NotSupported
from blockwright.testing import Violation, check_device
from tests.support.devices import file as device_file
from tests.support.devices import padded
from tests.support.tools import under_ci

SIZE = 120_001
CONTENT = random.Random(5).randbytes(50_000) + bytes(20_000) + random.Random(6).randbytes(50_001)


def memory():
    return MemoryDevice(content=CONTENT)


class ZeroNotShifted(Window):
    def _zero(self, offset, length, *, may_unmap, fast_only, durable):
        self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)


class ReadNotShifted(Window):
    def _read_into(self, offset, buffers):
        self._inner.read_into(offset, *buffers)


class ExtentsNotShifted(Window):
    def _extents(self, offset, length):
        return self._inner.extents(offset, length)


class BackingNotShifted(Window):
    def _backing(self, offset, length):
        return self._inner.backing(offset, length)


class LeaksBaseBehindZero(Overlay):
    """Forgets that zeroed blocks are zero when a part of one is written."""

    def _missing(self, low, high):
        if low < high and self._state(low) == _ZERO:
            content = memoryview(bytearray(high - low))
            self._base.read_into(low, content)
            return content
        return super()._missing(low, high)


class FillsNothing(Overlay):
    def _missing(self, low, high):
        return memoryview(bytearray(super()._missing(low, high).nbytes))


class ZeroesTooMuch(Overlay):
    def _drop(self, start, end):
        super()._drop(start, min(end + 1, self._size))


class ForgetsDiscardedBlocks(Overlay):
    """Lets what was written become the base's again, which is allowed for a discard and not for a zero."""

    def _drop(self, start, end):
        super()._drop(start, end)
        if start < end:
            self._set(start, end, _BASE)


class CopiesUpWithoutReservation(Overlay):
    """Fills a block with no hold on its range: a neighbour's write in the meantime is lost."""

    def _write(self, offset, buffers, *, durable):
        self._write_blocks(offset, sum(map(len, buffers)), buffers, durable=durable)

    def _missing(self, low, high):
        found = super()._missing(low, high)
        threading.Event().wait(0.0005 if low < high else 0)
        return found


class LiesZero(ForwardingDevice):
    def _extents(self, offset, length):
        for extent in self._inner.extents(offset, length):
            yield extent._replace(flags=HOLE | ZERO)


class StaleExtents(ForwardingDevice):
    def __init__(self, inner):
        super().__init__(inner)
        self._seen = list(inner.extents())

    def _extents(self, offset, length):
        return [Extent(0, 50_000, DATA), Extent(50_000, 15_000, HOLE | ZERO), Extent(65_000, SIZE - 65_000, DATA)]


class LeavesExtentsOut(ForwardingDevice):
    def _extents(self, offset, length):
        return [Extent(offset, length // 2, DATA)] if length > 1000 else self._inner.extents(offset, length)


class UnknownFlags(ForwardingDevice):
    def _extents(self, offset, length):
        return [Extent(offset, length, 8)]


class ShortRead(ForwardingDevice):
    def _read_into(self, offset, buffers):
        self._inner.read_into(offset, *[buffer[:3000] for buffer in buffers])


class FirstBufferOnly(ForwardingDevice):
    def _read_into(self, offset, buffers):
        self._inner.read_into(offset, *buffers[:1])


class WritesFirstBufferOnly(ForwardingDevice):
    def _write(self, offset, buffers, *, durable):
        self._inner.write(offset, *buffers[:1], durable=durable)


class DropsDurable(ForwardingDevice):
    def _write(self, offset, buffers, *, durable):
        if not durable:
            self._inner.write(offset, *buffers)


class ReadModifyWrite(ForwardingDevice):
    """Writes whole blocks of 4 KiB, with no lock: loses a neighbour's write."""

    def _write(self, offset, buffers, *, durable):
        low, end = offset // 4096 * 4096, offset + sum(map(len, buffers))
        block = bytearray(self._inner.read(low, min(-(-end // 4096) * 4096, self.size) - low))
        threading.Event().wait(0.0005)
        block[offset - low : end - low] = b"".join(buffers)
        self._inner.write(low, block)


class FastZeroThenRefuses(ForwardingDevice):
    def _zero(self, offset, length, *, may_unmap, fast_only, durable):
        self._inner.zero(offset, length)
        if fast_only:
            raise NotSupported("zero: too late")


class SlowButFast(ForwardingDevice):
    """Takes every fast zero though its traits say that none is."""

    def __init__(self, inner):
        super().__init__(inner, traits=Traits(writable=True, fast_zero=True))
        self._traits = Once(inner.traits)


class Once:
    """Traits that say fast_zero when asked first by a call, and not otherwise."""

    def __init__(self, traits):
        self._kept = traits
        self._asked = 0

    def __getattr__(self, name):
        if name == "fast_zero":
            self._asked += 1
            return self._asked % 2 == 1
        return getattr(self._kept, name)


class WritableThoughReadOnly(ForwardingDevice):
    def _check_write(self, offset, length):
        pass

    def __init__(self, inner):
        super().__init__(inner, traits=Traits())


class AcceptsAnyRange(ForwardingDevice):
    def _check(self, offset, length):
        pass

    def _read_into(self, offset, buffers):
        if 0 <= offset <= self.size - sum(map(len, buffers)):
            self._inner.read_into(offset, *buffers)


class IgnoresAlignment(ForwardingDevice):
    def __init__(self, inner):
        super().__init__(inner, size=inner.size // 512 * 512, traits=Traits(minimum_block=512))

    def _check(self, offset, length):
        self._inner._check(offset, length)


class NeverClosed(ForwardingDevice):
    def _enter(self):
        pass

    def _leave(self):
        pass


class KeepsOldTail(ResizableDevice):
    """Grows with what was there before it shrank."""

    def __init__(self, content):
        super().__init__(len(content), Traits(writable=True, parallelism=4))
        self._all = bytearray(content) + bytes(4 * SIZE)

    def _read_into(self, offset, buffers):
        for buffer in buffers:
            buffer[:] = self._all[offset : offset + len(buffer)]
            offset += len(buffer)

    def _write(self, offset, buffers, *, durable):
        data = b"".join(buffers)
        self._all[offset : offset + len(data)] = data

    def _resize(self, size):
        pass


class StaleCache(CachedDevice):
    def _drop(self, offset, length):
        super()._drop(offset, min(length, 512))


class StaleFetch(CachedDevice):
    """Drops blocks but lets a fetch that began before the write come in afterwards."""

    def _drop(self, offset, length):
        with self._lock:
            fetches, self._fetches = self._fetches, {}
        super()._drop(offset, length)
        self._fetches = fetches


class LostPart(Concat):
    def _extents(self, offset, length):
        for extent in super()._extents(offset, length):
            yield Extent(extent.offset, extent.length, HOLE | ZERO) if extent.offset == 60_000 else extent


def file_with(content, folder):
    path = folder / "behind"
    path.write_bytes(content)
    return FileDevice(path, writable=True)


class BackingOfAnother(ForwardingDevice):
    """Holds newer data than the file it says its bytes are in."""

    def __init__(self, inner):
        super().__init__(Overlay(inner))
        self._file = inner

    def _backing(self, offset, length):
        return self._file.backing(offset, length)


class BackingTooLong(ForwardingDevice):
    def _backing(self, offset, length):
        from contextlib import nullcontext

        return nullcontext((FileRun(0, offset, length + 1),))


def over(kind):
    return lambda folder: kind(MemoryDevice(content=padded(CONTENT)), 1536, SIZE)


def around(kind):
    return lambda folder: kind(memory())


BROKEN = {
    "window that does not shift zero": (over(ZeroNotShifted), "expected"),
    "window that does not shift read": (over(ReadNotShifted), "the content"),
    "window that does not shift extents": (
        lambda folder: ExtentsNotShifted(device_file(bytes(65536) + CONTENT, folder), 65536, SIZE),
        "extents",
    ),
    "window that does not shift backing": (
        lambda folder: BackingNotShifted(file_with(padded(CONTENT), folder), 1536, SIZE),
        "backing",
    ),
    "overlay that leaks base bytes behind a zero": (around(LeaksBaseBehindZero), "expected 0x00"),
    "overlay that fills with zeros": (around(FillsNothing), "expected"),
    "overlay that zeroes too much": (around(ZeroesTooMuch), "found 0x00"),
    "overlay that forgets zeroed blocks": (around(ForgetsDiscardedBlocks), "expected 0x00"),
    "overlay without reservations": (around(CopiesUpWithoutReservation), "thread"),
    "extents that say ZERO of data": (around(LiesZero), "ZERO is told"),
    "extents that are not renewed": (around(StaleExtents), "ZERO is told"),
    "extents that end early": (around(LeavesExtentsOut), "expected an end"),
    "extents with unknown flags": (around(UnknownFlags), "not known"),
    "short read": (around(ShortRead), "the content"),
    "read into the first buffer only": (around(FirstBufferOnly), "buffers"),
    "write of the first buffer only": (around(WritesFirstBufferOnly), "write"),
    "durable writes dropped": (around(DropsDurable), "write"),
    "blocks written back without a lock": (around(ReadModifyWrite), "thread"),
    "fast zero that changes and refuses": (around(FastZeroThenRefuses), "fast zero"),
    "fast zero against the traits": (around(SlowButFast), "expected NotSupported"),
    "written to though read-only": (around(WritableThoughReadOnly), "expected ReadOnly"),
    "any range is read": (around(AcceptsAnyRange), "expected OutOfRange"),
    "alignment not checked": (around(IgnoresAlignment), "expected Misaligned"),
    "reads after close": (around(NeverClosed), "expected Closed"),
    "shrunk bytes come back": (lambda folder: KeepsOldTail(CONTENT), "resized"),
    "cache not dropped by writes": (
        lambda folder: StaleCache(memory(), capacity=1 << 16, block=4096),
        "expected",
    ),
    "cache that keeps a fetch begun before a write": (
        lambda folder: StaleFetch(Slow(memory()), capacity=1 << 20, block=65536),
        "thread",
    ),
    "concatenation that loses a part's extents": (
        lambda folder: LostPart.of(MemoryDevice(content=CONTENT[:60_000]), MemoryDevice(content=CONTENT[60_000:])),
        "ZERO is told",
    ),
    "backing older than the device": (lambda folder: BackingOfAnother(file_with(CONTENT, folder)), "backing"),
    "backing past the range": (around(BackingTooLong), "backing"),
}


class Slow(ForwardingDevice):
    """Waits behind a read, so that a write may come between."""

    def _read_into(self, offset, buffers):
        super()._read_into(offset, buffers)
        threading.Event().wait(0.001)


def first_violation(make, content):
    """Return (seed, what was found) for the first of a few seeds that finds anything."""
    for seed in range(5):
        try:
            check_device(make, content, seed=seed, operations=150)
        except Violation as found:
            return seed, found
    return pytest.fail("five seeds, and nothing found")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_device_is_found(name, tmp_path):
    make, words = BROKEN[name]
    content = CONTENT[: SIZE // 512 * 512] if "alignment" in name else CONTENT
    seed, found = first_violation(lambda: make(tmp_path), content)
    assert any(f"with seed={seed}" in note for note in found.__notes__)
    assert words in str(found)


def test_what_lets_a_change_in_takes_the_same_cases_for_the_same_tree():
    """Elsewhere they are new ones each time."""
    notes = set()
    for _ in range(3):
        with pytest.raises(Violation) as found:
            check_device(lambda: ReadNotShifted(memory(), 5, 100_000), CONTENT[5:100_005])
        notes |= {note.partition(" with ")[2] for note in found.value.__notes__}
    assert len(notes) == (1 if under_ci() else 3)


def test_seed_replays_the_same_operations():
    class Odd(ForwardingDevice):
        def _write(self, offset, buffers, *, durable):
            data = b"".join(buffers)
            self._inner.write(offset, data[:-1] + b"\0" if len(data) > 2000 else data)

    found = []
    for _ in range(2):
        with pytest.raises(Violation) as caught:
            check_device(lambda: Odd(memory()), CONTENT, seed=77)
        found.append(str(caught.value))
    assert found[0] == found[1]


def test_a_stuck_device_is_named_and_not_waited_for(monkeypatch):
    monkeypatch.setattr("blockwright.testing.threads.PATIENCE_S", 0.3)
    gate = threading.Event()

    class StuckInThreads(ForwardingDevice):
        def _flush(self):
            if threading.current_thread() is not threading.main_thread():
                gate.wait(30)

    try:
        with pytest.raises(Violation, match="some stuck"):
            check_device(lambda: StuckInThreads(memory()), CONTENT, seed=1)
    finally:
        gate.set()


def test_size_must_be_that_of_the_content():
    with pytest.raises(Violation, match="expected a size of"):
        check_device(lambda: MemoryDevice(SIZE + 1, CONTENT), CONTENT)


def test_the_devices_below_are_sound():
    """What the broken ones are made of passes, so it is the break that is found."""
    for make in (memory, lambda: Overlay(memory()), lambda: CachedDevice(Slow(memory()), capacity=1 << 20)):
        check_device(make, CONTENT, seed=3, operations=60)
    assert isinstance(memory(), BlockDevice)
