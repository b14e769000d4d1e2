"""What a disk is to be: options as a value, and the seed that every identity of the disk follows from.

Knows: what can be asked for, and what contradicts itself. Refuses to know: how any of it is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from blockwright.boot.kinds import NONE, Bios, Uefi, Ways
from blockwright.errors import UsageError
from blockwright.tree.content import Content

ROOT_LABEL = "root"
"""The root file system's label where none is asked for."""


class Table(Enum):
    """The partition table: none means a bare file system."""

    GPT = "gpt"
    MBR = "mbr"
    NONE = "none"


class Home(Enum):
    """Which file system a BIOS's loader, its configuration and its kernel are in."""

    ROOT = "root"
    BOOT = "boot"


_NO_IDENTITY: Final = {"identity": False}
"""Marks an option that says where something is found, and nothing of the disk."""


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
    """How the disk starts. What is None is looked for: the kernel in the tree, loaders there and on this host.

    ``loader`` is the program that UEFI starts, or the stub of a unified kernel image; ``loader_dir`` is where the
    files of every loader are, and nowhere else. ``serial`` puts loader and kernel on the first serial line too.
    ``grub_modules`` puts all of GRUB's modules beside its configuration, for a BIOS.
    ``esp_size`` is the size of the boot partition, which is UEFI's where that starts the disk; None is automatic.
    ``bios_home`` None is the root, but with verity, which keeps the root from naming its own hash.
    """

    ways: Ways = NONE
    kernel: NamedContent | None = None
    initrd: NamedContent | None = None
    loader: NamedContent | None = None
    loader_dir: str | None = field(default=None, metadata=_NO_IDENTITY)
    cmdline: str = ""
    serial: bool = False
    grub_modules: bool = False
    esp_size: int | None = None
    bios_home: Home | None = None


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
        return self.table is not Table.NONE and self.size is not None and self.root.size is None

    @property
    def bios_home(self) -> Home | None:
        """Where the loader for a BIOS is, None where the disk has none."""
        if self.boot.ways.bios is None:
            return None
        return self.boot.bios_home or (Home.BOOT if self.verity else Home.ROOT)

    @property
    def has_boot_partition(self) -> bool:
        """Whether there is a FAT partition in front of the root: UEFI's, or a BIOS's home."""
        return self.boot.ways.uefi is not None or self.bios_home is Home.BOOT

    def check(self) -> None:
        """Raise UsageError for what contradicts itself."""
        root, boot = self.root, self.boot
        for name, text in (("label", root.label), ("kernel command line", boot.cmdline)):
            if not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
                raise UsageError(f"build: {name}: expected text in UTF-8, found {text[:64]!a}")
        if self.table is Table.NONE and boot.ways:
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
        self._check_boot()
        if self.verity:
            self._check_verity()

    def _check_boot(self) -> None:
        boot, (bios, uefi) = self.boot, self.boot.ways
        if not boot.ways and (boot.kernel or boot.initrd or boot.loader or boot.loader_dir or boot.cmdline):
            raise UsageError("build: a kernel, RAM disk, loader or command line is of use with --boot only")
        if not boot.ways and boot.serial:
            raise UsageError("build: a serial console is of use with --boot only")
        bare = uefi is Uefi.KERNEL
        if bare and (boot.loader or (bios is None and (boot.initrd or boot.cmdline or boot.serial))):
            raise UsageError(
                "build: firmware starts a bare kernel without RAM disk and command line: use --boot systemd-boot,"
                " or --boot uki, an image that holds both"
            )
        if boot.loader and uefi is None:
            raise UsageError("build: --loader names what UEFI starts: for a BIOS's loader use --loader-dir")
        if boot.grub_modules and bios is not Bios.GRUB:
            raise UsageError("build: --grub-modules is of use with --boot grub only")
        if boot.bios_home is not None and bios is None:
            raise UsageError("build: --bios-home is of use with a loader for a BIOS only: --boot syslinux or grub")
        if bios is not None and self.sector_size != 512:
            raise UsageError(
                f"build: loaders for a BIOS count in sectors of 512 bytes: expected --sector-size 512 with --boot"
                f" {bios.value}, found {self.sector_size}"
            )

    def _check_verity(self) -> None:
        if self.table is not Table.NONE and self.table is not Table.GPT:
            raise UsageError("build: a partition of hashes is known by its type: expected --table gpt with --verity")
        if self.bios_home is Home.ROOT:
            raise UsageError(
                "build: a loader in the root would have to name the root's own hash: expected --bios-home boot with"
                " --verity"
            )
        if self.table is Table.NONE:
            raise UsageError("build: a bare file system has no room for hashes: expected --table gpt with --verity")
        if self.boot.ways.uefi is Uefi.KERNEL:
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
            if not each.metadata.get("identity", True):
                continue
            leaves += _flatten(f"{prefix}.{each.name}", getattr(value, each.name))
        return leaves
    return [(prefix, repr(value))]
