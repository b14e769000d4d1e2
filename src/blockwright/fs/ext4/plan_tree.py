"""A tree becomes numbered inodes and packed directories.

Directories are taken parents first, and the children of one get successive numbers in the order of their names,
so that listing a directory with the metadata of its entries reads neighbouring inodes. The same tree always gets
the same numbers, in whatever order its entries were put in.

Knows: nodes, names, links. Refuses to know: blocks.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import DIR_ENTRY, FileType, ReservedInode, inode_seed
from blockwright.fs.ext4.plan_directory import (
    DOTS_SIZE,
    LOST_FOUND_SIZE,
    PADS,
    DirectoryFormat,
    DirectoryImage,
    indexed_image,
    linear_blocks_image,
    linear_image,
    lost_found_image,
)
from blockwright.tree.node import MAX_NAME, Directory, File, Node, Symlink, walk

LOST_FOUND = b"lost+found"

_Below = tuple[int, int, Directory]
"""A directory that is to be entered: its number, its parent's, the node."""

_KINDS = {
    0o100000: FileType.regular,
    0o040000: FileType.directory,
    0o020000: FileType.character,
    0o060000: FileType.block,
    0o010000: FileType.fifo,
    0o140000: FileType.socket,
    0o120000: FileType.symlink,
}
_TYPES: dict[type, int] = {
    File: int(FileType.regular),
    Directory: int(FileType.directory),
    Symlink: int(FileType.symlink),
}


@dataclass(slots=True)
class Inventory:
    """Every inode of a file system that is to be written, by number; the first ordinary one is 11.

    ``nodes[number]`` is None for reserved inodes but the root. ``links`` are what the inode's field counts,
    ``directories`` the images of directories by inode number; ``lost_found`` is 0 where there is none.
    """

    root: Directory
    nodes: list[Node | None] = field(default_factory=list)
    links: array[int] = field(default_factory=lambda: array("Q"))
    directories: dict[int, DirectoryImage] = field(default_factory=dict)
    lost_found: int = 0

    def path_of(self, node: Node) -> str:
        """Return the first path of a node, for messages."""
        found = next((path for path, other in walk(self.root) if other is node), b"")
        return "/" + ascii(found.decode("utf-8", "surrogateescape"))[1:-1]


def take_inventory(root: Directory, fmt: DirectoryFormat, seed: int, lost_found: Directory | None) -> Inventory:
    """Return the numbered tree with its directories packed.

    ``seed`` starts every checksum. ``lost_found`` is entered into the root if the tree brings none of its own.
    Raises UsageError, naming the path, for names that cannot be stored, and a directory entered twice.
    """
    return _Walk(root, fmt, seed, lost_found).run()


class _Walk:
    """One pass over a tree. Not recursive, so depth is no limit."""

    def __init__(self, root: Directory, fmt: DirectoryFormat, seed: int, lost_found: Directory | None) -> None:
        self._format = fmt
        self._seed = seed
        self._lost_found = lost_found
        self._found = Inventory(root)
        self._numbers: dict[int, int] = {}

    def run(self) -> Inventory:
        found = self._found
        root = found.root
        found.nodes = [None] * ReservedInode.first_ordinary
        found.nodes[ReservedInode.root] = root
        found.links = array("Q", bytes(8 * ReservedInode.first_ordinary))
        found.links[ReservedInode.root] = 2
        self._numbers[id(root)] = ReservedInode.root
        entries = self._root_entries(root)
        stack = self._enter(ReservedInode.root, ReservedInode.root, root, entries)
        while stack:
            own, parent, directory = stack.pop()
            stack += self._enter(own, parent, directory, directory.entries)
        return found

    def _root_entries(self, root: Directory) -> dict[bytes, Node]:
        """Give lost+found its number, and return the root's entries with it."""
        node: Node | None = root.entries.get(LOST_FOUND, self._lost_found)
        if node is None:
            return root.entries
        if not isinstance(node, Directory):
            raise UsageError("/lost+found: expected a directory")
        self._numbers[id(node)] = len(self._found.nodes)
        self._found.lost_found = len(self._found.nodes)
        self._found.nodes.append(node)
        self._found.links.append(0)
        return root.entries if LOST_FOUND in root.entries else {**root.entries, LOST_FOUND: node}

    def _enter(self, own: int, parent: int, directory: Directory, entries: dict[bytes, Node]) -> list[_Below]:
        """Number the children, pack the entries, and return the subdirectories, last first."""
        names = sorted(entries)
        self._check_names(names, directory)
        numbers, nodes, links = self._numbers, self._found.nodes, self._found.links
        types, pack, pads = _TYPES, DIR_ENTRY.pack, PADS
        below: list[_Below] = []
        records: list[bytes] = []
        append = records.append
        count = len(nodes)
        for name in names:
            node = entries[name]
            file_type = types.get(type(node)) or _file_type(node)
            number = numbers.setdefault(id(node), count)
            if number == count:
                nodes.append(node)
                links.append(1)
                count += 1
            elif isinstance(node, Directory) and links[number]:
                raise UsageError(f"{self._found.path_of(node)}: expected a directory to have one name")
            else:
                links[number] += 1
            if file_type == 2:
                below.append((number, own, node))  # type: ignore[arg-type]  # the type byte says directory
            length = len(name)
            append(pack(number, length + 11 & ~3, length, file_type) + name + pads[length & 3])
        links[own] = 2 + len(below)
        self._found.directories[own] = self._image(own, parent, names, records, directory)
        below.reverse()
        return below

    def _image(
        self, own: int, parent: int, names: list[bytes], records: list[bytes], directory: Directory
    ) -> DirectoryImage:
        fmt, seed = self._format, inode_seed(self._seed, own, 0)
        body = b"".join(records)
        if own == self._found.lost_found and len(body) <= LOST_FOUND_SIZE // 4:
            return lost_found_image(fmt, own, parent, records, seed)
        if DOTS_SIZE + len(body) <= fmt.room:
            last = records[-1] if records else b""
            return linear_image(fmt, own, parent, body[: len(body) - len(last)], last, seed)
        try:
            if not fmt.levels:
                return linear_blocks_image(fmt, own, parent, records, seed)
            return indexed_image(fmt, own, parent, names, records, seed)
        except UsageError as error:
            raise UsageError(f"{self._found.path_of(directory)}: {error}") from None

    def _check_names(self, names: list[bytes], directory: Directory) -> None:
        """Refuse what no directory entry can hold."""
        joined = b"".join(names)
        if b"/" in joined or b"\0" in joined or b"." in names or b".." in names or b"" in names:
            bad = next(name for name in names if name in (b"", b".", b"..") or b"/" in name or b"\0" in name)
            raise UsageError(f"{self._found.path_of(directory)}: {_show(bad)}: is no name of a file")
        if len(joined) > MAX_NAME and max(map(len, names)) > MAX_NAME:
            bad = max(names, key=len)
            raise UsageError(
                f"{self._found.path_of(directory)}: {_show(bad)}: expected a name of at most {MAX_NAME} bytes, "
                f"found {len(bad)}"
            )


def _show(name: bytes) -> str:
    return repr(ascii(name.decode("utf-8", "surrogateescape"))[1:-1])


def _file_type(node: Node) -> int:
    """Return the file type byte of a node of any class."""
    return int(_KINDS[node.kind])
