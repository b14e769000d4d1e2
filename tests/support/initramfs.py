"""Makes initial RAM disks: an archive as the kernel unpacks it, with programs and modules of this host's packages.

Source: Linux 6.1, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.tools import run, tool


class Entry(NamedTuple):
    """A file of the archive: its name without a leading slash, `st_mode`, content."""

    name: str
    mode: int
    content: bytes = b""

    @classmethod
    def directory(cls, name: str) -> "Entry":
        """One that others lie in; it comes before them."""
        return cls(name, 0o040755)

    @classmethod
    def file(cls, name: str, content: bytes) -> "Entry":
        """One that is read."""
        return cls(name, 0o100644, content)

    @classmethod
    def program(cls, name: str, path: Path) -> "Entry":
        """A copy of one of this host."""
        return cls(name, 0o100755, path.read_bytes())


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive."""
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4)
        archive += content + bytes(-len(content) % 4)
    return bytes(archive)


def programs(*names: str) -> list[Entry]:
    """Programs of this host under /bin, with the libraries they are linked to, and the directories for those."""
    files: dict[str, Path] = {}
    for name in names:
        path = tool(name)
        files[f"bin/{name}"] = Path(path)
        for library in re.findall(r"(/\S+) \(0x", run([tool("ldd"), path], ok=(0, 1)).stdout):
            files[library.lstrip("/")] = Path(library)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {".", "bin"})
    return [*map(Entry.directory, folders), *(Entry.program(name, path) for name, path in files.items())]


def module_files(kernel: Path, names: Iterable[str]) -> list[Path]:
    """The kernel's modules of those names, each after those it depends on; names it does not have are left out."""
    release = kernel.name.removeprefix("vmlinuz-")
    folder = kernel.parents[1] / "lib" / "modules" / release
    if not folder.is_dir():
        folder = Path("/lib/modules") / release
    files = {path.name.removesuffix(".ko").replace("-", "_"): path for path in folder.rglob("*.ko")}
    return _ordered(files, names)


def _ordered(files: Mapping[str, Path], names: Iterable[str]) -> list[Path]:
    """The modules of those names, each after those it depends on; names that are not there are left out."""
    found: dict[Path, None] = {}

    def take(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in found:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for each in depends[1].decode().split(",") if depends and depends[1] else ():
            take(each)
        found[path] = None

    for name in names:
        take(name)
    return list(found)
