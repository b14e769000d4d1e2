"""What a transaction has changed so far: metadata blocks in memory, and how an operation is taken back.

Blocks are read through ``PendingDevice`` and ``LiveVolume``, so every reader of the file system sees the changes.
An operation begins, and then is kept or reverted; whoever keeps state outside of blocks leaves word in ``undo``.

Knows: which blocks differ from the device. Refuses to know: what is in them, and how they get there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blockwright.codec.record import Buffer
from blockwright.device.base import BlockDevice
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import Superblock
from blockwright.fs.ext4.patched import PatchedDevice
from blockwright.fs.ext4.volume import Volume
from blockwright.units import align_down, align_up


class PendingDevice(PatchedDevice):
    """The device as it will be when the transaction is committed: its blocks lie over what is there.

    Takes no writes: data goes to the inner device, metadata to the transaction.
    """

    def __init__(self, inner: BlockDevice, block_size: int) -> None:
        super().__init__(inner, block_size)
        self.pending: dict[int, bytearray] = {}

    def _within(self, offset: int, end: int) -> Sequence[int]:
        size, pending = self.block_size, self.pending
        low, high = offset // size, -(-end // size)
        if high - low <= len(pending):
            return [block for block in range(low, high) if block in pending]
        return sorted(block for block in pending if low <= block < high)

    def _content(self, block: int) -> bytearray:
        return self.pending[block]


class LiveVolume(Volume):
    """A volume over a ``PendingDevice``, whose caches never hold what a transaction has changed since."""

    def __init__(self, device: PendingDevice, superblock: Superblock, *, source: str | None) -> None:
        super().__init__(device, superblock, source=source, verify=True, super_block=None)
        self.pending = device.pending
        self._shift = self.block_size.bit_length() - 1
        self._inode_mask = self.block_size - 1

    def block(self, number: int, what: str) -> bytes:
        """Return a metadata block, as the transaction has it where it has it."""
        data = self.pending.get(number)
        return super().block(number, what) if data is None else bytes(data)

    def inode(self, number: int) -> Inode:
        """Return an inode, in use or not. What the transaction wrote is not verified again."""
        position = self.inode_position(number)
        block, at = position >> self._shift, position & self._inode_mask
        size = self.geometry.inode_size
        data = self.pending.get(block)
        if data is not None:
            return self.parse_inode(number, bytes(data[at : at + size]), position)
        raw = super().block(block, f"inode {number}")[at : at + size]
        inode = self.parse_inode(number, raw, position)
        if self.has_checksums and not inode.checksum_holds(self.seed):
            expected = inode.checksum(self.seed)
            raise self.corrupt(
                f"inode {number}: checksum: expected {expected:#x}, found {inode.stored_checksum:#x}", position
            )
        return inode

    def forget_descriptor(self, group: int) -> None:
        """Drop what is kept of a group's descriptor."""
        self._descriptors.pop(group, None)

    def forget(self, number: int) -> None:
        """Drop what is kept of a block from before it was changed."""
        with self._lock:
            self._blocks.pop(number, None)
        self.shared_attributes.pop(number, None)


class Transaction:
    """Changed blocks of the device, with one savepoint: the beginning of the operation that is under way."""

    def __init__(self, device: BlockDevice, superblock: Superblock, *, source: str | None) -> None:
        self.raw = device
        self.device = PendingDevice(device, superblock.block_size)
        self.volume = LiveVolume(self.device, superblock, source=source)
        self.blocks = self.device.pending
        self.fresh: set[int] = set()
        """Changed blocks that hold nothing of what is committed."""
        self._undo: list[Callable[[], None]] = []
        self._touched: set[int] = set()

    @property
    def dirty(self) -> bool:
        """Whether any block is changed."""
        return bool(self.blocks)

    # -- blocks ----------------------------------------------------------------------------------------------

    def modify(self, number: int, what: str) -> bytearray:
        """Return a block's bytes to be changed in place."""
        data = self.blocks.get(number)
        if data is None:
            data = self.adopt(number, bytearray(self.volume.block(number, what)))
        elif number not in self._touched:
            self._save(number)
        self.volume.shared_attributes.pop(number, None)
        return data

    def create(self, number: int) -> bytearray:
        """Return the zeros of a block that was just allocated, to be changed in place."""
        self._save(number)
        self.volume.forget(number)
        data = bytearray(self.volume.block_size)
        self.blocks[number] = data
        self.fresh.add(number)
        return data

    def adopt(self, number: int, data: bytearray) -> bytearray:
        """Return a block's bytes to be changed in place, which are ``data`` where it was not changed before."""
        if number not in self.blocks:
            self._save(number)
            self.volume.forget(number)
            self.blocks[number] = data
        elif number not in self._touched:
            self._save(number)
        return self.blocks[number]

    def drop(self, number: int) -> None:
        """Forget a block that was freed."""
        if number in self.blocks:
            self._save(number)
            del self.blocks[number]
            self.fresh.discard(number)
        self.volume.forget(number)

    def _save(self, number: int) -> None:
        if number in self._touched:
            return
        self._touched.add(number)
        before = self.blocks.get(number)
        kept, fresh = (None if before is None else bytes(before)), number in self.fresh
        self._undo.append(lambda: self._restore(number, kept, fresh=fresh))

    def _restore(self, number: int, data: bytes | None, *, fresh: bool) -> None:
        if data is None:
            self.blocks.pop(number, None)
        else:
            self.blocks[number] = bytearray(data)
        (self.fresh.add if fresh else self.fresh.discard)(number)
        self.volume.forget(number)

    # -- operations ------------------------------------------------------------------------------------------

    def undo(self, action: Callable[[], None]) -> None:
        """Have ``action`` called if the operation is reverted; the last that was left is called first."""
        self._undo.append(action)

    def keep(self) -> None:
        """End an operation: from here on the next one counts."""
        self._undo.clear()
        self._touched.clear()

    def revert(self) -> None:
        """Take back everything since the operation began."""
        while self._undo:
            self._undo.pop()()
        self._touched.clear()

    def clear(self) -> None:
        """Begin a new transaction: everything is on the device."""
        assert not self._undo, "transaction: an operation is under way"
        self.blocks.clear()
        self.fresh.clear()

    # -- data ------------------------------------------------------------------------------------------------

    def write_data(self, block: int, data: memoryview) -> None:
        """Write whole blocks of a file's body to the device at once; nothing committed refers to them."""
        self.write_home(block * self.volume.block_size, data)

    def write_home(self, offset: int, data: Buffer) -> None:
        """Write bytes to the device itself, whatever its minimum block."""
        grain, end = self.raw.traits.minimum_block, offset + len(data)
        if not (offset | end) % grain:
            self.raw.write(offset, data)
            return
        low, high = align_down(offset, grain), min(align_up(end, grain), self.raw.size)
        around = bytearray(self.raw.read(low, high - low))
        around[offset - low : end - low] = data
        self.raw.write(low, around)
