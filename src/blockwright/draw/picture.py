"""A disk as a value that can be drawn: runs side by side, what is in them, and what was found.

Every text in it is printable already (``words.plain``), since names in an image are anybody's. Sizes in bytes.

Knows: what a drawing needs. Refuses to know: how it is drawn, and how a disk is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

MAX_FINDINGS: Final = 200
"""Findings that a picture lists; it says how many more there are."""


class Kind(Enum):
    """What a run of the disk is."""

    PARTITION = "partition"
    WHOLE = "file system"
    TABLE = "partition table"
    FREE = "free"


class Bin(NamedTuple):
    """Bytes of a short run by what the device holds of it; ``unknown`` ones were not asked for."""

    data: int = 0
    zero: int = 0
    hole: int = 0
    unknown: int = 0

    @property
    def size(self) -> int:
        """All bytes of the run."""
        return self.data + self.zero + self.hole + self.unknown


@dataclass(frozen=True, slots=True)
class Boot:
    """``size`` bytes from byte ``start`` of the disk on take part in its start, as ``what`` says."""

    start: int
    size: int
    what: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory or a file, and the bytes it takes with all below it; children in descending sizes.

    What is neither stands for what is not told apart in a directory, whose ``entries`` are many or none.
    """

    name: str
    size: int
    is_directory: bool = True
    entries: int = 0
    children: tuple[Folder, ...] = ()
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """What fills a file system. ``complete`` says that all of it was looked at, ``problem`` why not."""

    root: Folder
    files: int
    directories: int
    complete: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system's name, identities and how full it is."""

    kind: str
    label: str
    uuid: str
    size: int
    free: int

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return max(0, self.size - self.free)


@dataclass(frozen=True, slots=True)
class Part:
    """A run of the disk: a partition, its table, or nothing. ``shown`` is what no earlier one covers of it.

    ``bins`` divide the run evenly, in the order of its bytes. ``foreign`` names what is known by its marks only.
    """

    kind: Kind
    start: int
    size: int
    shown: int
    bins: tuple[Bin, ...]
    number: int = 0
    type: str = ""
    name: str = ""
    identity: str = ""
    flags: tuple[str, ...] = ()
    file_system: FileSystem | None = None
    contents: Contents | None = None
    problem: str = ""
    foreign: str = ""

    @property
    def allocated(self) -> int:
        """Bytes that take room where the device lives, as far as it was asked."""
        return sum(each.data + each.zero for each in self.bins)

    @property
    def title(self) -> str:
        """A name in a few words."""
        if self.kind is Kind.PARTITION:
            return f"{self.number} {self.type}"
        return str(self.kind.value)


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of a check: where, which rule, and what is wrong."""

    place: str
    rule: str
    message: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A disk. ``parts`` ascend and leave nothing out. ``findings`` None says that nobody looked for any.

    ``checked`` names what was looked at, ``more_findings`` counts those that are not listed.
    """

    source: str
    size: int
    format: str
    table: str
    sector_size: int
    parts: tuple[Part, ...]
    boot: tuple[Boot, ...] = ()
    findings: tuple[Found, ...] | None = None
    more_findings: int = 0
    checked: tuple[str, ...] = field(default=())

    @property
    def allocated(self) -> int:
        """Bytes that take room where the device lives."""
        return sum(part.allocated for part in self.parts)
