"""What a disk holds beside its source: changes to the tree, /etc/fstab, a volume for cloud-init.

Knows: which of it follows from the disk. Refuses to know: how a tree is changed (``tree.changes``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from blockwright.build.definition import Definition, Table
from blockwright.build.partition import FAT, SWAP
from blockwright.build.trees import Open, own_tree, read_anywhere
from blockwright.errors import UsageError
from blockwright.source import Source, open_sources
from blockwright.tree.content import Content, PlacedContent
from blockwright.tree.late import LateContent
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_up

if TYPE_CHECKING:  # most disks are their source as it is
    from blockwright.fs.fat.plan import FatPlan
    from blockwright.tree.changes.edit import TreeEdit
    from blockwright.tree.changes.ready import Ready, Surroundings

ESP_MOUNT: Final = "/boot/efi"
_HEAD: Final = "# <file system> <mount point> <type> <options> <dump> <pass>\n"


class Mount(NamedTuple):
    """A line of fstab(5). ``what`` is a device's name, or a role of the disk, whose identity takes its place."""

    what: str
    where: str
    kind: str
    options: str
    order: int


def mounts(definition: Definition) -> list[Mount]:
    """Return what is mounted of a disk when it has started: the root, and UEFI's partition where there is one."""
    from blockwright.build.listing import BOOT, HASHES, ROOT, listing

    found = []
    for entry in [] if definition.table is Table.NONE else listing(definition):
        role, part = entry.role, entry.part
        kind = "vfat" if part.kind in FAT else part.kind
        options = "umask=0077,nofail" if kind == "vfat" else "defaults"
        if role == BOOT and definition.boot.ways.uefi is not None:
            found.append(Mount(role, part.mount or ESP_MOUNT, kind, options, 2))
        elif part.kind == SWAP:
            found.append(Mount(role, "none", kind, "sw", 0))
        elif part.mount and role not in (ROOT, HASHES):
            found.append(Mount(role, part.mount, kind, options, 2))
    kind = "ext4" if definition.root_partition is None else definition.root_partition.kind
    root = Mount("/dev/mapper/root" if definition.verity else "root", "/", kind, "defaults,errors=remount-ro", 1)
    if definition.verity:
        root = root._replace(options="ro", order=0)
    return [root, *sorted(found, key=lambda each: each.where)]


def fstab_text(definition: Definition, identities: dict[str, str]) -> bytes:
    """Return /etc/fstab; ``identities`` are the words for each role: ``PARTUUID=…``."""
    lines = [
        f"{identities.get(each.what, each.what)} {_field(each.where)} {each.kind} {each.options} 0 {each.order}\n"
        for each in mounts(definition)
    ]
    return (_HEAD + "".join(lines)).encode()


def _field(text: str) -> str:
    """Return a path as fstab(5) has it in a field: what would end the field in octal."""
    return "".join(f"\\{ord(each):03o}" if each in " \t\n\\" else each for each in text)


def _identity_length(definition: Definition) -> str:
    """Return a word as long as that for a part of the disk: its identity is not known before the tree is."""
    lengths = {Table.GPT: len("PARTUUID=") + 36, Table.MBR: len("PARTUUID=") + 11, Table.NONE: len("UUID=") + 36}
    return "x" * lengths[definition.table]


@dataclass(frozen=True, slots=True)
class Extras:
    """What is beside a tree: ``fstab`` where it is asked for, to be filled; ``volume`` the files for cloud-init's."""

    fstab: LateContent | None = None
    volume: Directory | None = None

    def fill_fstab(self, definition: Definition, identities: dict[str, str]) -> None:
        """Say what /etc/fstab holds, once identities are known."""
        if self.fstab is not None:
            self.fstab.fill(fstab_text(definition, identities))


NO_EXTRAS: Final = Extras()


