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
from blockwright.tree.tar import layout
from blockwright.tree.tar.archive import Archive, truncated
from blockwright.tree.tar.stream import DeviceReader, StreamReader


def read_tar(device: BlockDevice, *, source: str = "tar archive") -> Directory:
    """Return the tree of the uncompressed archive that ``device`` holds, which must outlive it.

    Contents are read from the device when asked for, and raise SourceChanged when a file that it stands on is not
    what it was. Raises NotThisFormat when it is no archive; Corrupt, Unsupported or LimitExceeded with the byte.
    ``source`` names it in messages. Formats: v7, ustar and pax (POSIX.1-2017), GNU with long names and all sparse
    forms; extended attributes, ACLs and SELinux labels as GNU tar, star and libarchive write them.
    """
    verify = verifier(device, source)
    reader = DeviceReader(device)

    def body(size: int, runs: Runs, stored: int) -> Content:
        start = reader.position
        if stored == size:
            return DeviceRange(device, size, start, verify)
        starts = []
        for _, length in runs:
            starts.append(start)
            start += length
        return DeviceContent(device, size, runs, starts, verify)

    return Archive(reader, body, source).run()


def read_tar_stream(read: Callable[[int], bytes], place: Place, *, source: str = "tar archive") -> Directory:
    """Return the tree of an uncompressed archive that passes once; ``place`` takes each body as it arrives.

    ``read(n)`` returns up to n bytes, and none at the end, as a binary file's does. The stream is read to its end.
    A body whose name a later member takes was placed all the same. Raises as ``read_tar`` does.
    """
    reader = StreamReader(read)

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

    root = Archive(reader, body, source).run()
    reader.drain()
    return root


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
