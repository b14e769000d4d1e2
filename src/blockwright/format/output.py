"""A file becomes a new image of some format, to be written through it.

Knows: which formats can be made, and by which suffixes they go. Refuses to know: what is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.format.qcow2.create import Options
from blockwright.units import SECTOR, align_up

WRITABLE: Final = ("raw", "qcow2")
"""Formats that can be made."""

_SUFFIXES: Final = {".qcow2": "qcow2", ".qcow": "qcow2"}


def format_by_name(name: str) -> str:
    """Return the format that a file's suffix stands for; raw where it stands for none."""
    return next((form for suffix, form in _SUFFIXES.items() if name.lower().endswith(suffix)), "raw")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a new image is like: its format, what that format takes, and whether its data is compressed."""

    form: str = "raw"
    qcow2: Options = field(default_factory=Options)
    compress: bool = False
    level: int | None = None

    def check(self) -> None:
        """Raise UsageError where the options contradict one another."""
        if self.form not in WRITABLE:
            raise UsageError(f"format: expected {' or '.join(WRITABLE)}, found {self.form!r}")
        if self.compress and self.form != "qcow2":
            raise UsageError(f"compress: expected the format qcow2, found {self.form}")
        if self.compress and self.qcow2.data_file is not None:
            raise UsageError("compress: an external data file cannot hold compressed clusters")
        self.qcow2.check()

    @property
    def raw(self) -> bool:
        """Whether the file's bytes are those of the disk."""
        return self.form == "raw"


def new_image(file: BlockDevice, size: int, options: ImageOptions) -> BlockDevice:
    """Return a new image in ``file`` for a disk of at least ``size`` bytes, which reads as zeros; its owner keeps it.

    The image is whole when it was flushed and closed. What is written to it best comes in ascending order, and where
    it is compressed, once. Raises UsageError, NoSpace.
    """
    from blockwright.format.qcow2.create import create
    from blockwright.format.qcow2.open import no_files, open_qcow2
    from blockwright.format.qcow2.write import WritableQcow2

    options.check()
    if options.raw:
        raise UsageError("new image: raw has nothing to make")
    create(file, align_up(size, SECTOR), options.qcow2)
    image = open_qcow2(file, writable=True, below=no_files, data=no_files, bare=True, owns=False)
    if not options.compress:
        return image
    from blockwright.format.qcow2.pack import CompressingDevice

    assert isinstance(image, WritableQcow2), "asked to be writable"
    return CompressingDevice(image, level=options.level)
