"""An address becomes a device: the only module that knows every provider.

Knows: which module opens what. Refuses to know: what is done with the device.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from blockwright.address import Address, parse_address, part_name
from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.device.inplace import DeviceOutput
from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.device.output import OutputFile
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotFound, NotThisFormat, OutOfRange, ReadOnly, Unsupported, UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.nbd.client.options import DEFAULT, ClientOptions
from blockwright.plugin import DEVICES, find_plugin
from blockwright.units import parse_size

if TYPE_CHECKING:  # a copy of a whole disk needs no table and no file system
    from blockwright.fs.editor import CommitPolicy, Editor
    from blockwright.fs.reader import FileSystem
    from blockwright.store.output import BucketOutput
    from blockwright.table.partition import AnyTable


def open_device(
    text: str,
    *,
    writable: bool = False,
    partition: int | None = None,
    force_unlocked: bool = False,
    alone: bool = False,
    client: ClientOptions | None = None,
    form: str | None = None,
    policy: Policy = REFUSE,
    guard: bool = False,
    still: bool = False,
) -> BlockDevice:
    """Return the device that ``text`` names, open; closing it closes all that was opened on the way.

    ``alone`` keeps others from reading a file that is to be changed as a whole. ``client`` is how the server of an
    NBD address is treated. A file is opened as an image of the format ``form``, or of the one that its first bytes
    name, and ``guard`` keeps one without a mark from getting one; ``still`` refuses one that is not raw and that
    somebody writes to, since half of a change would be read. A block device is raw unless ``form`` says otherwise.
    ``policy`` says which files an image may name. Raises NotFound for a path, partition or export that
    does not exist, InUse where somebody else holds the file, NotAllowed, OutOfRange for a range outside the device,
    FormatError for a format or partition table that does not hold, and what ``nbd.client.connect`` raises.
    """
    address = parse_address(text, partition=partition)
    refuse_container(text, address)
    if writable:
        address.check_writable()
    if address.scheme == "store":
        whole, is_file = _open_stored(address.rest, writable=writable, force_unlocked=force_unlocked)
    else:
        whole = _open_whole(address, writable=writable, force_unlocked=force_unlocked, alone=alone, client=client)
        is_file = address.scheme == "file"
    if is_file:
        found = whole
        whole = _as_image(whole, address, form, policy, writable=writable, guard=guard)
        if still and whole is not found:
            _check_unwritten(found, whole)
    elif form not in (None, "raw") or address.snapshot is not None:
        whole.close()
        raise UsageError(f"{text}: expected a file to be read as {form or 'an image with snapshots'}")
    if not address.is_part:
        return whole
    try:
        return Window(whole, *_part(whole, address))
    except BaseException:
        whole.close()
        raise


def _check_unwritten(file: BlockDevice, disk: BlockDevice) -> None:
    """Raise InUse, and close the disk, where somebody writes to the file that it is read from."""
    try:
        if isinstance(file, FileDevice):
            file.check_unwritten()
    except BaseException:
        disk.close()
        raise


def _as_image(
    file: BlockDevice, address: Address, form: str | None, policy: Policy, *, writable: bool, guard: bool
) -> BlockDevice:
    """Return the disk in a file; what a device of the host holds is its guest's to choose, so it is not looked at."""
    from blockwright.format.open import open_image, open_snapshot

    if isinstance(file, HostBlockDevice):
        form = form or "raw"
    try:
        if address.snapshot is not None:
            return open_snapshot(file, address.snapshot, path=address.rest, form=form, policy=policy)
        return open_image(file, path=address.rest, form=form, policy=policy, writable=writable, guard=guard)
    except BaseException:
        file.close()
        raise


def _open_stored(url: str, *, writable: bool, force_unlocked: bool) -> tuple[BlockDevice, bool]:
    """Return what is at a URL of a store, and whether that is a file: an object, which may be an image."""
    from blockwright.store.open import open_remote

    return open_remote(url, writable=writable, take_over=force_unlocked)


@dataclass(frozen=True, slots=True)
class Location:
    """A file or device of the host, and the part of it that is meant: from byte ``start`` on, ``size`` bytes.

    ``size`` is None where the whole is meant.
    """

    path: str
    start: int = 0
    size: int | None = None


