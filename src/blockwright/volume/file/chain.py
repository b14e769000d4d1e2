"""Layers as files: made, opened one upon the other, merged, and told of a new layer below them.

Every function can be called again after it was interrupted anywhere.

Knows: raw files and qcow2 images. Refuses to know: the journal, and which volume a layer is of.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NotFound
from blockwright.format.mapped import Kind
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.device import Qcow2Device, read_entries
from blockwright.format.qcow2.open import no_files, open_qcow2, read_header
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.volume.file.layers import PARTIAL
from blockwright.volume.spec import sync_folder

WRITABLE: Final = 0o600
FROZEN: Final = 0o400
_ONE_NAME: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def form_of(path: str) -> str:
    """Return the format of a layer, as its name says."""
    return path.rpartition(".")[2]


def make_raw(path: str, size: int) -> None:
    """Have a file of ``size`` bytes at ``path`` that reads as zeros, durably."""
    with _new(path) as file:
        file.resize(size)
        file.flush()
    publish(path)


def make_overlay(path: str, size: int, below: str) -> None:
    """Have an image at ``path`` that reads as the layer ``below`` does, durably."""
    with _new(path) as file:
        options = Options(backing_file=os.path.basename(below), backing_format=form_of(below))
        create(file, size, options)
        file.flush()
    publish(path)


def is_empty(path: str) -> bool:
    """Whether the layer is an image that says nothing of its own, so that it reads as what it stands on."""
    if form_of(path) == "raw":
        return False
    with FileDevice(path, force_unlocked=True) as file:
        record = read_header(file).record
        return not any(read_entries(file, record.l1_table_offset, record.l1_size))


def make_copy(path: str, layers: Sequence[str]) -> None:
    """Have a raw file at ``path`` with what the chain ``layers`` reads as, durably."""
    with open_chain(layers) as source, _new(path) as file:
        file.resize(source.size)
        copy(source, file, target_is_zero=True, write_back=True)
        file.flush()
    publish(path)


def publish(path: str) -> None:
    """Give the file its name, durably; it had that with ``PARTIAL`` behind it."""
    os.replace(path + PARTIAL, path)
    sync_folder(os.path.dirname(path))


def discard(path: str) -> None:
    """Have no such file, whole or not."""
    for each in (path + PARTIAL, path):
        with suppress(FileNotFoundError):
            os.unlink(each)


def sync_file(path: str) -> None:
    """Make durable what the file holds."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard_filling(path: str) -> None:
    """Have nothing left of what was filling the file: outputs are written beside their names (``device.output``)."""
    folder, name = os.path.split(path)
    for each in os.listdir(folder):
        if filling(each) == name:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, each))


def filling(name: str) -> str | None:
    """Return the name of the layer that a file is the beginning of; None for any other file."""
    if name.startswith(".") and name.endswith(".partial"):
        return name[1:].rpartition(PARTIAL + ".")[0] or None
    whole = name.removesuffix(PARTIAL)
    return whole if whole != name else None


def set_writable(path: str, *, writable: bool) -> None:
    """Let the file be written to by its owner, or by nobody."""
    os.chmod(path, WRITABLE if writable else FROZEN)


def open_chain(
    layers: Sequence[str], *, writable: bool = False, force_unlocked: bool = False
) -> FileDevice | Qcow2Device:
    """Return the device that the layers make, the uppermost first; only that one is written to.

    Formats are what the names say, whatever the bytes look like. Raises NotFound, InUse, FormatError.
    """
    device: FileDevice | Qcow2Device | None = None
    try:
        for path in reversed(layers):
            top = path == layers[0]
            device = _upon(path, device, writable=writable and top, force_unlocked=force_unlocked)
    except BaseException:
        if device is not None:
            device.close()
        raise
    assert device is not None, "a chain has layers"
    return device


