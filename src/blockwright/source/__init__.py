"""From what a user names to a tree: a directory, an archive, standard input, a file system in an image.

What a source is, its content tells, never its name. A source whose contents can be read anywhere (a directory, a
plain archive in a file) is *addressable*: reading it costs its metadata only. Any other is streamed: it is read
once, and each body goes where the reader wants it as it arrives.

Knows: every kind of source, and how to tell them apart. Refuses to know: what the tree becomes.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from blockwright.errors import NotFound, UsageError
from blockwright.oci.choice import ONLY, Choice
from blockwright.oci.reference import meant
from blockwright.plugin import SOURCES, find_plugin
from blockwright.source.base import NoSource, Source
from blockwright.source.key import is_layout, locate_all
from blockwright.tree.content import Place
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules, Remarks

if TYPE_CHECKING:
    from blockwright.address import Address

__all__ = ["DirectorySource", "NoSource", "Source", "open_source", "open_sources"]


class DirectorySource(Source):
    """A directory of the host."""

    kind = "directory"
    addressable = True

    def __init__(self, path: str | bytes | os.PathLike[str], *, one_file_system: bool = False) -> None:
        self.name = os.fsdecode(path)
        self.remarks = Remarks()
        self._one_file_system = one_file_system

    def read(self, place: Place | None = None) -> Directory:
        """Return what the directory holds now; contents are read from it."""
        return read_directory(self.name, one_file_system=self._one_file_system)

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""


def open_source(
    text: str | os.PathLike[str],
    *,
    stdin: BinaryIO | None = None,
    rules: ArchiveRules = DEFAULT_RULES,
    choice: Choice = ONLY,
) -> Source:
    """Return the source that ``text`` names: a path, or ``-`` for standard input (``stdin`` where given).

    A path may be ``disk.img:2``, a file system in an image, as ``resolve`` has it. A directory, a file system and a
    plain archive in a regular file are addressable; compressed archives, pipes and devices are streamed. A container
    image (an OCI layout, an archive of one, a docker-archive; ``docker://HOST/NAME:TAG`` is one in a registry) is the
    tree of its layers, and ``choice`` says which where there are several; one that passes once is kept in a temporary
    file meanwhile. An archive that is an object of a store (``s3://BUCKET/KEY``) passes once, too. ``rules`` say
    what is taken of an archive. Raises NotFound; NotThisFormat for what is none of them; ArchiveRejected for
    documents of an image that do not hold; OSError of the host; for a registry also what ``oci.registry`` raises, for
    an object what ``store.objects`` does.
    """
    name = os.fsdecode(text)
    if name == "-":
        from blockwright.source.archive import open_stdin

        return open_stdin(stdin, rules, choice)
    if name.startswith("docker://") and not os.path.lexists(name):
        from blockwright.source.registry import open_registry

        return open_registry(name, rules, choice)
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            if is_layout(name):
                from blockwright.source.layered import open_image_directory

                return open_image_directory(name, rules, choice)
            return DirectorySource(name)
        from blockwright.source.archive import open_file, open_stream

        return open_file(name, rules, choice) if stat.S_ISREG(status.st_mode) else open_stream(name, rules, choice)
    except FileNotFoundError as error:
        scheme, colon, _ = name.partition(":")
        plugin = find_plugin(SOURCES, scheme) if colon else None
        if plugin is not None:
            return _checked(plugin(name), name)
        from blockwright.address import parse_address

        address = parse_address(name)
        if address.scheme == "store" and not address.is_part and address.snapshot is None:
            from blockwright.source.stored import open_object

            found = open_object(address.rest, rules, choice)
            if found is not None:
                return found
        if address.is_part or address.scheme != "file" or address.snapshot is not None:
            return _in_image(name, address)
        raise NotFound(f"{name}: no such file or directory{meant(name)}") from error


def _in_image(name: str, address: Address) -> Source:
    """Return the file system in an image; where there is no such file, the message tells what was perhaps meant."""
    from blockwright.source.image import open_image

    missing = os.path.isdir(address.rest) or not os.path.exists(address.rest)
    hint = meant(name) if address.scheme == "file" and missing else ""
    try:
        return open_image(name)
    except NotFound:
        if hint:
            raise NotFound(f"{name}: no such file or directory{hint}") from None
        raise
    except UsageError:
        if hint and os.path.isdir(address.rest):
            raise UsageError(f"{name}: {address.rest} is a directory, of which there are no parts{hint}") from None
        raise


def _checked(found: object, name: str) -> Source:
    if not isinstance(found, Source):
        raise UsageError(f"{name[:200]}: expected a Source from the plugin, found {type(found).__name__}")
    return found


def open_sources(
    names: tuple[str, ...],
    *,
    rules: ArchiveRules = DEFAULT_RULES,
    choice: Choice = ONLY,
    layers: bool = False,
    store: str | None = None,
) -> Source:
    """Return the source of one name, or of several over one another; nothing for no name.

    Several are archives, each a layer, and container images, with all of their layers, the lowest first. ``layers``
    says that one name is a directory of such, in the order of their names. Names may be keys of ``store``, or of
    BLOCKWRIGHT_STORE, and prefixes of keys, as ``key.locate`` has it. Raises as that, ``open_source`` and
    ``stack.open_stack`` do.
    """
    if not names:
        return NoSource()
    if layers and len(names) == 1 and os.path.isdir(names[0]):
        names = tuple(os.path.join(names[0], each) for each in sorted(os.listdir(names[0])))
        if not names:
            raise UsageError("expected layers in a directory, found none")
    else:
        names, prefix = locate_all(names, store)
        layers = layers or prefix
    if len(names) == 1 and not layers:
        return open_source(names[0], rules=rules, choice=choice)
    from blockwright.source.stack import open_stack

    return open_stack(names, rules, choice)
