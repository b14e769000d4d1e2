"""What can be asked of a new ext4 file system: sizes, identities, features.

Knows: the choices, their defaults and which of them contradict one another.
Refuses to know: how any of them is laid out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from blockwright.codec.identity import derive_uuid
from blockwright.errors import UsageError
from blockwright.fs.ext4.form import EXTRA_INODE_SIZE, GROUPS_PER_FLEX, INODE_SIZE, Form
from blockwright.fs.ext4.layout import GOOD_OLD_INODE_SIZE, Compat, Incompat, RoCompat, feature_names
from blockwright.units import MAX_SIZE

BLOCK_SIZES: Final = (1024, 2048, 4096)
INODE_SIZES: Final = (GOOD_OLD_INODE_SIZE, INODE_SIZE)
DEFAULT_BYTES_PER_INODE: Final = 16384
DEFAULT_RESERVED_PERCENT: Final = 5.0
MAX_LABEL: Final = 16
MAX_FREE: Final = 0.95
MIN_JOURNAL_BLOCKS: Final = 1024
MAX_JOURNAL_BLOCKS: Final = 10_240_000


def label_bytes(label: str) -> bytes:
    """Return a label as stored, without padding. A byte that is not of UTF-8 is one that ``os.fsdecode`` kept.

    Raises UsageError for one that is too long or that no bytes stand for.
    """
    try:
        data = label.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"ext4 label: expected text, found {label[:64]!a}") from None
    if len(data) > MAX_LABEL:
        raise UsageError(f"ext4 label {label[:64]!a}: expected at most {MAX_LABEL} bytes, found {len(data)}")
    if b"\0" in data:
        raise UsageError(f"ext4 label: expected no NUL, found {label!a}")
    return data


@dataclass(frozen=True, slots=True)
class Features:
    """The feature flags a file system is written with: all of ``REQUIRED``, and of ``OPTIONAL`` any that agree."""

    compat: Compat = Compat.has_journal | Compat.ext_attr | Compat.resize_inode | Compat.dir_index
    incompat: Incompat = Incompat.filetype | Incompat.extent | Incompat.bit64 | Incompat.flex_bg
    ro_compat: RoCompat = (
        RoCompat.sparse_super
        | RoCompat.large_file
        | RoCompat.huge_file
        | RoCompat.dir_nlink
        | RoCompat.extra_isize
        | RoCompat.metadata_csum
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names as e2fsprogs spells them, in the order of their bits."""
        return feature_names(self.compat, self.incompat, self.ro_compat)


DEFAULT_FEATURES: Final = Features()
REQUIRED: Final = Features(Compat.ext_attr, Incompat.filetype, RoCompat.sparse_super | RoCompat.large_file)
"""What no file system is written without."""
OPTIONAL: Final = Features(
    Compat.has_journal | Compat.resize_inode | Compat.dir_index,
    Incompat.extent | Incompat.bit64 | Incompat.flex_bg | Incompat.large_dir,
    RoCompat.huge_file | RoCompat.uninit_bg | RoCompat.dir_nlink | RoCompat.extra_isize | RoCompat.metadata_csum,
)
"""What may be left out. Nothing else can be added."""
_NEEDS: Final = (("64bit", "extent"), ("large_dir", "dir_index"))
"""Features, each with one that it is of no use or not allowed without."""


