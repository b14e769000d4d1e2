"""The disk of a VMDK image: its extents as one device, and the id of its content, which the first write changes.

Knows: that who stands on a disk must notice a change. Refuses to know: how extents keep their bytes.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from blockwright.device.base import BlockDevice, FileRun, ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.errors import Corrupt
from blockwright.format.describe import Described, Description
from blockwright.format.vmdk.descriptor import Descriptor, next_id, with_content_id
from blockwright.format.vmdk.layout import SPEC
from blockwright.format.vmdk.sparse import SparseExtent
from blockwright.units import SECTOR, format_size


class DescriptorPlace:
    """Where a descriptor's ``text`` stands: from byte ``offset`` of ``file`` on, with ``room`` bytes for it."""

    def __init__(self, file: BlockDevice, offset: int, room: int, text: bytes) -> None:
        self.file = file
        self.offset = offset
        self.room = room
        self.text = text

    def change_id(self, content_id: int) -> None:
        """Write the sectors of the descriptor that come to differ. Raises Corrupt where it has no room for them."""
        text = with_content_id(self.text, content_id)
        if len(text) > self.room and isinstance(self.file, ResizableDevice) and not self.offset:
            self.file.resize(len(text))
        elif len(text) > self.room:
            raise Corrupt(f"vmdk descriptor: expected room for {len(text)} bytes, found {self.room}", spec=SPEC)
        old = self.text.ljust(len(text), b"\0")
        new = text.ljust(len(old), b"\0")
        for start in range(0, len(new), SECTOR):
            part = new[start : start + SECTOR]
            if part != old[start : start + SECTOR]:
                self.file.write(self.offset + start, part)
        self.text = text


class VmdkDisk(ForwardingDevice, Described):
    """Reads and writes ``inner``; owns it and ``others``, the devices behind it that ``inner`` does not own.

    ``file`` is the one that was opened; ``place`` is None where nothing is written.
    """

    def __init__(
        self,
        inner: BlockDevice,
        file: BlockDevice,
        descriptor: Descriptor,
        place: DescriptorPlace | None,
        others: Sequence[BlockDevice] = (),
    ) -> None:
        super().__init__(inner)
        self.descriptor = descriptor
        self.file = file
        self._place = place
        self._others = others
        self._unchanged = place is not None
        self._lock = threading.Lock()

    def describe(self) -> Description:
        told = self.descriptor
        details = [("kind", told.kind), ("content id", f"{told.content_id:08x}")]
        if isinstance(self._inner, SparseExtent):
            details.append(("grains", format_size(self._inner.header.grain)))
        else:
            details.append(("extents", str(len(told.extents))))
        if adapter := told.others.get("ddb.adaptertype"):
            details.append(("adapter", adapter[:40]))
        if told.parent is not None:
            details.append(("parent", repr(told.parent.decode("utf-8", "replace"))))
        return Description("vmdk", self.file.size, tuple(details))

    def _begin(self, seed: int) -> None:
        """Give the disk another id before its content changes."""
        with self._lock:
            if self._unchanged and self._place is not None:
                self._place.change_id(next_id(self.descriptor.content_id, seed))
                self._unchanged = False

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        if self._unchanged:
            self._begin(zlib.crc32(b"".join(buffers), offset & 0xFFFFFFFF))
        self._inner.write(offset, *buffers, durable=durable)

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        if self._unchanged and not fast_only:
            self._begin(zlib.crc32(b"zero", (offset + length) & 0xFFFFFFFF))
        self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)
        if self._unchanged:
            self._begin(zlib.crc32(b"zero", (offset + length) & 0xFFFFFFFF))

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        if self._unchanged:
            self._begin(zlib.crc32(b"discard", (offset + length) & 0xFFFFFFFF))
        self._inner.discard(offset, length, durable=durable)

    @contextmanager
    def _backing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Answer as the extents; to be read only until a write has given the disk its other id."""
        with self._inner.backing(offset, length) as runs:
            yield runs and [run._replace(writable=run.writable and not self._unchanged) for run in runs]

    def _flush(self) -> None:
        super()._flush()
        if self._place is not None:
            self._place.file.flush()

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            for each in self._others:
                each.close()
