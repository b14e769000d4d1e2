"""A file system inside an image, or on any device that can be addressed, as a source.

Knows: how an address becomes a tree. Refuses to know: any file system.
"""

from __future__ import annotations

from blockwright.fs.reader import FileSystem
from blockwright.resolve import open_device, open_file_system
from blockwright.source.base import Source
from blockwright.tree.content import Place
from blockwright.tree.node import Directory
from blockwright.tree.rules import Remarks


class ImageSource(Source):
    """An open file system, which the source owns."""

    kind = "file system"
    addressable = True

    def __init__(self, system: FileSystem, name: str) -> None:
        self.name = name
        self.remarks = Remarks()
        self._system = system

    def read(self, place: Place | None = None) -> Directory:
        """Return all files; contents are read from the image."""
        return self._system.tree()

    def close(self) -> None:
        """Close the file system and its device."""
        self._system.close()


def open_image(address: str) -> ImageSource:
    """Return the file system at an address (``disk.img:2``). Raises what opening a device and its files does."""
    device = open_device(address)
    try:
        return ImageSource(open_file_system(device, source=address), address)
    except BaseException:
        device.close()
        raise