@dataclass(frozen=True, slots=True)
class Ext4Options:
    """What is asked of a new file system. Sizes in bytes.

    ``size``: None for the smallest that holds the tree. ``free``: the fraction of the finished file system's
    data blocks that stays free, 0 to 0.95. ``seed`` gives every identity that is not given: ``uuid``,
    ``hash_seed``. ``inodes``: the least number of inodes there shall be; ``bytes_per_inode`` says it by the size
    (16384 where a size is given and for what ``free`` asks, otherwise only what the tree needs);
    ``extra_inodes`` are added to what the tree needs. ``reserved_percent``: blocks kept for the superuser; 5 where
    a size is given, as mke2fs does, and 0 where it is automatic, which would otherwise be full of nothing.
    ``journal``: bytes, 0 for none, None for the size that mke2fs gives. ``time_ns``: the superblock's times; None
    for the tree's newest modification.
    ``lost_found``: whether the root gets a lost+found when the tree has none. ``inode_size``: 256, or 128, which
    keeps neither fractions of seconds, nor times past January 2038, which become the last one, nor attributes.
    ``large_dir``: whether that feature may be added where a directory needs it.
    """

    block_size: int = 4096
    size: int | None = None
    free: float = 0.0
    label: str = ""
    seed: bytes = b""
    uuid: UUID | None = None
    hash_seed: UUID | None = None
    inodes: int | None = None
    extra_inodes: int = 0
    bytes_per_inode: int | None = None
    reserved_percent: float | None = None
    journal: int | None = None
    time_ns: int | None = None
    lost_found: bool = True
    features: Features = field(default=DEFAULT_FEATURES)
    inode_size: int = INODE_SIZE
    large_dir: bool = True

    def __post_init__(self) -> None:
        self._check(self.block_size in BLOCK_SIZES, "block size", "1024, 2048 or 4096", self.block_size)
        self._check(0 <= self.free <= MAX_FREE, "free fraction", "0 to 0.95", self.free)
        self._check(self.size is None or 0 < self.size <= MAX_SIZE, "size", "a positive number of bytes", self.size)
        label_bytes(self.label)
        self._check(self.inodes is None or self.inodes > 0, "inodes", "a positive number", self.inodes)
        self._check(self.extra_inodes >= 0, "extra inodes", "at least 0", self.extra_inodes)
        ratio = self.bytes_per_inode
        self._check(ratio is None or ratio >= 1024, "bytes per inode", "at least 1024", ratio)
        percent = self.reserved_percent
        self._check(percent is None or 0 <= percent <= 50, "reserved percentage", "0 to 50", percent)
        journal = self.journal
        self._check(
            not journal or MIN_JOURNAL_BLOCKS <= journal // self.block_size <= MAX_JOURNAL_BLOCKS,
            "journal",
            f"0, or {MIN_JOURNAL_BLOCKS} to {MAX_JOURNAL_BLOCKS} blocks of {self.block_size} bytes",
            f"{self.journal} bytes",
        )
        self._check(self.inode_size in INODE_SIZES, "inode size", "128 or 256 bytes", self.inode_size)
        self._check_features()

    def _check_features(self) -> None:
        features = self.features
        for ours, required, optional in (
            (features.compat, REQUIRED.compat, OPTIONAL.compat),
            (features.incompat, REQUIRED.incompat, OPTIONAL.incompat),
            (features.ro_compat, REQUIRED.ro_compat, OPTIONAL.ro_compat),
        ):
            unknown = ours & ~(required | optional)
            self._check(not unknown, "features", "none that are not written", unknown)
            missing = required & ~ours
            self._check(not missing, "features", f"{missing!s} among them", ours)
        names = features.names
        for feature, needed in _NEEDS:
            self._check(feature not in names or needed in names, "features", f"{needed} with {feature}", names)
        both = RoCompat.metadata_csum | RoCompat.uninit_bg
        self._check(features.ro_compat & both != both, "features", "metadata_csum or uninit_bg", "both")
        extra = bool(features.ro_compat & RoCompat.extra_isize)
        self._check(not extra or self.inode_size == INODE_SIZE, "inode size", "256 bytes with extra_isize", 128)

    @staticmethod
    def _check(holds: bool, what: str, expected: str, found: object) -> None:  # noqa: FBT001  # a condition
        if not holds:
            raise UsageError(f"ext4 {what}: expected {expected}, found {found}")

    @property
    def form(self) -> Form:
        """What the features make of records."""
        features = self.features
        ext2 = not (features.compat & Compat.has_journal or features.incompat & Incompat.extent)
        room = self.inode_size - GOOD_OLD_INODE_SIZE - EXTRA_INODE_SIZE
        return Form(
            block_size=self.block_size,
            inode_size=self.inode_size,
            descriptor_size=64 if features.incompat & Incompat.bit64 else 32,
            groups_per_flex=GROUPS_PER_FLEX if features.incompat & Incompat.flex_bg else 1,
            extents=bool(features.incompat & Incompat.extent),
            huge_file=bool(features.ro_compat & RoCompat.huge_file),
            dir_nlink=bool(features.ro_compat & RoCompat.dir_nlink),
            metadata_csum=bool(features.ro_compat & RoCompat.metadata_csum),
            group_csum=bool(features.ro_compat & RoCompat.uninit_bg),
            attribute_room=0 if ext2 else max(0, room),
        )

    @property
    def effective_uuid(self) -> UUID:
        """The UUID given, or the seed's."""
        return self.uuid or derive_uuid(self.seed, "ext4 uuid")

    @property
    def effective_hash_seed(self) -> UUID:
        """The directory hash seed given, or the seed's."""
        return self.hash_seed or derive_uuid(self.seed, "ext4 directory hash seed")

    @property
    def effective_reserved_percent(self) -> float:
        """The reserved percentage given, or the one that fits how the size was given."""
        if self.reserved_percent is not None:
            return self.reserved_percent
        return 0.0 if self.size is None else DEFAULT_RESERVED_PERCENT

    @property
    def wants_journal(self) -> bool:
        """Whether a journal is written where the file system is large enough for one."""
        return bool(self.features.compat & Compat.has_journal) and self.journal != 0
