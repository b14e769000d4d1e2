"""What a server offers: exports by name, each a device with rules of its own.

``Export`` is what a caller says, ``Served`` is an export in use: its device open, its threads, its connections.

Knows: devices and what is told of them. Refuses to know: connections, and how requests are carried out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from blockwright.device.base import BlockDevice, Context, ResizableDevice, TellingDevice, Waits
from blockwright.device.dirty import DirtyDevice
from blockwright.device.steady import SteadyDevice
from blockwright.errors import NotFound, UsageError
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.server.pool import Workers
from blockwright.nbd.wire import BASE_ALLOCATION, CHANGED_SINCE, MAX_STRING, TransmissionFlag, is_string
from blockwright.units import KiB, align_down

MAX_MINIMUM_BLOCK: Final = 64 * KiB
"""The largest minimum block that "Block size constraints" allows."""
MAX_WORKERS: Final = 16
"""Threads that wait for one export's device."""


class Access(Protocol):
    """A rule about who may use an export."""

    def refusal(self, peer: Peer) -> str | None:
        """Return why this peer may not, None where it may."""

    def read_only(self, peer: Peer) -> bool:
        """Whether a peer that may use the export may only read it."""


@dataclass(frozen=True, slots=True)
class Export:
    """A device under a name.

    ``device`` is open, and stays its owner's; or it is a function that opens one, called when the first client that
    may use it asks for it, and closed with the export. ``read_only`` refuses writes; a device that takes none does
    so anyway. ``blocks`` are told and enforced; without them they follow from the device. ``multi_conn`` says that a
    flush on one connection covers all, which is true of every device here unless the caller knows better.
    ``resizable`` offers the RESIZE extension. With ``growing`` a session's size is looked at anew: clients may
    know of a larger one. ``listed`` says whether LIST names it. ``connections`` limits how many use it at
    once. A DirtyDevice's checkpoints are contexts too, ``blockwright:changed-since:NAME``, and so is what a
    TellingDevice tells.
    """

    name: str
    device: BlockDevice | Callable[[], BlockDevice]
    description: str = ""
    read_only: bool = False
    blocks: BlockSizes | None = None
    multi_conn: bool = True
    resizable: bool = False
    growing: bool = False
    listed: bool = True
    connections: int | None = None
    access: Access | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("description", self.description)):
            if not is_string(text):
                raise UsageError(
                    f"export {self.name[:64]!r}: expected a {what} of at most {MAX_STRING} bytes of UTF-8 without NUL"
                )
        blocks = self.blocks
        if blocks is not None:
            if blocks.minimum & (blocks.minimum - 1) or not 1 <= blocks.minimum <= MAX_MINIMUM_BLOCK:
                raise UsageError(
                    f"export {self.name!r}: expected a minimum block that is a power of two up to "
                    f"{MAX_MINIMUM_BLOCK}, found {blocks.minimum}"
                )
            if blocks.preferred & (blocks.preferred - 1) or blocks.preferred < max(512, blocks.minimum):
                raise UsageError(
                    f"export {self.name!r}: expected a preferred block that is a power of two of at least "
                    f"{max(512, blocks.minimum)}, found {blocks.preferred}"
                )
            if blocks.maximum < blocks.preferred or blocks.maximum % blocks.minimum:
                raise UsageError(
                    f"export {self.name!r}: expected a maximum that is a multiple of {blocks.minimum} and at least "
                    f"{blocks.preferred}, found {blocks.maximum}"
                )


