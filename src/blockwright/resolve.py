"""Text becomes a device: the only module that knows every provider.

An address is a path, or ``file:PATH``, ``mem:SIZE``, ``null:SIZE``, or an export of an NBD server (``nbd://…`` and
the other schemes of ``nbd.uri``). On a path a last ``:N`` selects partition N and ``:START,SIZE`` a range (bytes, or
512-byte sectors with the suffix ``s``), unless a file of the whole name exists. On a URL the fragment does: ``#2``,
``#start=1M,size=4G``.

Knows: how addresses are written, and which module opens what. Refuses to know: what is done with the device.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from blockwright.device.base import BlockDevice
from blockwright.device.file import HostBlockDevice, open_path
from blockwright.device.inplace import DeviceOutput
from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.device.output import OutputFile
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotFound, NotThisFormat, Unsupported, UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.fs.editor import DEFAULT_POLICY, CommitPolicy, Editor
from blockwright.fs.reader import FileSystem
from blockwright.nbd.client.options import DEFAULT, ClientOptions
from blockwright.table import read as tables
from blockwright.table.gpt import read as gpt
from blockwright.table.mbr import read as mbr
from blockwright.units import parse_size

_SELECTOR = re.compile(r"(?P<path>.+):(?:(?P<number>[0-9]{1,4})|(?P<start>[0-9]+s?),(?P<size>[0-9]+s?))", re.DOTALL)
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+]{1,15}):(?P<rest>.*)", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]*)://[^#]*(?:#(?P<fragment>.*))?", re.DOTALL)
_FRAGMENT = re.compile(r"(?P<number>[0-9]{1,4})|start=(?P<start>[^,=]+),size=(?P<size>[^,=]+)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device is: ``scheme`` and ``rest``, and which part of it: a partition number or a range in bytes."""

    scheme: str
    rest: str
    partition: int | None = None
    start: int | None = None
    length: int | None = None

    @property
    def is_part(self) -> bool:
        """Whether the address selects less than the whole device."""
        return self.partition is not None or self.start is not None

    @property
    def whole(self) -> str:
        """The address of the device that a part is of."""
        return self.rest if self.scheme in ("file", "nbd") else f"{self.scheme}:{self.rest}"

    def __str__(self) -> str:
        if self.partition is not None:
            return part_name(self.whole, self.partition)
        if self.start is None:
            return self.whole
        if self.scheme == "nbd":
            return f"{self.whole}#start={self.start},size={self.length}"
        return f"{self.whole}:{self.start},{self.length}"


def parse_address(text: str, *, partition: int | None = None) -> Address:
    """Return the address that ``text`` means, with ``partition`` (where given) settling every doubt.

    Looks at the file system for one thing only: whether a path that ends like a selector exists as a whole.
    Raises UsageError where both readings name files, and for an unknown scheme.
    """
    if partition is not None and partition < 1:
        raise UsageError(f"partition: expected a number from 1 on, found {partition}")
    match = None if os.path.lexists(text) else _SCHEME.fullmatch(text)
    if match and match["scheme"] in ("mem", "null"):
        return Address(match["scheme"], match["rest"], partition)
    if match is not None and (url := _URL.fullmatch(text)):
        return _parse_url(text, url["scheme"], url["fragment"], partition)
    path = match["rest"] if match and match["scheme"] == "file" else text
    if not path:
        raise UsageError(f"{text!r}: expected a path behind the scheme")
    selector = _SELECTOR.fullmatch(path)
    if selector is None or partition is not None:
        return Address("file", path, partition)
    if os.path.lexists(path):
        if os.path.lexists(selector["path"]):
            raise UsageError(
                f"{path}: could be the file {path} or a part of {selector['path']}: rename one, or use --partition N"
            )
        return Address("file", path)
    if selector["number"] is not None:
        number = int(selector["number"])
        if number < 1:
            raise UsageError(f"{path}: expected a partition number from 1 on, found {number}")
        return Address("file", selector["path"], number)
    return Address("file", selector["path"], None, parse_size(selector["start"]), parse_size(selector["size"]))


