"""Journals written by hand into images: transactions of any version, torn, wrapped and revoked.

Knows: the jbd2 format, written here a second time so that the reader has something to be compared with.
Refuses to know: what the logged blocks mean.
"""

import struct
from dataclasses import dataclass, field

from blockwright.codec.checksum import crc32c_raw
from blockwright.device.memory import MemoryDevice
from blockwright.fs.ext4.journal import crc32_be
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.volume import Volume, read_superblock
from tests.support.ext4_mutations import fix_superblock

MAGIC = 0xC03B3998
NEEDS_RECOVERY = 0x4
INCOMPAT = {"none": 0, "v1": 0, "64": 0x2, "v2": 0x8, "v2-64": 0xA, "v3": 0x10, "v3-64": 0x12}


@dataclass
class Transaction:
    """Blocks to log, blocks to revoke before them, and whether the commit block gets written."""

    writes: dict[int, bytes] = field(default_factory=dict)
    revokes: list[int] = field(default_factory=list)
    committed: bool = True


class JournalWriter:
    """Fills an image's journal, from block `start` on, in the form of a `version` of `INCOMPAT`."""

    def __init__(self, image: bytes, version: str, *, start: int = 1, first: int = 1, sequence: int = 1) -> None:
        self.data = bytearray(image)
        volume = Volume(
            MemoryDevice(content=image),
            read_superblock(MemoryDevice(content=image)),
            source=None,
            verify=True,
            super_block=None,
        )
        self.size = volume.block_size
        runs = block_runs(volume, volume.inode(8))
        self.places = [run.physical + i for run in runs for i in range(run.blocks)]
        self.version, self.incompat = version, INCOMPAT[version] | 1
        self.start, self.first, self.at, self.sequence = start, first, start, sequence
        self.begun = sequence
        self.last = len(self.places)
        self.uuid = bytes(self.data[self.places[0] * self.size + 0x30 :][:16])
        self.seed = crc32c_raw(0xFFFFFFFF, self.uuid)
        self.sums = version.startswith(("v2", "v3"))

    def next_place(self) -> int:
        at = self.at
        self.at = self.at + 1 if self.at + 1 < self.last else self.first
        return at

    def put(self, at: int, block: bytes) -> None:
        assert len(block) == self.size
        start = self.places[at] * self.size
        self.data[start : start + self.size] = block

    def close(self, block: bytes) -> bytes:
        if not self.sums:
            return block
        return block[:-4] + crc32c_raw(self.seed, block[:-4] + bytes(4)).to_bytes(4, "big")

    def header(self, kind: int) -> bytes:
        return struct.pack(">III", MAGIC, kind, self.sequence)

    def add(self, transaction: Transaction) -> None:
        """Write one transaction behind the last."""
        crc = 0xFFFFFFFF
        if transaction.revokes:
            form = ">Q" if self.incompat & 2 else ">I"
            names = b"".join(struct.pack(form, block) for block in transaction.revokes)
            block = self.header(5) + struct.pack(">I", 16 + len(names)) + names
            self.put(self.next_place(), self.close(block.ljust(self.size, b"\0")))
        if transaction.writes:
            descriptor_place = self.next_place()
            tags, bodies = [], []
            for index, (number, data) in enumerate(transaction.writes.items()):
                tag, logged = self.tag(number, data, index, last=index == len(transaction.writes) - 1)
                tags.append(tag)
                bodies.append(logged)
            descriptor = self.close((self.header(1) + b"".join(tags)).ljust(self.size, b"\0"))
            self.put(descriptor_place, descriptor)
            crc = crc32_be(crc, descriptor)
            for logged in bodies:
                self.put(self.next_place(), logged)
                crc = crc32_be(crc, logged)
        self.put(self.next_place(), self.commit(crc) if transaction.committed else bytes(self.size))
        self.sequence += 1

    def tag(self, number: int, data: bytes, index: int, *, last: bool) -> tuple[bytes, bytes]:
        flags = 0x2 * (index > 0) | 0x8 * last
        logged = data
        if data[:4] == MAGIC.to_bytes(4, "big"):
            flags |= 0x1
            logged = bytes(4) + data[4:]
        checksum = crc32c_raw(crc32c_raw(self.seed, self.sequence.to_bytes(4, "big")), logged)
        low, high = number & 0xFFFFFFFF, number >> 32
        if self.incompat & 0x10:
            tag = struct.pack(">IIII", low, flags, high, checksum)
        else:
            tag = struct.pack(">IHH", low, checksum & 0xFFFF if self.sums else 0, flags)
            tag += struct.pack(">I", high) * bool(self.incompat & 2)
            tag += bytes(2) * bool(self.incompat & 8)
        return tag + (b"" if index else self.uuid), logged

    def commit(self, crc: int) -> bytes:
        kind, size, value = (1, 4, crc) if self.version == "v1" else (0, 0, 0)
        block = self.header(2) + struct.pack(">BB2xI28x QI", kind, size, value, 1_700_000_000, 0)
        block = block.ljust(self.size, b"\0")
        if self.sums:
            block = block[:16] + crc32c_raw(self.seed, block).to_bytes(4, "big") + block[20:]
        return block

    def finish(self) -> bytearray:
        """The image, with the journal's superblock and its own saying that the log counts."""
        at = self.places[0] * self.size
        struct.pack_into(">III", self.data, at + 0x14, self.first, self.begun, self.start)
        struct.pack_into(">II", self.data, at + 0x24, 1 if self.version == "v1" else 0, self.incompat)
        self.data[at + 0x50] = 4 if self.sums else 0
        self.data[at + 0xFC : at + 0x100] = bytes(4)
        if self.sums:
            checksum = crc32c_raw(0xFFFFFFFF, bytes(self.data[at : at + 1024]))
            self.data[at + 0xFC : at + 0x100] = checksum.to_bytes(4, "big")
        self.data[1024 + 0x60] |= NEEDS_RECOVERY
        fix_superblock(self.data)
        return self.data
