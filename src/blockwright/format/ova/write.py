"""A disk becomes an OVA: a stream-optimized VMDK, written once, and then what stands in front of it.

Knows: the order of members: descriptor, manifest, disk. Refuses to know: what they say (``layout``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.once import OnceDevice
from blockwright.errors import UsageError
from blockwright.format.ova.layout import ROOM, Machine, envelope, manifest, stem_of, tar_header, tar_member
from blockwright.format.vmdk.create import Options
from blockwright.format.vmdk.descriptor import STREAM
from blockwright.format.vmdk.stream import StreamWriter
from blockwright.tree.tar.layout import BLOCK
from blockwright.units import align_up

END_BLOCKS = 2


class _Hashed(ForwardingDevice, ResizableDevice):
    """The bytes of ``inner`` from ``start`` on, written in ascending order and hashed beside that."""

    def __init__(self, inner: ResizableDevice, start: int) -> None:
        super().__init__(inner, owns=False, size=0)
        self._file = inner
        self._start = start
        self._hash = hashlib.sha256()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashing: Future[None] | None = None

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._wait()
        self._hashing = self._beside.submit(self._take, buffers)
        self._file.write(self._start + offset, *buffers, durable=durable)

    def _take(self, buffers: Sequence[memoryview]) -> None:
        for each in buffers:
            self._hash.update(each)

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    def _resize(self, size: int) -> None:
        self._file.resize(self._start + size)

    def digest(self) -> str:
        """Return the SHA-256 of all that was written."""
        self._wait()
        return self._hash.hexdigest()

    def _close(self) -> None:
        self._beside.shutdown()


class OvaWriter(OnceDevice):
    """Takes a disk of ``size`` bytes in ascending order; ``file``, which stays its owner's, becomes an OVA of it.

    ``name`` is the archive's own. Raises UsageError.
    """

    def __init__(
        self, file: BlockDevice, size: int, machine: Machine, *, name: str, level: int | None = None
    ) -> None:
        machine.check()
        if not isinstance(file, ResizableDevice):
            raise UsageError("ova: expected a file, whose beginning is written last")
        super().__init__(size)
        self._stem = stem_of(name)
        self._disk = f"{self._stem}-disk1.vmdk"
        self._file = file
        self._machine = machine
        front = len(self._front("0" * 64, 0))
        self._hashed = _Hashed(file, front)
        self._inner = StreamWriter(self._hashed, size, Options(STREAM, level=level), name=self._disk)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._ascend(offset, sum(map(len, buffers)))
        self._inner.write(offset, *buffers)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._ascend(offset, length)

    def _front(self, digest: str, length: int) -> bytes:
        """Return all that stands before the disk's bytes; as long for every disk."""
        text = envelope(self._stem, self._disk, length, self._inner_size(), self._machine)
        assert len(text) == ROOM, "the disk's place is known before what is said of it"
        ovf = f"{self._stem}.ovf"
        sums = manifest([(ovf, hashlib.sha256(text).hexdigest()), (self._disk, digest)])
        return tar_member(ovf, text) + tar_member(f"{self._stem}.mf", sums) + tar_header(self._disk, length)

    def _inner_size(self) -> int:
        return align_up(self._size, BLOCK)

    def _finish(self) -> None:
        self._inner.finish()
        length = self._hashed.size
        front = self._front(self._hashed.digest(), length)
        self._file.resize(len(front) + align_up(length, BLOCK) + END_BLOCKS * BLOCK)
        self._file.write(0, front)

    def _close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._hashed.close()
