"""What targets tell of themselves, as values.

Knows: the status line of each target. Refuses to know: how it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blockwright.system.linux.dm.layout import SECTOR, Line


@dataclass(frozen=True, slots=True)
class Status:
    """A target's status as text, for a type that tells nothing more, or something that is not known."""

    type: str
    text: str


@dataclass(frozen=True, slots=True)
class StripedStatus(Status):
    """``alive`` says of each part whether it works."""

    devices: tuple[str, ...]
    alive: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class SnapshotStatus(Status):
    """How full the store is, in bytes; ``problem`` is empty, or ``Invalid``, ``Overflow``, ``Merge failed``.

    A merge is done when ``used`` has come down to ``metadata``.
    """

    used: int = 0
    total: int = 0
    metadata: int = 0
    problem: str = ""

    @property
    def merged(self) -> bool:
        """Whether nothing is left to merge."""
        return not self.problem and self.used == self.metadata


@dataclass(frozen=True, slots=True)
class ThinPoolStatus(Status):
    """How full a pool is, in its blocks, and what it does with the next write.

    ``mode`` is ``rw``, ``ro``, ``out_of_data_space``, or ``Fail`` or ``Error``, where nothing else is known.
    ``metadata_low_water_blocks`` is None from kernels that do not tell it.
    """

    mode: str
    transaction: int = 0
    metadata_used_blocks: int = 0
    metadata_total_blocks: int = 0
    data_used_blocks: int = 0
    data_total_blocks: int = 0
    held_root: int | None = None
    discard: bool = False
    passdown: bool = False
    error_if_full: bool = False
    needs_check: bool = False
    metadata_low_water_blocks: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether it takes writes, and its metadata needs no check."""
        return self.mode == "rw" and not self.needs_check

    @property
    def takes_messages(self) -> bool:
        """Whether it does what a message says, and keeps it."""
        return self.mode in ("rw", "out_of_data_space") and not self.needs_check


@dataclass(frozen=True, slots=True)
class ThinStatus(Status):
    """``mapped`` bytes have blocks of their own; ``highest`` is the last such byte, None where there is none."""

    mapped: int = 0
    highest: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class VerityStatus(Status):
    """``verified`` is False once a block was found that is not what its hash says."""

    verified: bool = True


def parse(line: Line) -> Status:
    """Return the status that a target told; plain Status for what is not known, or not as documented."""
    reader = _READERS.get(line.type)
    if reader is not None:
        try:
            return reader(line.type, line.text.strip())
        except (ValueError, IndexError):
            pass
    return Status(line.type, line.text)


def _striped(kind: str, text: str) -> Status:
    words = text.split()
    count = int(words[0])
    devices = tuple(words[1 : 1 + count])
    letters = words[2 + count]
    if len(devices) != count or len(letters) != count:
        raise ValueError
    return StripedStatus(kind, text, devices, tuple(letter == "A" for letter in letters))


def _snapshot(kind: str, text: str) -> Status:
    if text in ("Invalid", "Overflow", "Merge failed", "Unknown"):
        return SnapshotStatus(kind, text, problem=text)
    share, metadata = text.split()
    used, total = share.split("/")
    return SnapshotStatus(kind, text, int(used) * SECTOR, int(total) * SECTOR, int(metadata) * SECTOR)


def _thin_pool(kind: str, text: str) -> Status:
    if text in ("Fail", "Error"):
        return ThinPoolStatus(kind, text, mode=text)
    transaction, metadata, data, root, *words = text.split()
    metadata_used, metadata_total = map(int, metadata.split("/"))
    data_used, data_total = map(int, data.split("/"))
    (mode,) = [word for word in words if word in ("rw", "ro", "out_of_data_space")]
    last = words[-1]
    return ThinPoolStatus(
        type=kind,
        text=text,
        mode=mode,
        transaction=int(transaction),
        metadata_used_blocks=metadata_used,
        metadata_total_blocks=metadata_total,
        data_used_blocks=data_used,
        data_total_blocks=data_total,
        held_root=None if root == "-" else int(root),
        discard="ignore_discard" not in words,
        passdown="discard_passdown" in words,
        error_if_full="error_if_no_space" in words,
        needs_check="needs_check" in words,
        metadata_low_water_blocks=int(last) if last.isdigit() else None,
    )


def _thin(kind: str, text: str) -> Status:
    if text in ("Fail", "Error"):
        return ThinStatus(kind, text, failed=True)
    mapped, highest = text.split()
    last = None if highest == "-" else (int(highest) + 1) * SECTOR - 1
    return ThinStatus(kind, text, int(mapped) * SECTOR, last)


def _verity(kind: str, text: str) -> Status:
    letter = text.split(maxsplit=1)[0]
    if letter not in ("V", "C"):
        raise ValueError
    return VerityStatus(kind, text, verified=letter == "V")


_READERS: Final[dict[str, Callable[[str, str], Status]]] = {
    "striped": _striped,
    "snapshot": _snapshot,
    "snapshot-merge": _snapshot,
    "thin-pool": _thin_pool,
    "thin": _thin,
    "verity": _verity,
}
