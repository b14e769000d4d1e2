"""Whether what the journal says of files is so, and whether the files themselves are sound.

Knows: what must agree. Refuses to know: how any of it is put right.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from blockwright.device.file import FileDevice
from blockwright.errors import Damaged, FormatError, NotFound
from blockwright.finding import Finding
from blockwright.format.qcow2.check import check as check_image
from blockwright.format.qcow2.open import read_header
from blockwright.volume.file import chain as chain_files
from blockwright.volume.file.layers import Layer, Layers
from blockwright.volume.file.survey import files_in
from blockwright.volume.info import VolumeInfo

MAX_FINDINGS = 1000


def check(folder: str, volumes: Sequence[VolumeInfo], layers: Layers, pending: set[str]) -> list[Finding]:
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
    heads = {int(each.extra.get("layer", 0)) for each in volumes}  # whose sizes are those of the volumes
    for each in known:
        if each.id not in used:
            found.append(Finding("volume.layer.unused", f"{each.file}: no volume stands on it"))
        if each.file not in names or each.file in pending:
            continue
        found += _of_size(folder, each, known=each.id not in heads)
        if each.form == "qcow2":
            found += _of_image(folder, each, files)
    strange = {each for each in names - set(files.values()) - pending if chain_files.filling(each) not in pending}
    found += [Finding("volume.file.unknown", f"{name}: is no volume's") for name in sorted(strange)]
    return found[:MAX_FINDINGS]


def damaged(folder: str, volumes: Iterable[VolumeInfo], layers: Layers) -> dict[str, str]:
    """Return why volumes are not to be used, by name; each file is looked at once, and its header alone."""
    seen: dict[int, str | None] = {}
    found: dict[str, str] = {}
    for volume in volumes:
        try:
            chain = layers.chain(int(volume.extra.get("layer", 0)))
        except FormatError as error:
            found[volume.name] = str(error)
            continue
        for layer, below in zip(chain, [*chain[1:], None], strict=True):
            if layer.id not in seen:
                seen[layer.id] = _trouble(folder, layer, below)
            text = seen[layer.id]
            if text is not None:
                found.setdefault(volume.name, text)
    return found


def verify(folder: str, name: str, chain: Sequence[Layer]) -> None:
    """Return where the layers of a volume, the uppermost first, are what the journal says. Raises Damaged, NotFound.

    What is cut off from a layer reads as zeros through those that stand on it, and nothing else tells of that.
    """
    for layer, below in zip(chain, [*chain[1:], None], strict=True):
        path = os.path.join(folder, layer.file)
        if not os.path.exists(path):
            raise NotFound(f"{path}: no such layer")
        text = _trouble(folder, layer, below)
        if text is not None:
            raise Damaged(f"{name}: is damaged and not used: {text}: see 'pool check'")


def may_merge(folder: str, chain: Sequence[Layer]) -> bool:
    """Whether the first of the layers can go into the second: nothing is wrong, and it is not the smaller one."""
    try:
        verify(folder, "merge", chain)
    except (Damaged, NotFound):
        return False
    upper, lower = chain[0].size, chain[1].size
    return upper is None or lower is None or upper >= lower


def learn_sizes(folder: str, layers: Layers) -> None:
    """Have the sizes on record of layers that an older version recorded without."""
    for layer in layers.unsized():
        with suppress(FormatError, OSError):
            layers.learn_size(layer.id, chain_files.size_of(os.path.join(folder, layer.file)))


def _trouble(folder: str, layer: Layer, below: Layer | None) -> str | None:
    """Return what is wrong with a layer, by its length and header alone; None for nothing, and for no file."""
    path = os.path.join(folder, layer.file)
    try:
        if layer.form == "raw":
            return _wrong_size(layer, os.stat(path).st_size)
        with FileDevice(path, force_unlocked=True) as file:
            header = read_header(file)
    except FileNotFoundError:
        return None
    except (FormatError, OSError) as error:
        return f"{layer.file}: {error}"
    wanted = None if below is None else below.file.encode()
    if header.backing_file != wanted:
        return f"{layer.file}: expected it to stand on {wanted!r}, found {header.backing_file!r}"
    return _wrong_size(layer, header.record.size)


def _wrong_size(layer: Layer, size: int) -> str | None:
    if layer.size is not None and size != layer.size:
        return f"{layer.file}: expected {layer.size} bytes as in the journal, found {size}"
    if layer.form == "raw" and (size == 0 or size % 512):
        return f"{layer.file}: expected whole sectors, found {size} bytes"
    return None


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


def _of_size(folder: str, layer: Layer, *, known: bool) -> Iterator[Finding]:
    """Yield what its length tells; with ``known`` also where that is not the one on record."""
    path = os.path.join(folder, layer.file)
    try:
        size = os.stat(path).st_size if layer.form == "raw" else chain_files.size_of(path)
    except OSError as error:
        yield Finding("volume.file.unreadable", f"{layer.file}: {error}")
        return
    except FormatError:
        return  # which its own check tells
    text = _wrong_size(layer if known else replace(layer, size=None), size)
    if text is not None:
        yield Finding("volume.layer.size", text)


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
