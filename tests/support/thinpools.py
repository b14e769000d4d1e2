"""Metadata of thin pools, made by hand: what no kernel is at hand to make, or would never make."""

from collections import Counter

from blockwright.system.linux.thin import layout, spaces
from blockwright.system.linux.thin.layout import BLOCK, DETAILS, NodeHeader, SpaceMapRoot, Superblock

BLOCKS = 512


def sealed(data, salt, block=None):
    """The block with its checksum right again."""
    data = bytearray(data)
    if block is not None:
        data[8:16] = block.to_bytes(8, "little")
    data[:4] = layout.checksum(data, salt).to_bytes(4, "little")
    return bytes(data)


def node(block, keys, values, *, leaf=True, max_entries=None, value_size=None, flags=None, width=DETAILS.size):
    """A node; values are packed for a leaf of `width` bytes each, numbers of blocks otherwise."""
    width = width if leaf else 8
    room = (BLOCK - NodeHeader.SIZE) // (8 + width) // 3 * 3 if max_entries is None else max_entries
    header = NodeHeader(
        flags=(2 if leaf else 1) if flags is None else flags,
        block=block,
        entries=len(keys),
        max_entries=room,
        value_size=width if value_size is None else value_size,
    )
    body = b"".join(key.to_bytes(8, "little") for key in keys).ljust(8 * room, b"\0")
    body += b"".join(value if leaf else value.to_bytes(8, "little") for value in values)
    return sealed((header.pack() + body)[:BLOCK].ljust(BLOCK, b"\0"), layout.NODE_SALT)


def superblock(*, block=0, details_root=1, **values):
    """A superblock of 512 blocks of metadata and 64 of data, 3 of which are used."""
    values = {"data_block_sectors": 128, "metadata_blocks": BLOCKS, "transaction": 5, "mapping_root": 2} | values
    data = SpaceMapRoot(blocks=64, used_blocks=3).pack()
    made = Superblock(block=block, details_root=details_root, data_map=data, **values)
    return sealed(made.pack(), layout.SUPERBLOCK_SALT)


def metadata(blocks, **values):
    """Metadata whose blocks are those given by number, behind a superblock with those values."""
    image = bytearray(BLOCKS * BLOCK)
    for number, data in {0: superblock(**values), **blocks}.items():
        image[number * BLOCK : (number + 1) * BLOCK] = data
    return bytes(image)


def tree(details, *, fan=3, first=1):
    """(root's number, nodes by number) of a tree with `fan` entries a node."""
    found, number = {}, first
    level = []
    for at in range(0, max(1, len(details)), fan):
        part = details[at : at + fan]
        values = [DETAILS.pack(each.mapped_blocks, each.transaction, each.created, each.snapshotted) for each in part]
        found[number] = node(number, [each.identity for each in part], values)
        level.append((part[0].identity if part else 0, number))
        number += 1
    while len(level) > 1:
        above = []
        for at in range(0, len(level), fan):
            part = level[at : at + fan]
            found[number] = node(number, [key for key, _ in part], [child for _, child in part], leaf=False)
            above.append((part[0][0], number))
            number += 1
        level = above
    return level[0][1], found


def mappings(of, *, first):
    """(root's number, nodes by number) of a tree of mappings: the blocks of each identity that are mapped."""
    found, roots = {}, []
    for at, blocks in enumerate(of.values(), first + 1):
        found[at] = node(at, blocks, [bytes(8)] * len(blocks), width=8)
        roots.append(at.to_bytes(8, "little"))
    found[first] = node(first, list(of), roots, width=8)
    return first, found


def bitmap(block, counts):
    """A bitmap that says how often each block is used, up to 3 for "more often"."""
    data = bytearray(BLOCK)
    for at, count in enumerate(counts):
        data[16 + at // 4] |= ((count >> 1) & 1 | (count & 1) << 1) << at % 4 * 2
    return sealed(data, spaces.BITMAP_SALT, block)


def index(block, entries):
    """The index of the metadata's bitmaps: (block, free, first free) of each."""
    data = bytes(16) + b"".join(spaces.INDEX_ENTRY.pack(*each) for each in entries)
    return sealed(data.ljust(BLOCK, b"\0"), spaces.INDEX_SALT, block)


DATA_BLOCKS = 64


def whole(devices, *, size=64, **changes):
    """Blocks by number of sound metadata of `size` blocks: {identity: {block of the device: block of data}}.

    `changes` replace what a space map or a device is said to have: `data_counts`, `metadata_counts`, `mapped`.
    """
    found, first = {}, 9
    used = Counter(data for maps in devices.values() for data in maps.values())
    data_counts = changes.get("data_counts", used)
    metadata_counts = changes.get("metadata_counts", dict.fromkeys(range(first + len(devices)), 1))

    def low(counts, blocks):
        return [min(counts.get(at, 0), 3) for at in range(blocks)]

    def high(block, counts):
        many = sorted(at for at, count in counts.items() if count > 2)
        return node(block, many, [counts[at].to_bytes(4, "little") for at in many], width=4)

    free = low(data_counts, DATA_BLOCKS).count(0)
    found[1] = index(1, [(2, low(metadata_counts, size).count(0), 0)])
    found[2], found[3] = bitmap(2, low(metadata_counts, size)), high(3, metadata_counts)
    found[4] = node(4, [0], [spaces.INDEX_ENTRY.pack(5, free, 0)], width=16)
    found[5], found[6] = bitmap(5, low(data_counts, DATA_BLOCKS)), high(6, data_counts)
    mapped = changes.get("mapped", {each: len(maps) for each, maps in devices.items()})
    found[7] = node(7, list(mapped), [DETAILS.pack(count, 1, 0, 0) for count in mapped.values()])
    roots = [(first + at).to_bytes(8, "little") for at in range(len(devices))]
    found[8] = node(8, list(devices), roots, width=8)
    for at, maps in enumerate(devices.values(), first):
        found[at] = node(at, list(maps), [(data << 24 | 1).to_bytes(8, "little") for data in maps.values()], width=8)
    data_map = SpaceMapRoot(blocks=DATA_BLOCKS, used_blocks=DATA_BLOCKS - free, bitmap_root=4, count_root=6)
    metadata_map = SpaceMapRoot(blocks=size, used_blocks=len(metadata_counts), bitmap_root=1, count_root=3)
    top = Superblock(
        time=1,
        transaction=5,
        data_map=data_map.pack(),
        metadata_map=metadata_map.pack(),
        mapping_root=8,
        details_root=7,
        data_block_sectors=128,
        metadata_blocks=size,
    )
    found[0] = sealed(top.pack(), layout.SUPERBLOCK_SALT)
    return found


def image(blocks, size=64):
    """The bytes of metadata that has those blocks."""
    return b"".join(blocks.get(at, bytes(BLOCK)) for at in range(size))
