"""What one partition of a disk is to be, as a value.

Knows: what can be asked for, and what contradicts itself. Refuses to know: the other partitions, and how any of it is
done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from blockwright.errors import UsageError
from blockwright.table.gpt.names import parse_attributes
from blockwright.table.plan import DEFAULT_WEIGHT
from blockwright.tree.content import Content

EXT: Final = ("ext2", "ext3", "ext4")
FAT: Final = {"fat": None, "fat12": 12, "fat16": 16, "fat32": 32}
"""Kinds of FAT, and the bits of an entry; None for what fits the size."""
SWAP: Final = "swap"
NOTHING: Final = "none"
FILE_SYSTEMS: Final = (*EXT, *FAT, SWAP, NOTHING)
BOOT_TYPES: Final = ("esp", "xbootldr")
ELSEWHERE: Final = {"identity": False}
"""Marks an option that says where something is found: what is found there counts, and not the place."""
_FAT_TYPES: Final = (*BOOT_TYPES, "microsoft-basic-data")
_MOUNT: Final = re.compile(r"/|(/[^/\0]+)+")


@dataclass(frozen=True, slots=True)
class NamedContent:
    """A file that the caller names: a kernel, a RAM disk, a loader, a partition's bytes. Equal by its name."""

    name: str
    content: Content = field(compare=False)