def _upon(
    path: str, below: FileDevice | Qcow2Device | None, *, writable: bool, force_unlocked: bool
) -> FileDevice | Qcow2Device:
    if writable:
        set_writable(path, writable=True)
    try:
        file = FileDevice(path, writable=writable, force_unlocked=force_unlocked)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such layer") from None
    try:
        if form_of(path) == "raw":
            if below is not None:
                raise Corrupt("layer: expected a raw file to be the lowest", source=path)
            return file

        def under(_name: bytes, _form: str | None) -> BlockDevice:
            if below is None:
                raise Corrupt("layer: expected a layer below it", source=path)
            return below

        return open_qcow2(file, writable=writable, below=under, data=no_files)
    except BaseException:
        file.close()
        raise


def size_of(path: str) -> int:
    """Return the size of the disk whose own layer that is."""
    with FileDevice(path, force_unlocked=True) as file:
        return file.size if form_of(path) == "raw" else read_header(file).record.size


def resize(layers: Sequence[str], size: int) -> None:
    """Have the disk that the layers make as large as that; what is added reads as zeros."""
    if size_of(layers[0]) == size:
        return
    if form_of(layers[0]) == "raw":  # also while others have it open
        os.truncate(layers[0], size)
        sync_file(layers[0])
        return
    with open_chain(layers, writable=True) as disk:
        assert isinstance(disk, ResizableDevice), "its own file is writable"
        disk.resize(size)
        disk.flush()


def is_merged(layers: Sequence[str], merged: str) -> bool:
    """Whether the second of the layers has become ``merged`` already, where files have one name."""
    return os.path.exists(merged) and not os.path.exists(layers[1])


def merge(layers: Sequence[str]) -> None:
    """Have the second of the layers, on which only the first stands, read as the first does; the first is left.

    Wherever it is interrupted, the first layer over the second reads as before.
    """
    with open_chain(layers) as top, open_chain(layers[1:], writable=True) as target:
        assert isinstance(top, Qcow2Device), "what stands on something is an image"
        assert isinstance(target, ResizableDevice), "its own file is writable"
        pour(top, target)


def pour(top: Qcow2Device, target: ResizableDevice) -> None:
    """Have ``target`` read as ``top`` does, which stands on it, durably."""
    if target.size < top.size:
        target.resize(top.size)
    copy(top, target, ranges=lambda: _own(top), write_back=True)
    target.flush()


def _own(top: Qcow2Device) -> Iterator[tuple[int, int]]:
    """Yield what the image itself says of its disk."""
    offset = 0
    for place in top.resolve(0, top.size):
        if place.kind not in (Kind.BACKING, Kind.HOLE):
            yield offset, place.length
        offset += place.length


def link(path: str, other: str) -> None:
    """Have the file at ``path`` under the name ``other`` too, or only, where files have one name; durably."""
    if not os.path.exists(other):
        try:
            os.link(path, other)
        except OSError as error:
            if error.errno not in _ONE_NAME:
                raise
            os.rename(path, other)
    sync_folder(os.path.dirname(other))


def unlink_other(path: str, other: str) -> None:
    """Have the file at ``path`` under the name ``other`` only."""
    if os.path.exists(path) and not os.path.exists(other):
        os.rename(path, other)
    with suppress(FileNotFoundError):
        os.unlink(path)


def rebase(path: str, below: str) -> None:
    """Have the image name ``below`` as what it stands on, which reads as what it named."""
    name, form = os.path.basename(below).encode(), form_of(below)
    mode = os.stat(path).st_mode & 0o777
    set_writable(path, writable=True)
    try:
        with FileDevice(path, writable=True) as file:
            name_below(file, name, form)
    finally:
        os.chmod(path, mode)


def name_below(file: BlockDevice, name: bytes, form: str) -> None:
    """Have the image in ``file`` name what it stands on, and the format of that, durably, or as before.

    Raises NotSupported where its header has no room.
    """
    if read_header(file).backing_file == name:
        return
    with open_qcow2(file, writable=True, below=lambda *_: MemoryDevice(0), data=no_files, owns=False) as disk:
        assert isinstance(disk, WritableQcow2), "it was asked for"
        disk.put_backing(name, form)


def _new(path: str) -> FileDevice:
    """Return the file that becomes the one at ``path``, empty."""
    with suppress(FileNotFoundError):
        os.unlink(path + PARTIAL)
    return FileDevice(path + PARTIAL, create=True, mode=WRITABLE)
