"""Any image becomes a disk: its format is settled once, by name or by its first bytes, and what it names is opened
by the caller's policy.

Knows: formats by name. Refuses to know: their bytes, and how addresses are written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice, HostBlockDevice
from blockwright.device.guarded import guarded
from blockwright.errors import Corrupt, FormatError, LimitExceeded, Unsupported
from blockwright.format.policy import MAX_DEPTH, REFUSE, Policy
from blockwright.format.probe import HEAD, look_for_image

READABLE: Final = ("raw", "qcow2")
"""Formats that are read and written."""


def format_of(file: BlockDevice) -> str:
    """Return the name of the format that the first bytes name; raw where they name none."""
    return look_for_image(file.read(0, min(HEAD, file.size))) or "raw"


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
    return _open(file, path, form, policy, (), writable=writable, guard=guard)


def _open(
    file: BlockDevice,
    path: str | None,
    form: str | None,
    policy: Policy,
    above: tuple[str, ...],
    *,
    writable: bool = False,
    guard: bool = False,
) -> BlockDevice:
    kind = form or format_of(file)
    try:
        if kind == "raw":
            return guarded(file, look_for_image, HEAD) if guard and writable and form is None else file
        if kind == "qcow2":
            from blockwright.format.qcow2.open import open_qcow2

            chain = (*above, path or "")
            return open_qcow2(
                file,
                writable=writable,
                below=_below(path, policy, chain),
                data=_data(path, policy, writable=writable),
            )
        raise Unsupported(f"expected an image of the format {' or '.join(READABLE)}, found {kind}")
    except FormatError as error:
        error.source = error.source or path
        raise


def _below(path: str | None, policy: Policy, chain: tuple[str, ...]) -> Callable[[bytes, str | None], BlockDevice]:
    def below(name: bytes, form: str | None) -> BlockDevice:
        found = policy.resolve(name, path, "backing file")
        if len(chain) >= MAX_DEPTH:
            raise LimitExceeded(f"backing file: expected a chain of at most {MAX_DEPTH} files", source=path)
        if _same(found, chain):
            raise Corrupt(f"backing file {found!r}: stands on itself", source=path)
        if form not in (None, *READABLE):
            raise Unsupported(f"backing file {found!r}: its format {form[:40]!r} is not read", source=path)
        file = policy.open(found)
        try:
            return _open(file, found, form, policy, chain)
        except BaseException:
            file.close()
            raise

    return below


def _same(path: str, chain: tuple[str, ...]) -> bool:
    """Whether the file is one of those that stand on it."""
    import os

    for each in chain:
        with suppress(OSError):
            if each and os.path.samefile(path, each):
                return True
    return False


def _data(path: str | None, policy: Policy, *, writable: bool) -> Callable[[bytes], BlockDevice]:
    def data(name: bytes) -> BlockDevice:
        return policy.open(policy.resolve(name, path, "external data file"), writable=writable)

    return data


def is_probed(file: BlockDevice) -> bool:
    """Whether a file's own bytes may say which format it has: a regular file's. A device's are its guest's."""
    return isinstance(file, FileDevice) and not isinstance(file, HostBlockDevice)
