"""Whether what the journal says of files is so, and whether the files themselves are sound.

Knows: what must agree. Refuses to know: how any of it is put right.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from blockwright.device.file import FileDevice
from blockwright.errors import FormatError
from blockwright.finding import Finding
from blockwright.format.qcow2.check import check as check_image
from blockwright.format.qcow2.open import read_header
from blockwright.volume.file import chain as chain_files
from blockwright.volume.file.layers import Layer, Layers
from blockwright.volume.file.survey import files_in
from blockwright.volume.info import VolumeInfo

MAX_FINDINGS = 1000


def check(folder: str, volumes: Iterable[VolumeInfo], layers: Layers, pending: set[str]) -> list[Finding]:
    """Return what is wrong with the files in ``folder``, those that an intent is about left out."""
    names, known, used = set(files_in(folder)), layers.all(), set()
    found: list[Finding] = []
    for volume in volumes:
        try:
            chain = layers.chain(int(volume.extra.get("layer", 0)))
        except FormatError as error:
            found.append(Finding("volume.layers", f"{volume.name}: {error}"))
            continue
        used |= {each.id for each in chain}
        found += _of_volume(folder, volume, chain, names)
    files = {each.id: each.file for each in known}
    for each in known:
        if each.id not in used:
            found.append(Finding("volume.layer.unused", f"{each.file}: no volume stands on it"))
        if each.file in names and each.form == "qcow2" and each.file not in pending:
            found += _of_image(folder, each, files)
        if each.file in names and each.form == "raw" and each.file not in pending:
            found += _of_raw(folder, each)
    strange = {each for each in names - set(files.values()) - pending if chain_files.filling(each) not in pending}
    found += [Finding("volume.file.unknown", f"{name}: is no volume's") for name in sorted(strange)]
    return found[:MAX_FINDINGS]


def unusable(folder: str, layers: Layers) -> list[Finding]:
    """Return which images cannot be read at all, or stand on others than the journal says; no intent is pending."""
    known = layers.all()
    files, names = {each.id: each.file for each in known}, set(files_in(folder))
    found: list[Finding] = []
    for each in known:
        if each.file in names and each.form == "raw":
            found += _of_raw(folder, each)
        if each.file not in names or each.form != "qcow2":
            continue
        try:
            with FileDevice(os.path.join(folder, each.file), force_unlocked=True) as file:
                header = read_header(file)
        except (FormatError, OSError) as error:
            found.append(Finding("volume.file.unreadable", f"{each.file}: {error}"))
            continue
        wanted = None if each.parent is None else files.get(each.parent, "").encode()
        if header.backing_file != wanted:
            text = f"{each.file}: expected it to stand on {wanted!r}, found {header.backing_file!r}"
            found.append(Finding("volume.layer.parent", text))
    return found


def _of_volume(folder: str, volume: VolumeInfo, chain: list[Layer], names: set[str]) -> Iterator[Finding]:
    missing = [each.file for each in chain if each.file not in names]
    for name in missing:
        yield Finding("volume.file.missing", f"{volume.name}: {name}: is gone")
    if missing:
        return
    path = os.path.join(folder, chain[0].file)
    try:
        with FileDevice(path, force_unlocked=True) as file:
            size = file.size if chain[0].form == "raw" else read_header(file).record.size
    except (FormatError, OSError) as error:
        yield Finding("volume.file.unreadable", f"{volume.name}: {error}")
        return
    if size != volume.size:
        yield Finding("volume.size", f"{volume.name}: expected {volume.size} bytes, found {size}")


def _of_raw(folder: str, layer: Layer) -> Iterator[Finding]:
    """Yield what its length alone tells: what is read past the end of a base would be zeros without a word."""
    try:
        size = os.lstat(os.path.join(folder, layer.file)).st_size
    except OSError as error:
        yield Finding("volume.file.unreadable", f"{layer.file}: {error}")
        return
    if size == 0 or size % 512:
        yield Finding("volume.layer.size", f"{layer.file}: expected whole sectors, found {size} bytes")


def _of_image(folder: str, layer: Layer, files: dict[int, str]) -> Iterator[Finding]:
    try:
        with FileDevice(os.path.join(folder, layer.file), force_unlocked=True) as file:
            header = read_header(file)
            wanted = None if layer.parent is None else files.get(layer.parent, "").encode()
            if header.backing_file != wanted:
                text = f"{layer.file}: expected it to stand on {wanted!r}, found {header.backing_file!r}"
                yield Finding("volume.layer.parent", text)
            for each in check_image(file):
                yield Finding(each.rule, f"{layer.file}: {each.message}", each.offset, each.repairable)
    except (FormatError, OSError) as error:
        yield Finding("volume.file.unreadable", f"{layer.file}: {error}")
