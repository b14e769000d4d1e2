"""What a disk is to be: options as a value, and the seed that every identity of the disk follows from.

Knows: what can be asked for, and what contradicts itself. Refuses to know: how any of it is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from blockwright.boot.kinds import NONE, NOTHING, Bios, Secure, Uefi, Ways
from blockwright.build.partition import ELSEWHERE, NamedContent, PartitionDefinition
from blockwright.errors import UsageError
from blockwright.tree.changes.options import Changes

__all__ = ["BootOptions", "Definition", "Home", "NamedContent", "PartitionDefinition", "RootOptions", "Table"]

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


MAX_PARTITIONS: Final = 128
"""Partitions that can be listed: as many as a GPT has entries."""

_SINCE_LISTS: Final = {"counts": "given"}
"""Marks an option that came later: identities follow from it where it is given, and else are as they were before."""


class Contradiction(UsageError):
    """What contradicts something else that is asked for.

    ``key`` is what a file calls it: of the disk, or of the partition of that ``index`` in the list.
    """

    def __init__(self, key: str, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.index = index


@dataclass(frozen=True, slots=True)
class RootOptions:
    """The root partition of a disk whose partitions are not listed. Sizes in bytes.

    ``size`` None is automatic: the content, and ``free`` (a fraction of the whole) beside it.
    ``journal`` None is by size, 0 is none. ``inodes`` None is what the tree needs with some to spare. ``fs`` is ext2,
    ext3 or ext4, and ``compat`` names old kernels and loaders that have to read it (``fs.ext4.profiles``).
    ``inode_size`` None is 256, or 128 where one of those asks for it.
    """

    size: int | None = None
    free: float = 0.0
    label: str = ROOT_LABEL
    block_size: int = 4096
    inodes: int | None = None
    reserved: float | None = None
    journal: int | None = None
    fs: str = "ext4"
    inode_size: int | None = None
    compat: tuple[str, ...] = ()

    @property
    def partition(self) -> PartitionDefinition:
        """The same as a partition of a list."""
        return PartitionDefinition(
            mount="/",
            file_system=self.fs,
            size=self.size,
            free=self.free,
            label=self.label,
            block_size=self.block_size,
            inodes=self.inodes,
            reserved=self.reserved,
            journal=self.journal,
            inode_size=self.inode_size,
            compat=self.compat,
        )


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How the disk starts. What is None is looked for: the kernel in the tree, loaders there and on this host.

    ``loader`` is the program that UEFI starts, or the stub of a unified kernel image; ``loader_dir`` is where the
    files of every loader are, and nowhere else. ``serial`` puts loader and kernel on the first serial line too.
    ``grub_modules`` puts all of GRUB's modules beside its configuration, for a BIOS.
    ``esp_size`` is the size of the boot partition, which is UEFI's where that starts the disk; None is automatic.
    ``splash`` (a bitmap) and ``devicetree`` become sections of a unified kernel image. ``secure`` is what Secure Boot
    asks for.
    ``bios_home`` None is the root, but with verity, which keeps the root from naming its own hash.
    """

    ways: Ways = NONE
    kernel: NamedContent | None = None
    initrd: NamedContent | None = None
    loader: NamedContent | None = None
    loader_dir: str | None = field(default=None, metadata=ELSEWHERE)
    cmdline: str = ""
    serial: bool = False
    grub_modules: bool = False
    esp_size: int | None = None
    bios_home: Home | None = None
    splash: NamedContent | None = None
    devicetree: NamedContent | None = None
    secure: Secure = field(default=NOTHING, metadata=ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Definition:
    """A disk: its table, its partitions and what starts it.

    ``partitions`` are in the order in which they lie. Without them there is one, the root, as ``root`` says; what
    starts the disk, and hashes, get partitions of their own where none is listed for them (``listing``).
    ``size`` None makes the disk as small as its parts; given, the root takes what remains unless it has a size of
    its own or partitions are listed. ``alignment`` None is a MiB; ``disk_id`` is a GUID, or an MBR's signature.
    ``seed`` None follows from the definition and the tree; ``random`` is a new one each time.
    ``medium_size`` is that of a device which is there already: the table spans it, whatever the parts take.
    ``changes`` are made to the source's tree; what they make of it is what identities follow from.
    ``verity`` adds a hash partition, which proves every block of a root that is never written again.
    ``time_s`` is SOURCE_DATE_EPOCH: every time of the result is at most that many seconds after 1970.
    ``spool`` keeps a source that passes once in a temporary file, so that the disk is the one of a plain archive.
    """

    table: Table = Table.GPT
    sector_size: int = 512
    size: int | None = None
    medium_size: int | None = None
    root: RootOptions = field(default_factory=RootOptions)
    boot: BootOptions = field(default_factory=BootOptions)
    verity: bool = False
    changes: Changes = field(default_factory=Changes, metadata=ELSEWHERE)
    partitions: tuple[PartitionDefinition, ...] = field(default=(), metadata=_SINCE_LISTS)
    alignment: int | None = field(default=None, metadata=_SINCE_LISTS)
    disk_id: str | None = field(default=None, metadata=_SINCE_LISTS)
    seed: str | None = None
    time_s: int | None = None
    spool: bool = field(default=False, metadata=ELSEWHERE)

    @property
    def reads_first(self) -> bool:
        """Whether all of a source is read before the disk is planned, what passes once being kept meanwhile."""
        return self.spool or bool(self.partitions)

    @property
    def listed(self) -> tuple[PartitionDefinition, ...]:
        """The partitions that are asked for, whichever way."""
        if self.partitions:
            return self.partitions
        root = self.root.partition
        if self.size is not None and root.size is None:  # of a bare file system it is the only size there is
            root = replace(root, size=self.size) if self.table is Table.NONE else replace(root, rest=True)
        return (root,)

    @property
    def root_partition(self) -> PartitionDefinition | None:
        """The one that the disk's tree is in, None where no partition takes it."""
        return next((each for each in self.listed if each.is_root), None)

    @property
    def needs_tree(self) -> bool:
        """Whether any partition holds something of the disk's tree."""
        return any(each.mount for each in self.listed)

    @property
    def disk_size(self) -> int | None:
        """The size of the whole disk where it is given, by its own size or by that of a device."""
        return self.size or self.medium_size

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
        cmdline = self.boot.cmdline
        if not cmdline.isascii() and any("\ud800" <= each <= "\udfff" for each in cmdline):
            raise Contradiction(
                "cmdline", f"build: kernel command line: expected text in UTF-8, found {cmdline[:64]!a}"
            )
        if self.table is Table.NONE and self.boot.ways:
            raise Contradiction(
                "table", "build: a bare file system cannot be made to boot: expected --table gpt with --boot"
            )
        if self.sector_size not in (512, 4096):
            raise Contradiction(
                "sector-size", f"build: expected sectors of 512 or 4096 bytes, found {self.sector_size}"
            )
        if self.partitions:
            self._check_list()
        else:
            self._check_root()
        self._check_boot()
        self._check_sizes()
        if self.verity:
            self._check_verity()

    def _check_sizes(self) -> None:
        for key, size in (("size", self.size), ("root-size", self.root.size), ("esp-size", self.boot.esp_size)):
            if size is not None and size < 1:
                raise Contradiction(key, f"build: {key}: expected at least one byte, found {size}")

    def _check_root(self) -> None:
        root = self.root
        if self.table is Table.NONE and self.size is not None and root.size not in (None, self.size):
            raise Contradiction(
                "size", f"build: expected one size for a bare file system, found {self.size} and {root.size}"
            )
        if root.free and (root.size is not None or self.size is not None):
            raise Contradiction("free", "build: expected either a size or a share of free space, found both")
        if self.sector_size > root.block_size:
            raise Contradiction(
                "block-size",
                f"build: expected blocks of at least a sector, found {root.block_size} and {self.sector_size} bytes",
            )
        root.partition.check()

    def _check_list(self) -> None:
        if self.root != RootOptions():
            raise Contradiction(
                "partition", "build: expected the root's options in its partition, since partitions are listed"
            )
        if len(self.partitions) > MAX_PARTITIONS:
            raise Contradiction(
                "partition", f"build: expected at most {MAX_PARTITIONS} partitions, found {len(self.partitions)}"
            )
        if self.table is Table.NONE and (len(self.partitions) > 1 or not self.partitions[0].in_table):
            raise Contradiction(
                "table", f"build: expected one partition without a table, found {len(self.partitions)}"
            )
        mounts = [each.mount for each in self.partitions if each.mount]
        for index, each in enumerate(self.partitions):
            if each.mount and any(each.mount == other.mount for other in self.partitions[:index]):
                raise Contradiction(
                    "mount", f"build: expected each mount point once, found {each.mount[:200]!a} again", index
                )
        if mounts and "/" not in mounts:
            raise Contradiction(
                "partition", 'build: expected a partition to mount at "/" beside those for parts of the tree'
            )
        for index, each in enumerate(self.partitions):
            self._check_listed(index, each)
        if self.boot.ways and "/" not in mounts:
            raise Contradiction("boot", 'build: expected a partition to mount at "/" for a disk that starts')

    def _check_listed(self, index: int, each: PartitionDefinition) -> None:
        each.check()
        what, table = each.what, self.table
        if (each.block_size or 4096) < self.sector_size and each.kind.startswith("ext"):
            expected = f"{what}: expected blocks of at least a sector of {self.sector_size} bytes"
            raise Contradiction("block-size", expected, index)
        if each.hybrid is not None and table is not Table.GPT:
            raise Contradiction("hybrid", f"{what}: expected a GPT for a hybrid MBR, found {table.value}", index)
        if each.logical and table is not Table.MBR:
            raise Contradiction(
                "logical", f"{what}: expected an MBR for a logical partition, found {table.value}", index
            )
        if each.rest and self.disk_size is None and table is Table.NONE:
            raise Contradiction("size", f"{what}: expected a size of the whole for what takes the rest", index)

    def _check_boot(self) -> None:
        boot, (bios, uefi) = self.boot, self.boot.ways
        if not boot.ways and (boot.kernel or boot.initrd or boot.loader or boot.loader_dir or boot.cmdline):
            given = next(
                name for name in ("kernel", "initrd", "loader", "loader_dir", "cmdline") if getattr(boot, name)
            )
            raise Contradiction(
                given.replace("_", "-"),
                "build: a kernel, RAM disk, loader or command line is of use with --boot only",
            )
        if not boot.ways and boot.serial:
            raise Contradiction("serial", "build: a serial console is of use with --boot only")
        bare = uefi is Uefi.KERNEL
        if bare and (boot.loader or (bios is None and (boot.initrd or boot.cmdline or boot.serial))):
            raise Contradiction(
                "boot",
                "build: firmware starts a bare kernel without RAM disk and command line: use --boot systemd-boot,"
                " or --boot uki, an image that holds both",
            )
        if boot.loader and uefi is None:
            raise Contradiction(
                "loader", "build: --loader names what UEFI starts: for a BIOS's loader use --loader-dir"
            )
        if (boot.splash or boot.devicetree) and uefi is not Uefi.UKI:
            raise Contradiction(
                "splash" if boot.splash else "devicetree",
                "build: --splash and --devicetree are sections of a unified image: use --boot uki",
            )
        if boot.secure and uefi is None:
            raise Contradiction(
                "boot", "build: --shim and --sign-command are of use with UEFI only: --boot uki, for example"
            )
        if boot.secure.shim and uefi is Uefi.KERNEL:
            raise Contradiction(
                "boot", "build: a shim starts a loader: use --boot grub-efi, systemd-boot or uki with --shim"
            )
        if boot.grub_modules and bios is not Bios.GRUB:
            raise Contradiction("grub-modules", "build: --grub-modules is of use with --boot grub only")
        if boot.bios_home is not None and bios is None:
            raise Contradiction(
                "bios-home", "build: --bios-home is of use with a loader for a BIOS only: --boot syslinux or grub"
            )
        if bios is not None and self.sector_size != 512:
            raise Contradiction(
                "sector-size",
                f"build: loaders for a BIOS count in sectors of 512 bytes: expected --sector-size 512 with --boot"
                f" {bios.value}, found {self.sector_size}",
            )

    def _check_verity(self) -> None:
        if self.table is not Table.NONE and self.table is not Table.GPT:
            raise Contradiction(
                "verity", "build: a partition of hashes is known by its type: expected --table gpt with --verity"
            )
        root = self.root_partition
        if root is None:
            raise Contradiction("verity", 'build: expected a partition to mount at "/" with --verity')
        if root.uuid is not None:
            raise Contradiction(
                "verity", "build: expected no UUID of the root with --verity, since it follows from the root hash"
            )
        if self.bios_home is Home.ROOT:
            raise Contradiction(
                "verity",
                "build: a loader in the root would have to name the root's own hash: expected --bios-home boot with"
                " --verity",
            )
        if self.table is Table.NONE:
            raise Contradiction(
                "verity", "build: a bare file system has no room for hashes: expected --table gpt with --verity"
            )
        if self.boot.ways.uefi is Uefi.KERNEL:
            raise Contradiction(
                "verity", "build: a bare kernel is not told the root hash: use --boot systemd-boot with --verity"
            )
        for word in self.boot.cmdline.split():
            if word == "rw" or word.startswith("roothash="):
                raise Contradiction(
                    "cmdline",
                    "build: kernel command line: expected --verity to say the root hash and that the root is"
                    f" read-only, found {word[:80]}",
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
    if isinstance(value, tuple) and value and isinstance(value[0], PartitionDefinition):
        return [leaf for number, each in enumerate(value, 1) for leaf in _flatten(f"{prefix}.{number}", each)]
    if dataclasses.is_dataclass(value):
        leaves = []
        for each in dataclasses.fields(value):
            if not each.metadata.get("identity", True):
                continue
            if each.metadata.get("counts") == "given" and getattr(value, each.name) in ((), None):
                continue
            leaves += _flatten(f"{prefix}.{each.name}", getattr(value, each.name))
        return leaves
    return [(prefix, repr(value))]
