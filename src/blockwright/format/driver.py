"""What a format's package answers to: open, make, check. One driver stands for one format.

Knows: the contract. Refuses to know: any format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError
from blockwright.finding import Finding

if TYPE_CHECKING:  # which imports the registry, and that this
    from blockwright.format.open import Files


class Beside(Protocol):
    """Makes files beside an output, for formats whose images are several. ``name`` is the output's own name."""

    name: str

    def __call__(self, name: str) -> BlockDevice:
        """Return a new, empty file of that name, which appears with the output. Raises UsageError where it exists."""


class Driver(ABC):
    """A format: stateless, so that one value serves everybody."""

    name: str
    resizes = False
    """Whether a new image is a ``ResizableDevice``."""

    @abstractmethod
    def open(self, file: BlockDevice, files: Files, *, writable: bool) -> BlockDevice:
        """Return the disk in ``file``, which it owns from then on; after an exception the caller still does.

        ``files`` opens what the image names. Raises FormatError, NotAllowed, ReadOnly.
        """

    def open_snapshot(self, file: BlockDevice, files: Files, name: str) -> BlockDevice:
        """Return the disk as the image's snapshot of that name or id has it, to read; else as ``open``.

        Raises NotFound, UsageError where the format has no snapshots.
        """
        raise UsageError(f"snapshot {name[:80]!r}: expected an image of the format qcow2, found {self.name}")

    def options(self, given: Mapping[str, Any], output: str) -> object:
        """Return the format's own options for a new image at ``output``, of those in the registry, by key.

        One that was not given is None. Raises UsageError.
        """
        return None

    def once(self, own: object) -> bool:
        """Whether such an image is written in ascending order and once: a ``OnceDevice``."""
        return self.streams(own)

    def streams(self, own: object) -> bool:
        """Whether it is besides written to its file front to back, so that a pipe takes it."""
        return False

    def is_raw(self, own: object) -> bool:
        """Whether such an image is its disk, byte for byte."""
        return False

    @abstractmethod
    def create(self, file: BlockDevice, size: int, own: object, beside: Beside | None) -> BlockDevice:
        """Return a new image in ``file`` of a disk of at least ``size`` bytes, which reads as zeros.

        ``own`` is what ``options`` returned, None for the defaults. ``file`` stays the caller's. ``beside`` is None
        where there can be one file only. Raises UsageError, NoSpace.
        """

    def check(self, file: BlockDevice, files: Files) -> Iterable[Finding] | None:
        """Return what is wrong with the image's own structures, None where the format has none to verify."""
        return None

    def repair(self, file: BlockDevice) -> bool:
        """Mend what can be mended with certainty, and return whether anything was. Raises UsageError, Corrupt."""
        raise UsageError(f"repair: expected an image of the format qcow2, found {self.name}")


def level_of(given: Mapping[str, Any]) -> int | None:
    """Return the level of the compression that was asked for, None for its default. Raises UsageError."""
    text = given.get("level")
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"level: expected a number, found {str(text)[:40]!r}") from None