def locate(text: str, *, partition: int | None = None) -> Location:
    """Return where the bytes lie that ``text`` names, for those who hand the file itself to the kernel.

    Raises UsageError for what is no file or device of the host, Unsupported for an image that is not raw, which the
    kernel does not know; else as ``open_device`` does.
    """
    address = parse_address(text, partition=partition)
    if address.scheme != "file" or address.snapshot is not None:
        raise UsageError(f"{text}: expected a file or a device of this host")
    refuse_container(text, address)
    _require_raw(address.rest)
    if not address.is_part:
        return Location(address.rest)
    with _open_whole(address, writable=False, force_unlocked=True, alone=False, client=None) as whole:
        return Location(address.rest, *_part(whole, address))


def refuse_container(text: str, address: Address) -> None:
    """Raise NotFound where there is no such file, and ``text`` is how a container image is named.

    To be asked where the address is all that is left otherwise: its partition 12 may be the tag of debian:12.
    """
    from blockwright.oci.reference import meant_as_disk

    if address.scheme == "file" and address.snapshot is None and not os.path.lexists(address.rest):
        hint = meant_as_disk(text)
        if hint:
            raise NotFound(f"{text}: no such file{hint}")


def _require_raw(path: str) -> None:
    """Raise Unsupported where the first bytes of a regular file name a format; what cannot be read is not asked."""
    from blockwright.format.probe import HEAD, look_for_image

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return
        with open(path, "rb", buffering=0) as file:
            found = look_for_image(file.read(HEAD))
    except (OSError, ValueError):
        return
    if found is not None:
        raise Unsupported(
            f"expected a raw image for the kernel, found {found}: serve it, and attach that", source=path
        )


def _part(whole: BlockDevice, address: Address) -> tuple[int, int]:
    """Return the start and size that the address selects of the device."""
    if address.partition is None:
        assert address.start is not None
        assert address.length is not None
        if address.start + address.length > whole.size:
            raise OutOfRange(
                f"{address.whole}: expected a range within its {whole.size} bytes, "
                f"found {address.length} bytes at {address.start}"
            )
        return address.start, address.length
    table = table_of(whole, address.whole)
    try:
        found = table.partition(address.partition)
    except NotFound as error:
        raise NotFound(f"{address.whole}: {error}") from None
    return found.start, found.size


def open_output(
    text: str, *, size: int, force: bool = False, client: ClientOptions | None = None
) -> OutputFile | DeviceOutput | BucketOutput:
    """Return the output that ``text`` names, for ``size`` bytes: a file, a device, an export, a disk in a store.

    A part of an image, and an export, are written in place; a disk in a store is a new one. Raises as ``OutputFile``,
    ``open_device`` and ``store.open.create_remote`` do.
    """
    address = parse_address(text)
    address.check_writable()
    if address.scheme == "store" and not address.is_part:
        from blockwright.store.open import create_remote

        return create_remote(address.rest, size=size, force=force)
    if address.scheme == "file" and not address.is_part:
        return OutputFile(address.rest, force=force, size=size)
    device = open_device(text, writable=True, client=client)
    return DeviceOutput(device, text, size=size, force=force)


def _open_whole(
    address: Address, *, writable: bool, force_unlocked: bool, alone: bool, client: ClientOptions | None
) -> BlockDevice:
    if address.scheme == "mem":
        return MemoryDevice(parse_size(address.rest))
    if address.scheme == "null":
        return ZeroDevice(parse_size(address.rest))
    if address.scheme == "volume":
        from blockwright.volume import open_volume

        return open_volume(address.rest, writable=writable, force_unlocked=force_unlocked)
    if address.scheme == "nbd":
        from blockwright.nbd.client.connect import connect

        return connect(address.rest, writable=writable, options=client or DEFAULT)
    if address.scheme != "file":
        return _open_plugin(address, writable=writable)
    try:
        return open_path(address.rest, writable=writable, force_unlocked=force_unlocked, alone=alone)
    except FileNotFoundError:
        raise NotFound(f"{address.rest}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{address.rest}: expected a disk image or device, found a directory") from None


def _open_plugin(address: Address, *, writable: bool) -> BlockDevice:
    """Return the device that a plugin has behind its scheme. Raises what it raises, UsageError for no device."""
    opener = find_plugin(DEVICES, address.scheme)
    device = opener(address.rest, writable=writable) if opener is not None else None
    if not isinstance(device, BlockDevice):
        raise UsageError(f"{address.whole}: expected a BlockDevice from the plugin, found {type(device).__name__}")
    if writable and not device.traits.writable:
        device.close()
        raise ReadOnly(f"{address.whole}: the device takes no writes")
    return device


