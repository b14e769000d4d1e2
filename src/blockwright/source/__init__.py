"""From what a user names to a tree: a directory, an archive, standard input, a file system in an image.

What a source is, its content tells, never its name. A source whose contents can be read anywhere (a directory, a
plain archive in a file) is *addressable*: reading it costs its metadata only. Any other is streamed: it is read
once, and each body goes where the reader wants it as it arrives.

Knows: every kind of source, and how to tell them apart. Refuses to know: what the tree becomes.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from blockwright.errors import NotFound
from blockwright.oci.choice import ONLY, Choice
from blockwright.source.base import Source
from blockwright.tree.content import Place
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules, Remarks

__all__ = ["DirectorySource", "Source", "open_source"]


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
    image (an OCI layout, an archive of one, a docker-archive) is the tree of its layers, and ``choice`` says which
    where there are several. ``rules`` say what is taken in of an archive. Raises NotFound; NotThisFormat for what is
    none of them; ArchiveRejected for documents of an image that do not hold; OSError of the host.
    """
    name = os.fsdecode(text)
    if name == "-":
        from blockwright.source.archive import open_stdin

        return open_stdin(stdin, rules)
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            if all(os.path.isfile(os.path.join(name, each)) for each in ("oci-layout", "index.json")):
                from blockwright.source.layered import open_image_directory

                return open_image_directory(name, rules, choice)
            return DirectorySource(name)
        from blockwright.source.archive import open_file, open_stream

        return open_file(name, rules, choice) if stat.S_ISREG(status.st_mode) else open_stream(name, rules)
    except FileNotFoundError as error:
        from blockwright.resolve import parse_address

        address = parse_address(name)
        if address.is_part or address.scheme != "file":
            from blockwright.source.image import open_image

            return open_image(name)
        raise NotFound(f"{name}: no such file or directory") from error
