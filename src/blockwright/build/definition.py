"""What a disk is to be: options as a value, and the seed that every identity of the disk follows from.

Knows: what can be asked for, and what contradicts itself. Refuses to know: how any of it is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from enum import Enum

from blockwright.errors import UsageError
from blockwright.tree.content import Content

ROOT_LABEL = "root"
"""The root file system's label where none is asked for."""


class Table(Enum):
    """The partition table: none means a bare file system."""

    GPT = "gpt"
    NONE = "none"


class Boot(Enum):
    """What starts the disk."""

    NONE = "none"
    SYSTEMD_BOOT = "systemd-boot"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class NamedContent:
    """A file that the caller names beside the tree: a kernel, a RAM disk, a loader."""

    name: str
    content: Content


@dataclass(frozen=True, slots=True)
class RootOptions:
    """The root file system. Sizes in bytes.

    ``size`` None is automatic: the content, and ``free`` (a fraction of the whole) beside it.
    ``journal`` None is by size, 0 is none. ``inodes`` None is what the tree needs with some to spare.
    """

    size: int | None = None
    free: float = 0.0
    label: str = ROOT_LABEL
    block_size: int = 4096
    inodes: int | None = None
    reserved: float | None = None
    journal: int | None = None


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How the disk starts. What is None is looked for in the tree; ``esp_size`` None is automatic."""

    boot: Boot = Boot.NONE
    kernel: NamedContent | None = None
    initrd: NamedContent | None = None
    loader: NamedContent | None = None
    cmdline: str = ""
    esp_size: int | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """A disk: its table, its root file system and what starts it.

    ``size`` None makes the disk as small as its parts; given, the root takes what remains unless it has a size of
    its own. ``seed`` None follows from the definition and the tree; ``random`` is a new one each time.
    ``medium_size`` is that of a device which is there already: the table spans it, whatever the parts take.
    ``verity`` adds a hash partition, which proves every block of a root that is never written again.
    ``time_s`` is SOURCE_DATE_EPOCH: every time of the result is at most that many seconds after 1970.
    """

    table: Table = Table.GPT
    sector_size: int = 512
    size: int | None = None
    medium_size: int | None = None
    root: RootOptions = field(default_factory=RootOptions)
    boot: BootOptions = field(default_factory=BootOptions)
    verity: bool = False
    seed: str | None = None
    time_s: int | None = None

    @property
    def root_size(self) -> int | None:
        """The size of the root file system where it is given, by its own size or by that of a bare one."""
        return self.size if self.table is Table.NONE and self.root.size is None else self.root.size

    @property
    def disk_size(self) -> int | None:
        """The size of the whole disk where it is given, by its own size or by that of a device."""
        return self.size or self.medium_size

    @property
    def root_takes_rest(self) -> bool:
        """Whether the root partition takes what the disk has left."""
        return self.table is Table.GPT and self.size is not None and self.root.size is None

    def check(self) -> None:
        """Raise UsageError for what contradicts itself."""
        root, boot = self.root, self.boot
        for name, text in (("label", root.label), ("kernel command line", boot.cmdline)):
            if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
                raise UsageError(f"build: {name}: expected text in UTF-8, found {text[:64]!a}")
        if self.table is Table.NONE and boot.boot is not Boot.NONE:
            raise UsageError("build: a bare file system cannot be made to boot: expected --table gpt with --boot")
        if self.table is Table.NONE and self.size is not None and root.size not in (None, self.size):
            raise UsageError(f"build: expected one size for a bare file system, found {self.size} and {root.size}")
        if root.free and (root.size is not None or self.size is not None):
            raise UsageError("build: expected either a size or a share of free space, found both")
        if self.sector_size not in (512, 4096):
            raise UsageError(f"build: expected sectors of 512 or 4096 bytes, found {self.sector_size}")
        if self.sector_size > root.block_size:
            raise UsageError(
                f"build: expected blocks of at least a sector, found {root.block_size} and {self.sector_size} bytes"
            )
        if boot.boot is Boot.NONE and (boot.kernel or boot.initrd or boot.loader or boot.cmdline):
            raise UsageError("build: a kernel, RAM disk, loader or command line is of use with --boot only")
        if boot.boot is Boot.KERNEL and (boot.initrd or boot.loader or boot.cmdline):
            raise UsageError(
                "build: firmware starts a bare kernel without RAM disk and command line: use --boot systemd-boot,"
                " or a unified kernel image that holds both"
            )
        if self.verity:
            self._check_verity()

    def _check_verity(self) -> None:
        if self.table is Table.NONE:
            raise UsageError("build: a bare file system has no room for hashes: expected --table gpt with --verity")
        if self.boot.boot is Boot.KERNEL:
            raise UsageError("build: a bare kernel is not told the root hash: use --boot systemd-boot with --verity")
        for word in self.boot.cmdline.split():
            if word == "rw" or word.startswith("roothash="):
                raise UsageError(
                    "build: kernel command line: expected --verity to say the root hash and that the root is"
                    f" read-only, found {word[:80]}"
                )

    def identity_seed(self, tree_digest: bytes) -> bytes:
        """Return what every UUID, hash seed and volume number of the disk follows from.

        By default a hash of the definition and of the tree's metadata, not of bodies: the same input gives the
        same bytes. With a seed of the caller's, of that seed alone.
        """
        if self.seed == "random":
            return os.urandom(32)
        if self.seed is not None:
            return hashlib.sha256(b"seed\0" + self.seed.encode("utf-8", "surrogateescape")).digest()
        state = hashlib.sha256(b"definition\0" + tree_digest)
        for name, value in sorted(_flatten("", self)):
            state.update(f"{name}={value}\0".encode())
        return state.digest()


def _flatten(prefix: str, value: object) -> list[tuple[str, str]]:
    """Return the leaves of nested options by name; a named file counts by its name and size."""
    if isinstance(value, NamedContent):
        return [(prefix, str(value.content.size))]
    if isinstance(value, Enum):
        return [(prefix, str(value.value))]
    if dataclasses.is_dataclass(value):
        leaves = []
        for each in dataclasses.fields(value):
            leaves += _flatten(f"{prefix}.{each.name}", getattr(value, each.name))
        return leaves
    return [(prefix, repr(value))]
