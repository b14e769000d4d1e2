"""Layers as one source: those of a container image on disk, or of several references over one another.

Layers are read at once, each in a thread of its own, and merged over metadata. Where all of them are plain the source
is addressable. Compressed ones are decoded a second time, and of each only what no layer above hides is placed.

Knows: the order of steps, and the threads. Refuses to know: how an image is found, how layers are merged, and what
several references are (``stack``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from blockwright.errors import UsageError
from blockwright.oci.choice import Choice, is_marked
from blockwright.oci.image import is_image, layers_of
from blockwright.oci.layer import Indexed, Layer, PendingBody, index, is_plain, place_bodies
from blockwright.oci.merge import merge
from blockwright.source.base import Source
from blockwright.tree.content import Place
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File
from blockwright.tree.rules import ArchiveRules, Remarks


class LayeredSource(Source):
    """Layers, the lowest first, over what ``owned`` keeps open."""

    kind = "layers"

    def __init__(
        self,
        layers: Sequence[Layer],
        name: str,
        rules: ArchiveRules,
        owned: ExitStack,
        origins: Sequence[int] = (),
    ) -> None:
        """``origins`` say of each layer by which of several references it came, counted from 0."""
        self.name = name
        self.origins = origins
        self.remarks = Remarks()
        self._layers = layers
        self._rules = rules
        self._owned = owned
        self.addressable = all(is_plain(layer) for layer in layers)
        self._done = 0
        self._looked: Directory | None = None

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers, the lowest first."""
        return self._layers

    def own(self, owned: ExitStack) -> None:
        """Close what ``owned`` closes when the source is closed."""
        self._owned = owned

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of layers whose bodies have been placed, and of all."""
        return self._done, sum(layer.content.size for layer in self._layers)

    def read(self, place: Place | None = None) -> Directory:
        """Return the tree of all layers; bodies of compressed ones go to ``place``."""
        if place is None and not self.addressable:
            raise UsageError(f"{self.name}: is compressed: expected a place for what its files hold, found none")
        tree, self._looked = self.look(), None
        if place is not None and not self.addressable:
            self._place(tree, place)
        return tree

    def look(self) -> Directory:
        """Return the tree of all layers, which are verified now; bodies of compressed ones have no place yet.

        The next ``read`` goes on from there.
        """
        if self._looked is None:
            found = self._index()
            for each in found:
                # No image refers to a bare one, and a compressed one was told by its beginning only.
                bare = each.layer.diff_id is None and not is_plain(each.layer)
                if bare and is_marked({entry.path for entry in each.entries if b"/" not in entry.path}):
                    raise UsageError(
                        f"{each.layer.name}: is a container image that begins like none: expected it decompressed"
                    )
            self.remarks = Remarks()
            for each in found:
                self.remarks.dropped_xattrs += each.remarks.dropped_xattrs
            self._looked = merge(found, self._rules)
        return self._looked

    def _index(self) -> list[Indexed]:
        """Read all layers at once, as far as there are processors for it."""
        with ThreadPoolExecutor(max(1, min(len(self._layers), os.cpu_count() or 1)), "layer") as threads:
            futures = [threads.submit(index, layer, self._rules, refer=self.addressable) for layer in self._layers]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

    def _place(self, tree: Directory, place: Place) -> None:
        """Decode what has a body in the tree once more, and have each placed."""
        wanted: dict[int, dict[int, list[File]]] = {}
        seen: set[int] = set()
        stack = [tree]
        while stack:
            for node in stack.pop().entries.values():
                if isinstance(node, Directory):
                    stack.append(node)
                elif isinstance(node, File) and isinstance(node.content, PendingBody) and id(node) not in seen:
                    seen.add(id(node))
                    body = node.content
                    wanted.setdefault(body.layer.number, {}).setdefault(body.index, []).append(node)
        for layer in self._layers:
            if layer.number in wanted:
                place_bodies(layer, self._rules, wanted[layer.number], place)
            self._done += layer.content.size

    def close(self) -> None:
        """Close what the layers lie in."""
        self._owned.close()


def open_image_directory(name: str, rules: ArchiveRules, choice: Choice) -> Source:
    """Return the container image that an OCI layout in a directory holds."""
    return LayeredSource(layers_of(read_directory(name), choice, name), name, rules, ExitStack())


def image_source(
    tree: Directory, name: str, rules: ArchiveRules, choice: Choice, owned: ExitStack
) -> LayeredSource | None:
    """Return the container image that an archive's tree is, which then owns what is open; None where it is none."""
    if not is_image(tree):
        return None
    source = LayeredSource(layers_of(tree, choice, name), name, rules, ExitStack())
    source.own(owned.pop_all())
    return source
