"""Any image becomes a disk: its format is settled once, by name or by its first bytes, and what it names is opened
by the caller's policy.

Knows: chains of images. Refuses to know: formats (``registry``), and how addresses are written.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice, HostBlockDevice
from blockwright.device.guarded import guarded
from blockwright.errors import Corrupt, FormatError, LimitExceeded, Unsupported, UsageError
from blockwright.format.policy import MAX_DEPTH, REFUSE, Policy
from blockwright.format.probe import HEAD, look_for_image
from blockwright.format.registry import NAMES, find_format


def format_of(file: BlockDevice) -> str:
    """Return the name of the format that the first bytes name; raw where they name none."""
    return look_for_image(file.read(0, min(HEAD, file.size))) or "raw"


@dataclass(frozen=True, slots=True)
class Files:
    """Opens the files that the image at ``path`` names, by ``policy``; ``above`` are the images that stand on it."""

    path: str | None = None
    policy: Policy = REFUSE
    above: tuple[str, ...] = ()

    def below(
        self, name: bytes, form: str | None, what: str = "backing file", *, writable: bool = False
    ) -> BlockDevice:
        """Return the disk in the image that is named as the ``what`` of this one, of a format where one is named.

        Raises NotAllowed, NotFound, FormatError.
        """
        found, chain = self.policy.resolve(name, self.path, what), (*self.above, self.path or "")
        if len(chain) >= MAX_DEPTH:
            raise LimitExceeded(f"{what}: expected a chain of at most {MAX_DEPTH} files", source=self.path)
        if _same(found, chain):
            raise Corrupt(f"{what} {found!r}: stands on itself", source=self.path)
        if form is not None and form not in NAMES:
            raise Unsupported(f"{what} {found!r}: its format {form[:40]!r} is not read", source=self.path)
        file = self.policy.open(found, writable=writable)
        try:
            return _open(file, form, Files(found, self.policy, chain), writable=writable)
        except BaseException:
            file.close()
            raise

    def part(self, name: bytes, what: str, *, writable: bool = False) -> BlockDevice:
        """Return the file, as it is, that is named as the ``what`` of this image. Raises NotAllowed, NotFound."""
        return self.policy.open(self.policy.resolve(name, self.path, what), writable=writable)


def open_image(
    file: BlockDevice,
    *,
    path: str | None = None,
    form: str | None = None,
    policy: Policy = REFUSE,
    writable: bool = False,
    guard: bool = False,
) -> BlockDevice:
    """Return the disk in ``file``, which it owns from then on; after an exception the caller still does.

    ``path`` is where the file lies, for messages and for names relative to it. ``form`` names the format, None looks
    at the first bytes; ``guard`` then keeps a raw image from getting others. Files that the image names are opened
    by ``policy``. Raises Unsupported for a format that is not read, FormatError, NotAllowed.
    """
    if guard and writable and form is None and format_of(file) == "raw":
        return guarded(file, look_for_image, HEAD)
    return _open(file, form, Files(path, policy), writable=writable)


def open_snapshot(
    file: BlockDevice, name: str, *, path: str | None = None, form: str | None = None, policy: Policy = REFUSE
) -> BlockDevice:
    """Return the disk in ``file`` as the image's snapshot of that name or id has it, to read; else as ``open_image``.

    Raises NotFound where it has none of that name, UsageError for a format that has no snapshots.
    """
    kind = form or format_of(file)
    found = find_format(kind)
    if found is None or kind == "raw":
        raise UsageError(f"snapshot {name[:80]!r}: expected an image of the format qcow2, found {kind}")
    try:
        return found.load().open_snapshot(file, Files(path, policy), name)
    except FormatError as error:
        error.source = error.source or path
        raise


def _open(file: BlockDevice, form: str | None, files: Files, *, writable: bool = False) -> BlockDevice:
    kind = form or format_of(file)
    try:
        if kind == "raw":
            return file
        found = find_format(kind)
        if found is None:
            raise Unsupported(f"expected an image of the format {' or '.join(NAMES)}, found {kind}")
        return found.load().open(file, files, writable=writable)
    except FormatError as error:
        error.source = error.source or files.path
        raise


def _same(path: str, chain: tuple[str, ...]) -> bool:
    """Whether the file is one of those that stand on it."""
    import os

    for each in chain:
        with suppress(OSError):
            if each and os.path.samefile(path, each):
                return True
    return False


def is_probed(file: BlockDevice) -> bool:
    """Whether a file's own bytes may say which format it has: a regular file's. A device's are its guest's."""
    return isinstance(file, FileDevice) and not isinstance(file, HostBlockDevice)
