"""What a user names becomes a disk to serve: an image, a device, a directory or archive as a disk, an overlay.

Knows: how to tell them apart, and which wrappers each needs. Refuses to know: exports and clients.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from blockwright.address import Address, parse_address
from blockwright.build.definition import Definition
from blockwright.device.base import BlockDevice
from blockwright.device.dirty import track
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.guarded import guarded
from blockwright.device.overlay import Overlay
from blockwright.errors import Unsupported, UsageError
from blockwright.format.policy import Policy
from blockwright.format.probe import HEAD, look
from blockwright.format.registry import NAMES, find_format
from blockwright.resolve import open_device
from blockwright.source.base import Source

_ARCHIVES: Final = (".tgz", ".tar.gz", ".tzst", ".tar.zst", ".txz", ".tar.xz", ".bz2", ".tbz2")
"""What is compressed and no image, or one that is not read."""


@dataclass(frozen=True, slots=True)
class Image:
    """What to serve, as a value: equal ones are the same disk. Calling it opens the device.

    ``text`` is an address as ``resolve`` has it, a directory, or a tar archive; ``partition`` settles which part.
    ``form`` says which format a file has (``raw`` takes it as it is), whatever its first bytes say, and
    ``allow_backing`` in which folders files may lie that an image names. ``overlay`` takes writes in memory, or in
    the file ``overlay_file``, and leaves what was named alone. ``track`` has the checkpoints since which changes are
    told: names, each with the file that keeps it from one run to the next, or None. ``disk`` says how a directory
    becomes a disk.
    """

    text: str
    partition: int | None = None
    writable: bool = True
    form: str | None = None
    allow_backing: tuple[str, ...] = ()
    overlay: bool = False
    overlay_file: str | None = None
    force_unlocked: bool = False
    track: tuple[tuple[str, str | None], ...] = ()
    disk: Definition = field(default_factory=Definition)

    def __call__(self) -> BlockDevice:
        """Return the device, open; closing it closes all that was opened on the way.

        Raises what ``open_device`` and ``open_source`` raise, Unsupported for a format that is not raw, and what
        ``DirtyDevice.keep`` raises.
        """
        if self.overlay and any(file is not None for _, file in self.track):
            raise UsageError("track: an overlay's writes end with the server: expected a NAME without a file")
        device = self._base()
        try:
            if self.overlay:
                device = Overlay(device, None if self.overlay_file is None else scratch_file(self.overlay_file))
            if self.track:
                device = self._tracked(device)
        except BaseException:
            device.close()
            raise
        return device

    def _tracked(self, inner: BlockDevice) -> BlockDevice:
        device = track(inner)
        for name, file in self.track:
            if file is None:
                device.checkpoint(name)
            else:
                device.keep(name, file)
        return device

    def _base(self) -> BlockDevice:
        address = parse_address(self.text, partition=self.partition)
        kind = None if self.form is not None else _kind(address)
        if kind == "directory" or (kind == "tar" and not address.is_part):
            return _planned(address.rest, self.disk)
        if self.disk.changes:
            raise UsageError(f"{self.text}: is served as it is: changes of contents are for directories and archives")
        if kind not in (None, "tar", *NAMES):
            raise Unsupported(
                f"{address.rest}: expected a raw image, found {kind}; --from raw serves the file's bytes as they are"
            )
        found = find_format(self.form or kind or "raw")
        writable = self.writable and not self.overlay and not (found and found.read_only) and address.snapshot is None
        device = open_device(
            self.text,
            writable=writable,
            partition=self.partition,
            force_unlocked=self.force_unlocked,
            form=self.form or (kind if kind in NAMES else None if address.scheme == "store" else "raw"),
            policy=Policy(self.allow_backing),
        )
        if writable and self.form is None and kind is None and address.scheme == "file" and not address.is_part:
            return guarded(device, look, HEAD)
        return device


def _kind(address: Address) -> str | None:
    """Return ``directory``, the format that a file's first bytes name, ``compressed …``, or None for a raw image."""
    if address.scheme != "file":
        return None
    try:
        mode = os.stat(address.rest).st_mode
        if stat.S_ISDIR(mode):
            return None if address.is_part else "directory"
        if not stat.S_ISREG(mode):
            return None
        with open(address.rest, "rb", buffering=0) as file:
            head = file.read(HEAD)
    except (OSError, ValueError):
        return None  # opening it as a device tells what is wrong
    if address.rest.endswith(_ARCHIVES):
        from blockwright.tree.decompress import compression_of

        compression = compression_of(head)
        if compression is not None:
            return f"a file compressed with {compression}"
    return look(head)


class _PlannedDisk(ForwardingDevice):
    """A planned disk that owns the source of its contents."""

    def __init__(self, inner: BlockDevice, source: Source) -> None:
        super().__init__(inner)
        self._source = source

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            self._source.close()


def _planned(path: str, definition: Definition) -> BlockDevice:
    """Return a directory, or a plain archive, as a disk; nothing is written anywhere."""
    from blockwright.build.run import plan_source
    from blockwright.source import open_source

    definition.check()
    source = open_source(path)
    try:
        with _without_collecting():
            return _PlannedDisk(plan_source(source, definition).device(), source)
    except BaseException:
        source.close()
        raise


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep the collector from looking at a tree's objects, none of them in cycles, while they are made and after."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()


def parse_track(texts: Sequence[str], folder: str = "") -> tuple[tuple[str, str | None], ...]:
    """Return what ``NAME`` and ``NAME=FILE`` say, files relative to ``folder``. Raises UsageError."""
    found: dict[str, str | None] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not name or (equals and not file):
            raise UsageError(f"track: expected NAME or NAME=FILE, found {text[:64]!r}")
        if name in found:
            raise UsageError(f"track: expected each name once, found {name[:64]!r} again")
        path = os.path.join(folder, file) if equals else None
        if path is not None and path in found.values():
            raise UsageError(f"track: expected a file for each name, found {file[:200]} again")
        found[name] = path
    return tuple(found.items())


def scratch_file(path: str) -> FileDevice:
    """Return a new file at ``path`` to keep an overlay's writes in while it is open.

    It is an overlay's memory and nothing more: without the overlay's map, which nobody stores, its bytes mean
    nothing. So a file that is there is never taken, and where the system allows it the name is removed at once:
    however the server ends, nothing is left that could be taken for a disk, and its space is given back.
    Raises UsageError where the path exists, OSError.
    """
    try:
        device = FileDevice(path, create=True, mode=0o600)
    except FileExistsError:
        raise UsageError(f"{path}: exists: expected a name of no file for the overlay, which begins anew") from None
    if sys.platform != "win32":
        with suppress(OSError):
            os.unlink(path)
    return device