def _parse_url(text: str, scheme: str, fragment: str | None, partition: int | None) -> Address:
    from blockwright.nbd.uri import is_nbd_uri

    if not is_nbd_uri(text):
        raise UsageError(f"{text[:200]}: expected a path, file:, mem:, null: or nbd://, found the scheme {scheme}")
    whole = text.partition("#")[0]
    if not fragment:
        return Address("nbd", whole, partition)
    if partition is not None:
        raise UsageError(f"{text[:200]}: expected the part once, found it in the address and as --partition")
    selector = _FRAGMENT.fullmatch(fragment)
    if selector is None:
        raise UsageError(f"{text[:200]}: expected #N or #start=BYTES,size=BYTES, found #{fragment[:80]}")
    if selector["number"] is None:
        return Address("nbd", whole, None, parse_size(selector["start"]), parse_size(selector["size"]))
    if int(selector["number"]) < 1:
        raise UsageError(f"{text[:200]}: expected a partition number from 1 on, found {selector['number']}")
    return Address("nbd", whole, int(selector["number"]))


def part_name(source: str, number: int) -> str:
    """Return how partition ``number`` of ``source`` is addressed."""
    return f"{source}#{number}" if _URL.fullmatch(source) else f"{source}:{number}"


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
) -> BlockDevice:
    """Return the device that ``text`` names, open; closing it closes all that was opened on the way.

    ``alone`` keeps others from reading a file that is to be changed as a whole. ``client`` is how the server of an
    NBD address is treated. A file is opened as an image of the format ``form``, or of the one that its first bytes
    name, and ``guard`` keeps one without a mark from getting one; a block device is raw unless ``form`` says
    otherwise. ``policy`` says which files an image may name. Raises NotFound for a path, partition or export that
    does not exist, InUse where somebody else holds the file, NotAllowed, UsageError for a range outside the device,
    FormatError for a format or partition table that does not hold, and what ``nbd.client.connect`` raises.
    """
    address = parse_address(text, partition=partition)
    whole = _open_whole(address, writable=writable, force_unlocked=force_unlocked, alone=alone, client=client)
    if address.scheme == "file":
        whole = _as_image(whole, address, form, policy, writable=writable, guard=guard)
    elif form not in (None, "raw"):
        whole.close()
        raise UsageError(f"{text}: expected a file to be read as {form}")
    if not address.is_part:
        return whole
    try:
        return Window(whole, *_part(whole, address))
    except BaseException:
        whole.close()
        raise


def _as_image(
    file: BlockDevice, address: Address, form: str | None, policy: Policy, *, writable: bool, guard: bool
) -> BlockDevice:
    """Return the disk in a file; what a device of the host holds is its guest's to choose, so it is not looked at."""
    from blockwright.format.open import open_image

    if isinstance(file, HostBlockDevice):
        form = form or "raw"
    try:
        return open_image(file, path=address.rest, form=form, policy=policy, writable=writable, guard=guard)
    except BaseException:
        file.close()
        raise


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
    if address.scheme != "file":
        raise UsageError(f"{text}: expected a file or a device of this host")
    _require_raw(address.rest)
    if not address.is_part:
        return Location(address.rest)
    with _open_whole(address, writable=False, force_unlocked=True, alone=False, client=None) as whole:
        return Location(address.rest, *_part(whole, address))


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
        return address.start, address.length
    with naming(address.whole):
        table = tables.read(whole, sector_size=sector_size_of(whole))
    try:
        found = table.partition(address.partition)
    except NotFound as error:
        raise NotFound(f"{address.whole}: {error}") from None
    return found.start, found.size


def open_output(
    text: str, *, size: int, force: bool = False, client: ClientOptions | None = None
) -> OutputFile | DeviceOutput:
    """Return the output that ``text`` names, for ``size`` bytes: a file, a block device or an export.

    A part of an image, and an export, are written in place. Raises as ``OutputFile`` and ``open_device`` do.
    """
    address = parse_address(text)
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
    if address.scheme == "nbd":
        from blockwright.nbd.client.connect import connect

        return connect(address.rest, writable=writable, options=client or DEFAULT)
    try:
        return open_path(address.rest, writable=writable, force_unlocked=force_unlocked, alone=alone)
    except FileNotFoundError:
        raise NotFound(f"{address.rest}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{address.rest}: expected a disk image or device, found a directory") from None


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


def open_editor(device: BlockDevice, *, source: str, policy: CommitPolicy = DEFAULT_POLICY) -> Editor:
    """Return the file system on a writable device, open for changes; closing it closes the device.

    Raises as ``open_file_system`` does, and UsageError where the file system's state forbids changes.
    """
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
        return NotThisFormat("expected ext2, ext3, ext4 or FAT, found no file system that is known")
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
