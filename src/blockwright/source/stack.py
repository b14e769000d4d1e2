"""Several references as one source: the layers of the first, then those of the next, as if all were of one image.

An archive is one layer. A container image (in a registry, an OCI layout, an archive of one, a docker-archive) is all
of its layers. So whiteouts of either remove what anything before has, and nothing is merged twice.

Of images only layers are taken: two have to be for one platform, and ``--image`` says which one of an archive or
layout is meant where only one of the references is such.

Knows: what may be among several references. Refuses to know: how any of them is read, and merged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import NamedTuple

from blockwright.device.file import FileDevice
from blockwright.errors import FormatError, NotFound, UsageError
from blockwright.oci.choice import ONLY, Choice, begins_like_image, has_marks
from blockwright.oci.image import find, is_image
from blockwright.oci.layer import Layer
from blockwright.oci.platform import Platform
from blockwright.oci.reference import is_reference, meant
from blockwright.source.archive import HEAD, keep
from blockwright.source.base import Source
from blockwright.source.key import check_several
from blockwright.source.layered import LayeredSource
from blockwright.store.address import is_store_url
from blockwright.tree.content import Content, DeviceRange
from blockwright.tree.decompress import DecodedStream, compression_of
from blockwright.tree.host import read_directory
from blockwright.tree.hostfile import HostFile
from blockwright.tree.node import Directory
from blockwright.tree.part import ContentReader
from blockwright.tree.rules import ArchiveRules
from blockwright.tree.tar import looks_like_tar, read_tar


class Fetched(NamedTuple):
    """A reference that is here: what it is called, and where it is, a file or an OCI layout.

    ``digest`` is what an archive that is a layer must have, None for any. ``image`` is that of a registry instead.
    """

    name: str
    path: str = ""
    digest: str | None = None
    image: Directory | None = None


def open_stack(names: Sequence[str], rules: ArchiveRules, choice: Choice = ONLY) -> Source:
    """Return several references over one another; objects of a store are kept in files meanwhile.

    Raises NotFound, UsageError for what is no layer, and no image, or for images that do not go together, and what
    fetching raises.
    """
    check_several(names)
    with ExitStack() as owned:
        stack = _Stack(rules, choice, owned)
        here = {name: _status(name) for name in names if not _is_away(name)}  # before anything is fetched
        kept: Mapping[str, FileDevice] = {}
        urls = [name for name in names if name not in here and is_store_url(name)]
        if urls:
            from blockwright.source.stored import keep_objects

            kept = keep_objects(urls, rules, owned)
        for name in names:
            if name in here:
                stack.add_path(name, name, here[name])
            elif name in kept:
                device = kept[name]
                stack.add_archive(name, DeviceRange(device, device.size, 0), nullcontext(device))
            else:
                from blockwright.source.registry import pulled

                stack.add_image(name, pulled(name, choice), choice._replace(name=None))
        return stack.source(names[-1])


def open_fetched(found: Sequence[Fetched], rules: ArchiveRules, choice: Choice) -> Source:
    """Return references that were fetched, over one another. Raises as ``open_stack`` does; nothing is fetched."""
    with ExitStack() as owned:
        stack = _Stack(rules, choice, owned)
        for each in found:
            if each.image is not None:
                stack.add_image(each.name, each.image, choice._replace(name=None))
            else:
                stack.add_path(each.name, each.path, _status(each.path), each.digest)
        return stack.source(found[-1].name)


def _is_away(name: str) -> bool:
    return (is_reference(name) or is_store_url(name)) and not os.path.lexists(name)


def _status(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file{meant(path)}") from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise UsageError(f"{path}: expected an archive in a regular file, which is read more than once")
    return status


class _Stack:
    """Layers so far, the lowest first, and the reference that each is of; ``owned`` closes what is opened."""

    def __init__(self, rules: ArchiveRules, choice: Choice, owned: ExitStack) -> None:
        self._rules = rules
        self._choice = choice
        self._owned = owned
        self._layers: list[Layer] = []
        self._origins: list[int] = []
        self._references = 0
        self._first: tuple[str, Platform] | None = None
        self._named = ""

    def source(self, name: str) -> Source:
        """Return all as one source, which then owns what was opened."""
        return LayeredSource(self._layers, name, self._rules, self._owned.pop_all(), self._origins)

    def add_path(self, name: str, path: str, status: os.stat_result, digest: str | None = None) -> None:
        """Add what a file or an OCI layout holds."""
        if stat.S_ISDIR(status.st_mode):
            self.add_image(name, read_directory(path), self._once(name))
            return
        folder, last = os.path.split(os.fsencode(os.path.realpath(path)))
        file = HostFile(folder, last, status, status.st_mtime_ns)
        self.add_archive(name, file, FileDevice(path), digest)

    def add_archive(
        self, name: str, content: Content, device: AbstractContextManager[FileDevice], digest: str | None = None
    ) -> None:
        """Add an archive as a layer, or the image that it is; ``device`` has the same bytes as ``content``."""
        with ExitStack() as opened:
            tree = self._image_in(name, content, opened.enter_context(device), opened)
            if tree is not None:
                self._owned.push(opened.pop_all())
        if tree is not None:
            self.add_image(name, tree, self._once(name))
        else:
            self._add([Layer(name, 0, content, digest)])

    def add_image(self, name: str, tree: Directory, choice: Choice) -> None:
        """Add the layers of the image that is meant. Raises UsageError where it is for another platform."""
        layers, platform = find(tree, choice, name)
        if platform.os and platform.architecture:
            below, expected = self._first = self._first or (name, platform)
            if (platform.os, platform.architecture) != (expected.os, expected.architecture):
                raise UsageError(
                    f"{name}: is for {platform}, and {below} for {expected}: expected images for one platform"
                )
        self._add(layers)

    def _add(self, layers: Sequence[Layer]) -> None:
        for each in layers:
            self._layers.append(replace(each, number=len(self._layers)))
            self._origins.append(self._references)
        self._references += 1

    def _once(self, name: str) -> Choice:
        """Return the choice for an image that has a name. Raises UsageError where it would be meant for two."""
        if self._choice.name is not None and self._named:
            raise UsageError(
                f"--image {self._choice.name[:64]}: says which image of one reference, found {self._named} and {name}"
            )
        self._named = name
        return self._choice

    def _image_in(self, name: str, content: Content, device: FileDevice, opened: ExitStack) -> Directory | None:
        """Return the tree of an archive that is a container image, None for any other.

        A plain one is told by all that is in it, a compressed one, which is kept decoded then, by its first entry.
        """
        head = bytearray(min(HEAD, content.size))
        content.read_into(0, memoryview(head))
        if compression_of(bytes(head)) is not None:
            with DecodedStream(ContentReader(content).read, source=name, rules=self._rules) as stream:
                try:
                    begin = stream.peek(HEAD)
                except FormatError:  # which who reads it as a layer meets again
                    return None
                if not (looks_like_tar(begin) and begins_like_image(begin)):
                    return None
                device = opened.enter_context(keep(stream, name, self._rules))
        try:
            tree = read_tar(device, source=name, rules=self._rules)
        except FormatError:  # the same
            return None
        return tree if has_marks(tree) and is_image(tree) else None