class Opened:
    """A device that exports share, opened when it is first asked for; one that is ours is closed with the last."""

    def __init__(self, source: BlockDevice | Callable[[], BlockDevice]) -> None:
        self._source = source
        self._device: BlockDevice | None = None if callable(source) else source
        self._owns = callable(source)
        self._steady: SteadyDevice | None = None
        self._users = 1
        self._lock = threading.Lock()
        self.serial = threading.Lock()

    @property
    def device(self) -> BlockDevice:
        """The device, open. Raises what opening it raises, and tries again the next time."""
        if self._device is None:
            with self._lock:
                if self._device is None:
                    assert callable(self._source), "a device that was given is open"
                    self._device = self._source()
        return self._device

    @property
    def size(self) -> int | None:
        """The device's size in bytes as far as it is known; None where it was never opened."""
        device = self._device
        return None if device is None else device.size

    @property
    def steady(self) -> BlockDevice:
        """The device for sessions of which any may resize it; the same for all of them."""
        device = self.device
        if not isinstance(device, ResizableDevice):
            return device
        with self._lock:
            self._steady = self._steady or SteadyDevice(device, owns=False)
            return self._steady

    def share(self) -> Opened:
        """Return the same for one more export."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Take leave; the last one closes the device where it is ours."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last and self._owns and self._device is not None:
            self._device.close()


def only_readable(info: ExportInfo) -> ExportInfo:
    """Return the export as a client is told of it that may not write."""
    writing = TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES
    writing |= TransmissionFlag.SEND_FAST_ZERO | TransmissionFlag.SEND_RESIZE
    return replace(info, flags=info.flags & ~writing | TransmissionFlag.READ_ONLY)


class Served:
    """An export in use. Its device is opened at the first ``device``; ``close`` closes it where it is ours.

    ``opened`` is the device where another export has it already. ``connections`` counts sessions, and ``users`` all
    who must find it open; the one is changed by ``join`` and ``leave``, the other by the catalogue.
    """

    def __init__(self, export: Export, opened: Opened | None = None) -> None:
        self.export = export
        self.opened = opened or Opened(export.device)
        self.connections = 0
        self.users = 0
        self._opening = threading.Lock()
        self._workers: Workers | None = None

    @property
    def device(self) -> BlockDevice:
        """The device, open. Raises what opening it raises, and tries again the next time."""
        return self.opened.steady if self.export.resizable else self.opened.device

    @property
    def workers(self) -> Workers:
        """The threads that wait for the device."""
        if self._workers is None:
            with self._opening:
                if self._workers is None:
                    count = min(MAX_WORKERS, self.opened.device.traits.parallelism)
                    self._workers = Workers(count, f"nbd: {self.export.name or 'export'}")
        return self._workers

    @property
    def pooled(self) -> bool:
        """Whether calls that may wait go to ``workers``; where not, they are made in line."""
        traits = self.device.traits
        return traits.parallelism > 1 and traits.waits is not Waits.NEVER

    def calls(self) -> AbstractContextManager[object]:
        """Return what to hold during calls of the device: a lock, where it takes one call at a time."""
        return self.opened.serial if self.device.traits.parallelism == 1 else nullcontext()

    def join(self) -> bool:
        """Count one more session, and return True; False where there are as many as the export may have."""
        limit = self.export.connections
        with self._opening:
            if limit is not None and self.connections >= limit:
                return False
            self.connections += 1
            return True

    def leave(self) -> None:
        """Count a session less."""
        with self._opening:
            self.connections -= 1

    def info(self, limits: Limits) -> ExportInfo:
        """Return what clients are told, with what was added to the device since. Opens the device.

        Raises UsageError where the export's own blocks would leave bytes at its end that nobody could ask for.
        """
        export, size, blocks = self.export, self.device.refresh(), self._blocks(limits)
        if export.blocks is not None and size % blocks.minimum:
            raise UsageError(
                f"export {export.name[:64]!r}: expected a size that is a multiple of its minimum block of "
                f"{blocks.minimum} bytes, found {size}"
            )
        return ExportInfo(export.name, size, self._flags(), blocks, export.description)

    def context(self, name: str) -> Context:
        """Return the context called ``name``, which is one of ``context_names``."""
        if name == BASE_ALLOCATION:
            return self.device
        found = self.export.contexts.get(name) or self._changes().get(name)
        if found is None:
            raise NotFound(f"context {name!r}: the checkpoint was forgotten")
        return found

    @property
    def context_names(self) -> tuple[str, ...]:
        """The meta contexts that the export has: those that it was given, and its device's checkpoints."""
        return (BASE_ALLOCATION, *self.export.contexts, *self._changes())

    def _changes(self) -> dict[str, Context]:
        device = self.opened.device
        known = device.checkpoints if isinstance(device, DirtyDevice) else ()
        told = device.inner if isinstance(device, DirtyDevice) else device
        kept = told.contexts if isinstance(told, TellingDevice) else {}
        return {**kept, **{CHANGED_SINCE + each.name: each for each in known}}

    def close(self) -> None:
        """End the threads, and close the device where it is ours. Nothing may be in flight."""
        if self._workers is not None:
            self._workers.close()
        self.opened.close()

    def _flags(self) -> TransmissionFlag:
        traits, export = self.device.traits, self.export
        flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
        flags |= TransmissionFlag.SEND_DF | TransmissionFlag.SEND_CACHE | TransmissionFlag.BLOCK_STATUS_PAYLOAD
        if export.multi_conn:
            flags |= TransmissionFlag.CAN_MULTI_CONN
        if export.read_only or not traits.writable:
            return flags | TransmissionFlag.READ_ONLY
        flags |= TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES | TransmissionFlag.SEND_FAST_ZERO
        if export.resizable and isinstance(self.device, ResizableDevice):
            flags |= TransmissionFlag.SEND_RESIZE
        return flags

    def _blocks(self, limits: Limits) -> BlockSizes:
        traits = self.device.traits
        if self.export.blocks is not None:
            given = self.export.blocks
            minimum = max(given.minimum, traits.minimum_block)
            preferred, maximum = given.preferred, min(given.maximum, limits.request_bytes)
        else:
            minimum = min(traits.minimum_block, MAX_MINIMUM_BLOCK)
            preferred, maximum = min(traits.preferred_block, 1 << 20), limits.request_bytes
        largest = 1 << maximum.bit_length() - 1  # the power of two that a preferred block may be
        return BlockSizes(minimum, max(512, minimum, min(preferred, largest)), align_down(maximum, minimum))
