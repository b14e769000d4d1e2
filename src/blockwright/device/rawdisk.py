"""Disks of the host past its cache, as devices: /dev/rdiskN of macOS, a block device that Linux opens with O_DIRECT.

Such a disk takes whole sectors only; the device takes any range all the same.

Knows: how such a disk is opened. Refuses to know: how ranges become whole sectors (``aligned``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blockwright.device.aligned import MAX_BLOCK, AlignedFile
from blockwright.device.base import Backing, BlockDevice, Waits
from blockwright.device.descriptor import Path, named_error
from blockwright.device.hostblock import HostBlockDevice
from blockwright.device.vector import total
from blockwright.errors import SourceChanged, Unsupported
from blockwright.units import align_down


class RawDiskDevice(HostBlockDevice):
    """A disk that is read and written past the host's cache. Raises as ``HostBlockDevice`` does.

    What lies behind its last whole sector is left out. Raises Unsupported for sectors of more than a MiB.
    """

    _direct = True

    def __init__(
        self, path: Path, *, writable: bool = False, force_unlocked: bool = False, alone: bool = False
    ) -> None:
        super().__init__(path, writable=writable, force_unlocked=force_unlocked, alone=alone)
        block = self.sector_size
        if block > MAX_BLOCK or block & (block - 1):
            self.close()
            raise Unsupported(f"{self.name}: expected sectors of a power of two up to {MAX_BLOCK}, found {block}")
        self._size = align_down(self._size, block)
        self._traits = replace(
            self._traits, waits=Waits.ALWAYS, preferred_block=max(block, self._traits.preferred_block)
        )
        self._aligned = AlignedFile(self._fd, block)

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        try:
            done = self._aligned.read(offset, buffers)
        except OSError as error:
            raise named_error(error, self._name) from None
        if done != total(buffers):
            raise SourceChanged(
                f"{self._name}: ends early: expected {self._size} bytes, found an end at {offset + done}"
            )

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return False

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        try:
            self._aligned.write(offset, buffers, durable=durable)
        except OSError as error:
            raise named_error(error, self._name) from None

    def _zero_fast(self, offset: int, length: int, *, may_unmap: bool) -> bool:
        with self._aligned.writing(offset, length):
            return super()._zero_fast(offset, length, may_unmap=may_unmap)

    def _prefetch(self, offset: int, length: int) -> None:
        """Do nothing: there is no cache to fetch to."""

    def _current_size(self) -> int:
        return BlockDevice._current_size(self)  # noqa: SLF001 - what the host says of it may be 0

    def _backing(self, offset: int, length: int) -> Backing:
        return BlockDevice._backing(self, offset, length)  # noqa: SLF001 - others would move parts of sectors
