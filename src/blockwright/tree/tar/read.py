"""Tar archives as trees: from a device that can be read anywhere, or from a stream that passes once.

Knows: what stands for a body in each case. Refuses to know: the format (see ``archive``), and compression.
"""

from __future__ import annotations

from collections.abc import Callable

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError, UsageError
from blockwright.tree.content import Content, DeviceContent, DeviceRange, Place, Runs
from blockwright.tree.identity import verifier
from blockwright.tree.node import Directory
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules, Budget, Remarks
from blockwright.tree.tar import layout
from blockwright.tree.tar.archive import Archive, Body, as_rejected, truncated
from blockwright.tree.tar.stream import DeviceReader, Reader, StreamReader
from blockwright.tree.unpack import Unpacker


def read_tar(
    device: BlockDevice,
    *,
    source: str = "tar archive",
    rules: ArchiveRules = DEFAULT_RULES,
    remarks: Remarks | None = None,
) -> Directory:
    """Return the tree of the uncompressed archive that ``device`` holds, which must outlive it.

    Contents are read from the device when asked for, and raise SourceChanged when a file that it stands on is not
    what it was. Raises NotThisFormat when it is no archive; ArchiveRejected with reason, entry and byte for one that
    breaks its format or goes over ``rules``. ``source`` names it in messages; ``remarks`` takes what was dropped.
    Formats: v7, ustar and pax (POSIX.1-2017), GNU with long names and all sparse forms; extended attributes, ACLs
    and SELinux labels as GNU tar, star and libarchive write them.
    """
    # Bytes are counted member by member; only the clock has to be looked at besides.
    reader = DeviceReader(device, None if rules.time_s is None else Budget(rules, source))
    return _tree(reader, body_on(device, reader, source), source, rules, remarks)


def body_on(device: BlockDevice, reader: Reader, source: str) -> Body:
    """Return what answers contents that are read from ``device``, along which ``reader`` goes."""
    verify = verifier(device, source)

    def body(size: int, runs: Runs, stored: int) -> Content:
        start = reader.position
        if stored == size:
            return DeviceRange(device, size, start, verify)
        starts = []
        for _, length in runs:
            starts.append(start)
            start += length
        return DeviceContent(device, size, runs, starts, verify)

    return body


def read_tar_stream(
    read: Callable[[int], bytes],
    place: Place,
    *,
    source: str = "tar archive",
    rules: ArchiveRules = DEFAULT_RULES,
    remarks: Remarks | None = None,
) -> Directory:
    """Return the tree of an uncompressed archive that passes once; ``place`` takes each body as it arrives.

    ``read(n)`` returns up to n bytes, and none at the end, as a binary file's does. The stream is read to its end.
    A body whose name a later member takes was placed all the same. Raises as ``read_tar`` does.
    """
    reader = StreamReader(read)
    root = _tree(reader, body_to(place, reader), source, rules, remarks)
    try:
        reader.drain()
    except FormatError as error:
        raise as_rejected(error, source) from error
    return root


def body_to(place: Place, reader: StreamReader) -> Body:
    """Return what hands each body that ``reader`` stands before to ``place``."""

    def body(size: int, runs: Runs, stored: int) -> Content:
        end = reader.position + stored

        def fill(buffer: memoryview) -> None:
            if len(buffer) > end - reader.position:
                raise UsageError(f"place: expected to take {stored} bytes of a body, found it taking more")
            if reader.read_into(buffer) < len(buffer):
                raise truncated(reader.position, end - reader.position)

        content = place(size, runs, fill)
        if reader.position != end:
            raise UsageError(f"place: expected to take {stored} bytes of a body, found {end - reader.position} left")
        return content

    return body


def _tree(reader: Reader, body: Body, source: str, rules: ArchiveRules, remarks: Remarks | None) -> Directory:
    remarks = Remarks() if remarks is None else remarks
    tree = Unpacker(rules)
    first_mtime_ns = Archive(reader, body, tree, source=source, rules=rules, remarks=remarks).run()
    remarks.replaced += tree.replaced
    return tree.finish(first_mtime_ns)


def looks_like_tar(block: bytes) -> bool:
    """Return whether an archive may begin with this block of 512 bytes: a header, or an end without members."""
    if len(block) < layout.BLOCK:
        return False
    if layout.has_magic(block) or block == layout.ZERO_BLOCK:
        return True
    try:
        return bool(layout.parse_header(block).name)
    except FormatError:
        return False