class Contents:
    """The changes that a definition asks for, made ready, and the sources that its partitions bring along.

    ``opened`` opens those. Raises as ``ready`` does, UsageError for a bare disk.
    """

    def __init__(self, definition: Definition, opened: Open = open_sources) -> None:
        self._definition = definition
        self._opened = opened
        self._owned = ExitStack()
        self._ready: Ready | None = None
        self.extras = NO_EXTRAS
        self.own: dict[int, Directory] = {}
        changes = definition.changes
        if not changes:
            return
        from blockwright.tree.changes.cloudinit import volume_tree
        from blockwright.tree.changes.options import PARTITION
        from blockwright.tree.changes.ready import ready

        self._ready = ready(changes)
        volume = fstab = None
        if self._ready.seed is not None and changes.cloud_init_as == PARTITION:
            if definition.table is Table.NONE:
                raise UsageError(
                    "build: a bare file system has no partition for cloud-init: expected --cloud-init-as files"
                )
            volume = volume_tree(self._ready.seed)
        if changes.fstab:
            word = _identity_length(definition)
            names = [each.what for each in mounts(definition) if not each.what.startswith("/dev/")]
            fstab = LateContent(len(fstab_text(definition, dict.fromkeys(names, word))))
        self.extras = Extras(fstab, volume)

    def read(self, source: Source) -> Directory:
        """Return the source's tree, and have in ``own`` those that listed partitions bring along.

        What passes once is kept until ``close`` where the definition reads it first.
        """
        if not self._definition.reads_first:
            return source.read()
        for index, part in enumerate(self._definition.partitions):
            found = own_tree(part, self._opened, self._owned)
            if found is not None:
                self.own[index] = found
        return read_anywhere(source, self._owned)

    def close(self) -> None:
        """Let go of what ``read`` has opened. Idempotent."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def apply(self, tree: Directory, readable: Callable[[Content], Content] | None) -> Directory:
        """Return the tree as it is to be on the disk; ``readable`` gives contents that lie in the output already.

        None where there is no output that they would lie in. Raises as ``Ready.apply`` does, UsageError for
        a content that is needed and cannot be read.
        """
        if self._ready is None:
            return tree

        def read(content: Content) -> Content:
            if isinstance(content, LateContent):
                raise UsageError("build: /etc/fstab is written last, and cannot be read before")
            if not isinstance(content, PlacedContent):
                return content
            if readable is None:
                raise UsageError(
                    "build: --dry-run: needs to read a file of what streams past once: expected an output, or a"
                    " source that can be read anywhere"
                )
            return readable(content)

        return self._ready.apply(tree, readable=read, more=self._edit)

    def label(self, tree: Directory) -> Directory:
        """Return the tree with labels for what was put into it since, too."""
        if self._ready is None or self._ready.label is None:
            return tree
        return self._ready.label(tree)

    def _edit(self, edit: TreeEdit, about: Surroundings) -> None:
        """Put in what the disk adds itself, such that it gets owners and labels as all else."""
        from blockwright.tree.node import File

        if self.extras.fstab is not None:
            edit.enter(b"etc/fstab", File(mtime_ns=about.mtime_ns, content=self.extras.fstab))
            for each in mounts(self._definition):
                if each.where == "none":
                    continue
                edit.directory(each.where.encode())
        if self._ready is not None and self._ready.label is not None and edit.find(b"lost+found") is None:
            edit.enter(b"lost+found", Directory(0o700, mtime_ns=about.mtime_ns))


def plan_volume(volume: Directory, seed: bytes, sector_size: int) -> FatPlan:
    """Return the file system that cloud-init finds by its label, as small as holds the files, in MiB."""
    from blockwright.fs.fat.options import FatOptions
    from blockwright.fs.fat.plan import plan
    from blockwright.tree.changes.cloudinit import LABEL

    options = FatOptions(seed=seed, label=LABEL, sector_size=sector_size)
    size = align_up(plan(volume, options).size, MiB)
    return plan(volume, FatOptions(seed=seed, label=LABEL, sector_size=sector_size, size=size))
