"""What every source answers to.

Knows: the questions. Refuses to know: any kind of source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from blockwright.tree.content import Content, Fill, Place, Runs
from blockwright.tree.node import Directory
from blockwright.tree.rules import Remarks


class Source(ABC):
    """A tree that can be read. ``kind`` is ``directory``, ``tar`` or ``file system``, ``name`` what messages call it.

    ``addressable`` says that contents can be read anywhere, as long as the source is open.
    """

    kind: str
    name: str
    addressable: bool
    remarks: Remarks
    """What ``read`` did not take as it stands."""

    @property
    def progress(self) -> tuple[int, int]:
        """How many bytes were taken from what passes once, and how many there are: 0 where nobody knows."""
        return 0, 0

    def shown(self, place: Place, progress: Callable[[int, int], None]) -> Place:
        """Return ``place`` such that the source's progress is told behind each part of a body."""

        def shown(size: int, runs: Runs, fill: Fill, /) -> Content:
            def told(buffer: memoryview) -> None:
                fill(buffer)
                progress(*self.progress)

            return place(size, runs, told)

        return shown

    @abstractmethod
    def read(self, place: Place | None = None) -> Directory:
        """Return the tree.

        A source that is not addressable hands each body to ``place`` as it arrives, and can be read once.
        Raises UsageError where a place is needed and missing; what ``read_directory`` and ``read_tar`` raise.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what contents are read from. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NoSource(Source):
    """Nothing, for a disk whose partitions bring along all that they hold."""

    kind = "nothing"
    name = "nothing"
    addressable = True

    def __init__(self) -> None:
        self.remarks = Remarks()

    def read(self, place: Place | None = None) -> Directory:
        """Return an empty directory."""
        return Directory()

    def close(self) -> None:
        """Do nothing: there is nothing open."""
