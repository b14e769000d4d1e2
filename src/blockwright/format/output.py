"""A file becomes a new image of some format, to be written through it.

Knows: when an image is whole, and which files it is. Refuses to know: what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.device.once import OnceDevice
from blockwright.device.output import OutputFile
from blockwright.device.pipe import PipeDevice
from blockwright.errors import IntegrityError, UsageError
from blockwright.format.driver import Beside, Driver
from blockwright.format.registry import FORMATS, MADE, format_named
from blockwright.units import MAX_SIZE


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a new image is like: its format, and what its driver made of the options, None for the defaults."""

    form: str = "raw"
    own: object = None

    def check(self) -> None:
        """Raise UsageError where images of the format cannot be made."""
        if not format_named(self.form).made:
            raise UsageError(f"format: expected {' or '.join(MADE)}, found {self.form!r}")

    @property
    def driver(self) -> Driver:
        """The format's driver. Raises UsageError."""
        return format_named(self.form).load()

    @property
    def raw(self) -> bool:
        """Whether the file's bytes are those of the disk."""
        return self.form == "raw" and self.driver.is_raw(self.own)

    @property
    def once(self) -> bool:
        """Whether the disk is written in ascending order and once."""
        return self.driver.once(self.own)

    @property
    def streams(self) -> bool:
        """Whether the image is written front to back, so that a pipe takes it."""
        return self.driver.streams(self.own)


def new_image(file: BlockDevice, size: int, options: ImageOptions, beside: Beside | None = None) -> BlockDevice:
    """Return a new image in ``file`` for a disk of at least ``size`` bytes, which reads as zeros; its owner keeps it.

    The image is whole when ``finish`` was called and it was closed. What is written to it best comes in ascending
    order, and where it is compressed, once; a ``OnceDevice`` takes nothing else. Raises UsageError, NoSpace.
    """
    options.check()
    if options.raw:
        raise UsageError("new image: raw has nothing to make")
    return options.driver.create(file, size, options.own, beside)


def finish(image: BlockDevice) -> None:
    """Have all of the image in its file, and of what is no stream on the medium."""
    if isinstance(image, OnceDevice):
        image.finish()
    else:
        image.flush()


class _Beside:
    """Files beside an output file, made by the same rules."""

    def __init__(self, path: str, stack: ExitStack, *, force: bool) -> None:
        self.name = os.path.basename(path)
        self._folder = os.path.dirname(os.path.realpath(path))
        self._stack = stack
        self._force = force

    def __call__(self, name: str) -> BlockDevice:
        return self._stack.enter_context(OutputFile(os.path.join(self._folder, name), force=self._force)).device


@contextmanager
def image_output(
    path: str, size: int, options: ImageOptions, *, force: bool = False, like: BlockDevice | None = None
) -> Iterator[BlockDevice]:
    """A context with a new image at ``path``, which appears, whole and durable, where the body ends well.

    Where ``like`` is given, an image that is written once is read back before and compared with it. Raises as
    ``OutputFile`` and ``new_image`` do, IntegrityError where the image differs.
    """
    with OutputFile(path, force=force) as out, ExitStack() as stack:
        beside = _Beside(path, stack, force=force) if isinstance(out.device, FileDevice) else None
        with new_image(out.device, size, options, beside) as image:
            yield image
            finish(image)
        if like is not None and options.once:
            _compare(like, out.device, options)


def _compare(like: BlockDevice, file: BlockDevice, options: ImageOptions) -> None:
    """Raise IntegrityError where the image in ``file``, which stays open, is not ``like``."""
    from blockwright.device.compare import compare
    from blockwright.device.window import Window
    from blockwright.format.open import Files

    window = Window(file, 0, file.size, owns=False)
    with options.driver.open(window, Files(), writable=False) as written:
        found = compare(like, written)
    if found is not None:
        raise IntegrityError(f"verify: source and image differ: expected the same bytes, found others (byte {found})")


@contextmanager
def image_stream(stream: BinaryIO, size: int, options: ImageOptions) -> Iterator[BlockDevice]:
    """A context with a new image that is written to ``stream`` front to back, and is whole where the body ends well.

    Raises UsageError for an image that is not written so.
    """
    if options.raw:
        with PipeDevice(stream, size) as pipe:
            yield pipe
            pipe.finish()
        return
    if not options.streams:
        streams = " or ".join(each.name for each in FORMATS if each.streams)
        raise UsageError(
            f"standard output: expected an image that is written front to back ({streams}, of some kinds only), "
            f"found {options.form}"
        )
    with PipeDevice(stream, MAX_SIZE) as pipe, new_image(pipe, size, options) as image:
        yield image
        finish(image)
        pipe.flush()