@dataclass(frozen=True, slots=True)
class PartitionDefinition:
    """A partition: what it holds, its size, and what the table says of it. Sizes in bytes.

    It holds a part of the disk's tree (``mount``, where that is mounted; ``/`` is the rest of it), or trees of its
    own (``sources``, several over one another) with ``files`` (a path of the host, and one within) and
    ``directories`` put in, or the bytes of ``image``, or nothing. ``file_system`` None follows from that and from the
    type.

    ``size`` None is automatic: what it holds, and ``free`` (a fraction of the whole) beside it. With ``rest`` it gets
    a share of what the disk has left, by ``weight``. Both keep to ``minimum`` and ``maximum``. Behind it stay
    ``padding`` bytes free, and a share by ``padding_weight`` up to ``padding_maximum``. ``start`` is its first byte.
    Without ``in_table`` it is a run of the disk that no table tells of.

    ``type`` is a name or a UUID; on an MBR also a number such as 0x0c. ``hybrid`` is the type under which the MBR of
    a GPT tells of it too. ``uuid`` and ``file_system_uuid`` None follow from the seed. ``hashes`` marks the partition
    for the root's hash tree.
    """

    mount: str | None = None
    sources: tuple[str, ...] = field(default=(), metadata=ELSEWHERE)
    files: tuple[tuple[str, str], ...] = field(default=(), metadata=ELSEWHERE)
    directories: tuple[str, ...] = ()
    image: NamedContent | None = None
    file_system: str | None = None
    size: int | None = None
    rest: bool = False
    minimum: int = 0
    maximum: int | None = None
    weight: int = DEFAULT_WEIGHT
    padding: int = 0
    padding_maximum: int | None = None
    padding_weight: int = 0
    start: int | None = None
    alignment: int | None = None
    in_table: bool = True
    type: str | None = None
    name: str | None = None
    uuid: UUID | None = None
    attributes: tuple[str, ...] = ()
    logical: bool = False
    hybrid: str | None = None
    hashes: bool = False
    label: str = ""
    file_system_uuid: UUID | None = None
    free: float = 0.0
    block_size: int | None = None
    inodes: int | None = None
    reserved: float | None = None
    journal: int | None = None
    inode_size: int | None = None
    compat: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The file system that it is to have, ``none`` for no file system."""
        if self.file_system is not None:
            return self.file_system
        if self.image is not None or self.hashes or self.type == "bios-boot":
            return NOTHING
        if self.type in _FAT_TYPES:
            return "fat"
        if self.type == SWAP:
            return SWAP
        return "ext4" if self.has_tree else NOTHING

    @property
    def has_tree(self) -> bool:
        """Whether it is to hold files."""
        return bool(self.mount or self.sources or self.files or self.directories)

    @property
    def is_root(self) -> bool:
        """Whether it holds the disk's tree but for what other partitions hold of it."""
        return self.mount == "/"

    @property
    def marked(self) -> bool:
        """Whether it says itself that a BIOS starts it."""
        return "legacy-boot" in self.attributes or "active" in self.attributes

    @property
    def attribute_bits(self) -> int:
        """The attributes as a GPT has them, but for the mark of what a BIOS starts. Raises UsageError."""
        return parse_attributes([each for each in self.attributes if each not in ("active", "legacy-boot")])

    @property
    def what(self) -> str:
        """What messages call it."""
        return f"partition {(self.mount or self.name or self.type or self.kind)[:64]!a}"

    def check(self) -> None:
        """Raise UsageError for what contradicts itself."""
        kind = self.kind
        if kind not in FILE_SYSTEMS:
            raise self._error(f"expected a file system of {', '.join(FILE_SYSTEMS)}, found {kind[:64]!a}")
        if self.mount is not None and (not _MOUNT.fullmatch(self.mount) or {".", ".."} & set(self.mount.split("/"))):
            raise self._error(f"expected an absolute path to mount at, found {self.mount[:64]!a}")
        self._check_content(kind)
        self._check_size(kind)
        self._check_table()

    def _check_content(self, kind: str) -> None:
        held = [bool(self.mount), bool(self.sources), self.image is not None]
        if sum(held) > 1 or (self.image is not None and (self.files or self.directories)):
            raise self._error("expected either a mount point, sources of its own, or an image, found several")
        if kind in (SWAP, NOTHING) and self.has_tree:
            raise self._error(f"expected a file system for what it is to hold, found {kind}")
        if self.image is not None and kind != NOTHING:
            raise self._error("expected no file system beside an image, which has its own")
        if self.hashes and (kind != NOTHING or self.image is not None):
            raise self._error("expected the root's hashes to be all that it holds")
        for target in (*(inside for _, inside in self.files), *self.directories):
            if not _MOUNT.fullmatch(target) or {".", ".."} & set(target.split("/")):
                raise self._error(f"expected an absolute path within, found {target[:64]!a}")
        for option, kinds in (
            (self.inodes, EXT),
            (self.reserved, EXT),
            (self.journal, EXT),
            (self.inode_size, EXT),
            (self.compat or None, EXT),
            (self.block_size, (*EXT, *FAT)),
            (self.label or None, (*EXT, *FAT, SWAP)),
            (self.free or None, (*EXT, *FAT)),
            (self.file_system_uuid, (*EXT, SWAP)),
        ):
            if option is not None and kind not in kinds:
                raise self._error(f"expected options of its file system, {kind}, found one of {' or '.join(kinds)}")
        for option, text in (("label", self.label), ("name", self.name)):
            if text and not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
                raise self._error(f"{option}: expected text in UTF-8, found {text[:64]!a}")

    def _check_size(self, kind: str) -> None:
        if self.rest and (self.size is not None or self.free):
            raise self._error("expected either a size, the rest of the disk, or a share of free space, found two")
        if self.free and self.size is not None:
            raise self._error("expected either a size or a share of free space, found both")
        if self.size is not None and (self.minimum or self.maximum is not None):
            raise self._error("expected either a size, or a minimum and maximum, found both")
        if self.maximum is not None and self.maximum < self.minimum:
            raise self._error(f"expected a maximum of at least {self.minimum} bytes, found {self.maximum}")
        if self.padding_maximum is not None and self.padding_maximum < self.padding:
            raise self._error(f"expected a padding of at least {self.padding} bytes, found {self.padding_maximum}")
        sized = self.size is not None or self.rest or self.minimum
        held = self.image is not None or self.hashes or self.type == "bios-boot"
        if not sized and not held and kind in (SWAP, NOTHING):
            raise self._error("expected a size, since nothing that it holds says one")
        if not self.in_table and (self.start is None or self.image is None):
            raise self._error("expected a start and an image for what no table tells of")

    def _check_table(self) -> None:
        self.attribute_bits  # noqa: B018  # raises
        if not self.in_table and (self.type or self.name or self.uuid or self.attributes or self.hybrid or self.rest):
            raise self._error("expected neither type, name, UUID, attributes nor rest where no table tells of it")

    def _error(self, message: str) -> UsageError:
        return UsageError(f"{self.what}: {message}")
