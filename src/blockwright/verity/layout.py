"""The superblock of a dm-verity hash area, and what of it is allowed.

Knows: bytes and limits. Refuses to know: where the blocks of a tree lie (``plan``), and any device.

Source: cryptsetup's wiki page "DMVerity", section "Superblock"; Linux Documentation/admin-guide/device-mapper/
verity.rst, "Construction Parameters".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from blockwright.codec.identity import derive_bytes, derive_uuid
from blockwright.codec.record import Buffer, Record, raw, u16, u32, u64
from blockwright.errors import Corrupt, NotThisFormat, Unsupported, UsageError
from blockwright.units import MAX_SIZE

MAGIC: Final = b"verity\0\0"
SPEC: Final = "dm-verity superblock version 1"
MIN_BLOCK: Final = 512
MAX_BLOCK: Final = 512 << 10
"""What veritysetup takes; Linux opens no device with blocks larger than a page."""
MAX_SALT: Final = 256
MAX_DATA: Final = MAX_SIZE // 4
"""Bytes of data: what takes a seventh of it at most, and a block for each level, fits behind it."""
SALT: Final = 32
"""Bytes of a salt that nobody gave."""

DIGEST_SIZES: Final = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}
"""Bytes of a digest by the kernel's name of the algorithm, which is hashlib's too."""


class Superblock(Record, size=512):
    """struct verity_sb."""

    signature: bytes = raw(0x0, 8)
    version: int = u32(0x8, 1)
    hash_type: int = u32(0xC, 1)  # 1: the salt in front, digests padded to powers of two; 0: as Chrome OS had it
    uuid: bytes = raw(0x10, 16)
    algorithm: bytes = raw(0x20, 32)  # ends with NUL
    data_block_size: int = u32(0x40)  # bytes
    hash_block_size: int = u32(0x44)  # bytes
    data_blocks: int = u64(0x48)
    salt_size: int = u16(0x50)  # bytes
    salt: bytes = raw(0x58, MAX_SALT)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a tree is computed with: the algorithm, the salt, sizes of blocks in bytes, and how many hold data.

    Raises UsageError for values that no tree can have.
    """

    data_blocks: int
    algorithm: str = "sha256"
    salt: bytes = b""
    data_block: int = 4096
    hash_block: int = 4096

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise UsageError(f"verity: {problem[1]}")

    @property
    def digest_size(self) -> int:
        """The bytes of a digest."""
        return DIGEST_SIZES[self.algorithm]

    @property
    def slot_size(self) -> int:
        """The bytes that a digest takes in a hash block: the next power of two, padded with zeros."""
        return 1 << (self.digest_size - 1).bit_length()

    @property
    def slots(self) -> int:
        """The digests that a hash block holds."""
        return self.hash_block // self.slot_size

    @property
    def data_size(self) -> int:
        """The bytes that the tree proves."""
        return self.data_blocks * self.data_block

    def superblock(self, uuid: UUID) -> bytes:
        """Return the superblock's 512 bytes."""
        return Superblock(
            signature=MAGIC,
            uuid=uuid.bytes,
            algorithm=self.algorithm.encode(),
            data_block_size=self.data_block,
            hash_block_size=self.hash_block,
            data_blocks=self.data_blocks,
            salt_size=len(self.salt),
            salt=self.salt,
        ).pack()


def identity(seed: bytes) -> tuple[bytes, UUID]:
    """Return a salt and a UUID that follow from the seed."""
    return derive_bytes(seed, "verity.salt", SALT), derive_uuid(seed, "verity.uuid")


def is_superblock(data: Buffer) -> bool:
    """Whether the bytes begin as a superblock does."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def parse_superblock(data: Buffer, *, offset: int = 0) -> tuple[Parameters, UUID]:
    """Return what the superblock in the 512 bytes ``data``, which lie at ``offset``, says, and its UUID.

    Raises NotThisFormat without its magic, Unsupported for an algorithm, version or hash type that is not known,
    Corrupt for a value that no tree can have.
    """
    if len(data) < Superblock.SIZE or not is_superblock(data):
        found = bytes(data[: len(MAGIC)]).hex() or "nothing"
        raise NotThisFormat(f"expected a verity superblock ({MAGIC.hex()}), found {found}", offset=offset, spec=SPEC)
    found_one = Superblock.parse(data)
    for name, value, at in (("version", found_one.version, 0x8), ("hash type", found_one.hash_type, 0xC)):
        if value != 1:
            raise Unsupported(f"verity: {name}: expected 1, found {value}", offset=offset + at, spec=SPEC)
    algorithm = found_one.algorithm.split(b"\0", 1)[0].decode("ascii", "replace")
    if algorithm not in DIGEST_SIZES:
        expected = ", ".join(DIGEST_SIZES)
        raise Unsupported(
            f"verity: hash algorithm: expected one of {expected}, found {algorithm!r}",
            offset=offset + 0x20,
            spec=SPEC,
        )
    if found_one.salt_size > MAX_SALT:
        raise Corrupt(
            f"verity: salt: expected at most {MAX_SALT} bytes, found {found_one.salt_size}",
            offset=offset + 0x50,
            spec=SPEC,
        )
    values = (
        found_one.data_blocks,
        algorithm,
        found_one.salt[: found_one.salt_size],
        found_one.data_block_size,
        found_one.hash_block_size,
    )
    try:
        return Parameters(*values), UUID(bytes=found_one.uuid)
    except UsageError:
        at, text = _problem_of(*values) or (0, "")
        raise Corrupt(f"verity: {text}", offset=offset + at, spec=SPEC) from None


def parse_root(text: str, parameters: Parameters) -> bytes:
    """Return the root hash that ``text`` writes in hexadecimal. Raises UsageError where it is none of this tree's."""
    try:
        root = bytes.fromhex(text)
    except ValueError:
        root = b""
    if len(root) != parameters.digest_size or len(text) != 2 * len(root):
        raise UsageError(
            f"root hash: expected {2 * parameters.digest_size} hexadecimal digits for {parameters.algorithm},"
            f" found {text[:160]!r}"
        )
    return root


def _problem(given: Parameters) -> tuple[int, str] | None:
    return _problem_of(given.data_blocks, given.algorithm, given.salt, given.data_block, given.hash_block)


def _problem_of(
    data_blocks: int, algorithm: str, salt: bytes, data_block: int, hash_block: int
) -> tuple[int, str] | None:
    """Return what is wrong, and at which byte of a superblock that would be said; None where nothing is."""
    if algorithm not in DIGEST_SIZES:
        return 0x20, f"hash algorithm: expected one of {', '.join(DIGEST_SIZES)}, found {algorithm[:64]!r}"
    if len(salt) > MAX_SALT:
        return 0x50, f"salt: expected at most {MAX_SALT} bytes, found {len(salt)}"
    for name, size, at in (("data block", data_block, 0x40), ("hash block", hash_block, 0x44)):
        if size.bit_count() != 1 or not MIN_BLOCK <= size <= MAX_BLOCK:
            return at, f"{name}: expected a power of two from {MIN_BLOCK} to {MAX_BLOCK} bytes, found {size}"
    limit = MAX_DATA // data_block
    if not 1 <= data_blocks <= limit:
        return 0x48, f"data blocks: expected 1 to {limit}, found {data_blocks}"
    return None
