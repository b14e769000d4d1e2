"""Fuzz target: any bytes as a thin pool's metadata, as they are and with checksums made right."""

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NotFound
from blockwright.system.linux.thin import Details, Metadata, check_metadata
from blockwright.system.linux.thin.layout import BLOCK, MAGIC, MAX_DEPTH, NODE_SALT, SUPERBLOCK_SALT
from blockwright.system.linux.thin.spaces import BITMAP_SALT, INDEX_SALT
from tests.support.thinpools import image, mappings, metadata, sealed, superblock, tree, whole

MAX_BYTES = 64 * BLOCK
_MAGIC = MAGIC.to_bytes(8, "little")


class Counted(MemoryDevice):
    """Memory that counts how often it is read."""

    reads = 0

    def _read_into(self, offset, buffer):
        self.reads += 1
        return super()._read_into(offset, buffer)


def seeds() -> list[bytes]:
    """Whole metadata: a tree of three levels, and a metadata snapshot of a smaller one."""
    now, nodes = tree([Details(5 * each, each, 1, 2, 3) for each in range(25)])
    then, more = tree([Details(7, 0, 0, 0, 0)], first=40)
    nodes |= more | {50: superblock(block=50, details_root=then, metadata_blocks=64)}
    maps, more = mappings({5 * each: [each, 3 * each + 1] for each in range(3)}, first=52)
    nodes |= more
    first = metadata(nodes, details_root=now, held_root=50, mapping_root=maps, metadata_blocks=64)[:MAX_BYTES]
    return [first, image(whole({1: {0: 3, 1: 9}, 4: {0: 3, 2: 3}, 9: {5: 60}}))]


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out; identities ascend, and no block is read more often than there are levels."""
    data = data[:MAX_BYTES]
    _read(data)
    blocks = [data[at : at + BLOCK] for at in range(0, len(data) - BLOCK + 1, BLOCK)]
    _read(
        b"".join(
            sealed(each, SUPERBLOCK_SALT if each[32:40] == _MAGIC else NODE_SALT, block)
            for block, each in enumerate(blocks)
        )
    )
    _read(b"".join(sealed(each, _salt_at(block, each), block) for block, each in enumerate(blocks)))


def _salt_at(block: int, data: bytes) -> int:
    """Return what a block of the second seed is sealed with where it lies."""
    special = {0: SUPERBLOCK_SALT, 1: INDEX_SALT, 2: BITMAP_SALT, 5: BITMAP_SALT}
    return special.get(block, SUPERBLOCK_SALT if data[32:40] == _MAGIC else NODE_SALT)


def _read(data: bytes) -> None:
    for live in (False, True):
        checked = Counted(content=data)
        check_metadata(checked, live=live)
        assert checked.reads <= 2 * (len(data) // BLOCK) + 3, "each block is read once, bitmaps twice"
    device = Counted(content=data)
    limit = 2 + 2 * MAX_DEPTH * (len(data) // BLOCK + 3)
    try:
        found = Metadata(device)
        for identity in (0, 5, 1 << 23):
            assert found.mapped_end(identity) <= 1 << 95
        _walk(found)
        _walk(found.snapshot())
    except (FormatError, NotFound):
        pass
    assert device.reads <= limit, f"{device.reads} reads, over {limit}"


def _walk(found: Metadata) -> None:
    last = -1
    for each in found.devices():
        assert last < each.identity < 1 << 24, "identities ascend"
        last = each.identity