class Known(Enum):
    """What a device can be told to hold by its own marks."""

    GPT = "gpt"
    MBR = "mbr"
    EXT4 = "ext4"
    FAT = "fat"


def identify(device: BlockDevice) -> Known | None:
    """Return what the device holds by its own marks, None where none is known.

    A table in front counts before a file system, since names of partitions lie where ext4 has its magic; a table at
    the end counts last, since making a file system on a disk that was partitioned leaves that copy behind. So does a
    master boot record, in front of which file systems do not write.
    """
    from blockwright.fs.ext4 import read as ext4
    from blockwright.fs.fat import read as fat
    from blockwright.table.gpt import read as gpt
    from blockwright.table.mbr import read as mbr

    if gpt.probe_primary(device):
        return Known.GPT
    if ext4.probe(device):
        return Known.EXT4
    if fat.probe(device):
        return Known.FAT
    if mbr.probe(device, sector_size=sector_size_of(device)):
        return Known.MBR
    return Known.GPT if gpt.probe(device) else None


def sector_size_of(device: BlockDevice) -> int | None:
    """Return the sector that a master boot record on the device counts in, None where that is not known."""
    return device.sector_size if isinstance(device, HostBlockDevice) else None


def table_of(device: BlockDevice, name: str) -> AnyTable:
    """Return the partition table of an open disk that messages call ``name``.

    Raises NotThisFormat where it has none, saying what is there instead; Corrupt, LimitExceeded.
    """
    from blockwright.table import read as tables

    with naming(name):
        try:
            return tables.read(device, sector_size=sector_size_of(device))
        except NotThisFormat:
            raise no_table(identify(device)) from None


def no_table(found: Known | None) -> NotThisFormat:
    """Return what is to be said of a disk without a partition table, on which ``found`` is."""
    if found in (Known.EXT4, Known.FAT):
        return NotThisFormat(f"expected a partition table, found the file system {found.value}")
    return NotThisFormat("expected a partition table, found none: 'disk table IMAGE gpt' makes one")


def open_file_system(device: BlockDevice, *, source: str) -> FileSystem:
    """Return the file system on ``device``, told by its own marks; closing it closes the device.

    Raises NotThisFormat where none is known there, and where there is a partition table instead, naming what
    its partitions are; Unsupported, Corrupt as the file system's reader does.
    """
    with naming(source):
        content = identify(device)
        if content is Known.EXT4:
            from blockwright.fs.ext4 import read as ext4

            return ext4.open(device)
        if content is Known.FAT:
            from blockwright.fs.fat import read as fat

            return fat.open(device)
        raise _no_file_system(device, content, source)


def open_editor(device: BlockDevice, *, source: str, policy: CommitPolicy | None = None) -> Editor:
    """Return the file system on a writable device, open for changes; closing it closes the device.

    ``policy`` None is the editors' default. Raises as ``open_file_system`` does, and UsageError where the file
    system's state forbids changes.
    """
    from blockwright.fs.editor import DEFAULT_POLICY

    policy = policy or DEFAULT_POLICY
    with naming(source):
        content = identify(device)
        if content is Known.EXT4:
            from blockwright.fs.ext4 import edit as ext4

            return ext4.open(device, policy=policy)
        if content is Known.FAT:
            from blockwright.fs.fat import edit as fat

            return fat.open(device, policy=policy)
        raise _no_file_system(device, content, source)


def _no_file_system(device: BlockDevice, content: Known | None, source: str) -> NotThisFormat:
    if content is None:
        from blockwright.fs import foreign

        other = foreign.identify(device)
        there = f"{other}, which is not read" if other else "no file system that is known"
        return NotThisFormat(f"expected ext2, ext3, ext4 or FAT, found {there}")
    from blockwright.table import read as tables

    found = tables.read(device, sector_size=sector_size_of(device))
    parts = ", ".join(part_name(source, each.number) for each in found.partitions) or "none"
    return NotThisFormat(f"expected a file system, found a partitioned disk; its partitions are {parts}")


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Give every FormatError that passes the name of its input, where it has none yet."""
    try:
        yield
    except FormatError as error:
        error.source = error.source or source
        raise
