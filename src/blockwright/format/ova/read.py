"""The disk in an OVA: its members are found, and the one disk among them is opened where it lies.

Knows: members of a tar archive, and the manifest's digests. Refuses to know: what the descriptor says of a machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import ArchiveRejected, Corrupt, LimitExceeded, ReadOnly, Unsupported
from blockwright.finding import Finding
from blockwright.format.describe import Description
from blockwright.format.vmdk.check import check_extent
from blockwright.format.vmdk.disk import VmdkDisk
from blockwright.format.vmdk.open import Opener, open_vmdk
from blockwright.tree.tar.layout import BLOCK, OLD_REGULAR, REGULAR, ZERO_BLOCK, parse_header
from blockwright.units import MiB, align_up

SPEC: Final = "DSP0243 1.1.0, section 5"
MAX_MEMBERS: Final = 256
MAX_MANIFEST: Final = 64 * 1024
_LINE: Final = re.compile(rb"(SHA1|SHA256|SHA512) ?\(([^()\0]{1,255})\) ?= ?([0-9A-Fa-f]{40,128})")


class Member(NamedTuple):
    """A file in the archive, whose bytes begin at ``start``."""

    name: bytes
    start: int
    size: int


def members(file: BlockDevice) -> list[Member]:
    """Return the files in the archive, in order. Raises Corrupt, Unsupported, LimitExceeded."""
    found: list[Member] = []
    position = 0
    while position + BLOCK <= file.size:
        block = file.read(position, BLOCK)
        if block == ZERO_BLOCK:
            break
        try:
            header = parse_header(block)
        except ArchiveRejected as error:
            raise Corrupt(str(error.args[0]), offset=position, spec=error.spec) from None
        if header.type not in (REGULAR, OLD_REGULAR):
            raise Unsupported(
                f"ova: expected plain files, found an entry of the type {_shown(header.type)}", offset=position
            )
        start = position + BLOCK
        if not 0 <= header.size <= file.size - start:
            raise Corrupt(
                f"ova: {_shown(header.name)}: expected {header.size} bytes, found {file.size - start}",
                offset=position,
            )
        found.append(Member(header.name, start, header.size))
        if len(found) > MAX_MEMBERS:
            raise LimitExceeded(f"ova: expected at most {MAX_MEMBERS} files, found more", offset=position)
        position = start + align_up(header.size, BLOCK)
    if not found or not found[0].name.lower().endswith(b".ovf"):
        raise Corrupt("ova: expected an OVF descriptor as the first file, found none", offset=0, spec=SPEC)
    return found


def disk_of(found: list[Member]) -> Member:
    """Return the only disk among the files. Raises Unsupported."""
    disks = [each for each in found if each.name.lower().endswith(b".vmdk")]
    if len(disks) != 1:
        raise Unsupported(f"ova: expected one disk (.vmdk), found {len(disks)}: take the files apart")
    return disks[0]


def open_ova(file: BlockDevice, files: Opener, *, writable: bool) -> BlockDevice:
    """Return the disk in the archive, which it owns from then on; after an exception the caller still does.

    Raises ReadOnly, FormatError.
    """
    if writable:
        raise ReadOnly("ova: is written once, as a whole, and not changed: convert it")
    member = disk_of(members(file))
    disk = open_vmdk(Window(file, member.start, member.size, owns=False), files)
    return OvaDisk(disk, file)


class OvaDisk(VmdkDisk):
    """A disk that owns the archive in which it lies."""

    def __init__(self, disk: VmdkDisk, archive: BlockDevice) -> None:
        super().__init__(disk, archive, disk.descriptor, None, (archive,))
        self._disk = disk

    def describe(self) -> Description:
        return Description("ova", self.file.size, self._disk.describe().details)


def check(file: BlockDevice) -> Iterator[Finding]:
    """Yield what is wrong with the archive: files that are not what the manifest says, and the disk's structures.

    Raises FormatError where the archive cannot be read.
    """
    found = members(file)
    yield from _digests(file, found)
    member = disk_of(found)
    with Window(file, member.start, member.size, owns=False) as window:
        for each in check_extent(window):
            offset = None if each.offset is None else each.offset + member.start
            yield Finding(each.rule, each.message, offset, each.repairable)


def _digests(file: BlockDevice, found: list[Member]) -> Iterator[Finding]:
    by_name = {each.name: each for each in found}
    for listed in found:
        if not listed.name.lower().endswith(b".mf"):
            continue
        if listed.size > MAX_MANIFEST:
            raise LimitExceeded(f"ova manifest: expected at most {MAX_MANIFEST} bytes, found {listed.size}")
        for line in file.read(listed.start, listed.size).splitlines():
            match = _LINE.fullmatch(line.strip())
            if match is None:
                yield Finding("ova.manifest", f"expected ALGORITHM(NAME)= DIGEST, found {_shown(line)}", listed.start)
                continue
            member = by_name.get(match[2])
            if member is None:
                yield Finding(
                    "ova.manifest", f"names {_shown(match[2])}, which the archive does not hold", listed.start
                )
                continue
            expected, actual = match[3].decode().lower(), _digest(file, member, match[1].decode().lower())
            if expected != actual:
                message = f"{_shown(member.name)}: expected the digest {expected}, found {actual}"
                yield Finding("ova.digest", message, member.start)


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("utf-8", "replace"))


def _digest(file: BlockDevice, member: Member, algorithm: str) -> str:
    state = hashlib.new(algorithm, usedforsecurity=False)
    for start in range(0, member.size, MiB):
        state.update(file.read(member.start + start, min(MiB, member.size - start)))
    return state.hexdigest()
