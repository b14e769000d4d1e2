"""Makes a hash area: the superblock and the tree behind it, in any device, or as one device with the data.

Knows: the order of writing. Refuses to know: how a tree is computed, and where devices come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.device.concat import Concat
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import NoSpace, UsageError
from blockwright.units import align_up
from blockwright.verity.layout import MAX_SALT, Parameters, Superblock, parse_superblock
from blockwright.verity.plan import area_end, tree_start
from blockwright.verity.tree import Progress, write_tree


@dataclass(frozen=True, slots=True)
class HashArea:
    """A tree in a hash device: what it was computed with, where it begins in bytes, and its UUID.

    ``uuid`` is None where there is no superblock to keep it.
    """

    parameters: Parameters
    tree_start: int
    uuid: UUID | None


def read_area(hashes: BlockDevice, hash_offset: int = 0) -> HashArea:
    """Return what the superblock at ``hash_offset`` says. Raises FormatError, Misaligned."""
    if hash_offset < 0 or hash_offset + Superblock.SIZE > hashes.size:
        head = b""
    else:
        head = read_bytes(hashes, hash_offset, Superblock.SIZE)
    parameters, uuid = parse_superblock(head, offset=hash_offset)
    return HashArea(parameters, tree_start(parameters, hash_offset, superblock=True), uuid)


def read_bytes(device: BlockDevice, offset: int, length: int) -> bytes:
    """Return bytes of a device that may take whole blocks only."""
    block = device.traits.minimum_block
    start = offset // block * block
    return device.read(start, align_up(offset + length, block) - start)[offset - start :][:length]


def blocks_of(size: int, data_block: int, data_blocks: int | None = None) -> int:
    """Return how many blocks of ``size`` bytes of data are to be proven: those that are given, or all.

    Raises UsageError where a part of a block would be left over, NoSpace where there are fewer.
    """
    if data_blocks is None:
        if size % data_block:
            raise UsageError(
                f"verity: expected data in whole blocks of {data_block} bytes, found {size} bytes: fill the last"
                " block up, or say how many blocks are to be proven"
            )
        return size // data_block
    if data_blocks * data_block > size:
        raise NoSpace(f"verity: expected data of at least {data_blocks * data_block} bytes, found {size}")
    return data_blocks


def write_area(
    data: BlockDevice,
    hashes: BlockDevice,
    parameters: Parameters,
    *,
    hash_offset: int = 0,
    uuid: UUID | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Return the root hash of ``data``, with its tree and, where ``uuid`` is given, a superblock in ``hashes``.

    The superblock is written last, and what lies between it and the tree is zeros. Nothing is flushed. ``data`` and
    ``hashes`` may be the same device. Raises Misaligned, NoSpace where the tree does not fit, UsageError where it
    would lie on its data, and what the devices raise.
    """
    superblock = uuid is not None
    start = tree_start(parameters, hash_offset, superblock=superblock)
    end = area_end(parameters, hash_offset, superblock=superblock)
    if end > hashes.size:
        raise NoSpace(f"verity: expected a hash device of at least {end} bytes, found {hashes.size}")
    if data is hashes and hash_offset < parameters.data_size:
        raise UsageError(
            f"verity: expected hashes behind the {parameters.data_size} bytes of data, found them at {hash_offset}"
        )
    with Window(hashes, start, end - start, owns=False) as tree:
        root = write_tree(data, parameters, tree.write, threads=threads, progress=progress)
    if uuid is not None:
        hashes.write(hash_offset, parameters.superblock(uuid).ljust(start - hash_offset, b"\0"))
    return root


def protected(
    data: BlockDevice, parameters: Parameters, uuid: UUID | None, *, area: BlockDevice | None = None
) -> tuple[Concat, bytes]:
    """Return one device of the data with its hash area behind it, which can be copied anywhere, and the root hash.

    The area is kept in ``area``, of at least ``area_end`` bytes, or else in memory, of which it takes about a 128th
    of the data with the default sizes. The data must end where a hash block may begin. Closing the device closes
    both. Raises as ``write_area`` does.
    """
    start = tree_start(parameters, data.size, superblock=uuid is not None) - data.size
    size = area_end(parameters, data.size, superblock=uuid is not None) - data.size
    hashes = MemoryDevice(size) if area is None else area
    root = write_tree(data, parameters, lambda offset, blocks: hashes.write(start + offset, blocks))
    if uuid is not None:
        hashes.write(0, parameters.superblock(uuid).ljust(start, b"\0"))
    return Concat([(0, data), (data.size, hashes)]), root


def parse_salt(text: str) -> bytes:
    """Return the salt that ``text`` writes in hexadecimal, ``-`` being none. Raises UsageError."""
    if text == "-":
        return b""
    try:
        salt = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"salt: expected hexadecimal digits or -, found {text[:64]!r}") from None
    if not 0 < len(salt) <= MAX_SALT:
        raise UsageError(f"salt: expected 1 to {MAX_SALT} bytes, found {len(salt)}")
    return salt
