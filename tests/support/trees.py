"""Random file trees, and contents that need no memory.

Knows: where the boundaries are that trees break at. Refuses to know: file systems; what one of them cannot hold is
left out by the arguments of `trees`.
"""

import copy
import random
import stat
import struct
from collections.abc import Collection, Mapping, Sequence

from hypothesis import strategies as st

from blockwright.tree.content import BytesContent, Content, Runs
from blockwright.tree.node import NO_XATTRS, Directory, File, Node, Special, Symlink

_PATTERN = 64 * 1024

ALL_KINDS = frozenset({"file", "directory", "symlink", "device", "fifo", "socket", "hardlink"})
SIZES = (0, 1, 59, 60, 61, 127, 128, 160, 511, 512, 513, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 8192, 12289, 70000)
IDS = (0, 1, 1000, 65534, 65535, 65536, 2**31, 2**32 - 2)
SECONDS = (0, 1, -1, 86400, 1_700_000_000, 2**31 - 1, 2**31, 2**32, -(2**31), 15_032_385_535)
XATTR_SIZES = (0, 1, 3, 4, 5, 31, 32, 44, 60, 61, 64, 99, 100, 128, 255, 256, 1000)


class PatternContent(Content):
    """`size` bytes whose data lies in `runs` and follows from `seed` and the offset: any size, no memory."""

    __slots__ = ("_runs", "pattern", "seed")

    def __init__(self, size: int, runs: Runs | None = None, seed: int = 0) -> None:
        super().__init__(size)
        self._runs = (((0, size),) if size else ()) if runs is None else tuple(runs)
        self.seed = seed
        self.pattern = random.Random(seed).randbytes(_PATTERN - 7)  # no power of two: blocks differ

    def runs(self) -> Runs:
        return self._runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        assert 0 <= offset <= offset + len(buffer) <= self.size
        buffer[:] = bytes(len(buffer))
        end = offset + len(buffer)
        for start, length in self._runs:
            low, high = max(start, offset), min(start + length, end)
            if low < high:
                buffer[low - offset : high - offset] = self._data(low, high - low)

    def _data(self, offset: int, length: int) -> bytes:
        start = offset % len(self.pattern)
        return (self.pattern * (2 + length // len(self.pattern)))[start : start + length]

    def __repr__(self) -> str:
        return f"PatternContent({self.size}, {self._runs!r}, seed={self.seed})"


def content_bytes(content: Content) -> bytes:
    """All of a content that fits in memory."""
    buffer = bytearray(content.size)
    content.read_into(0, memoryview(buffer))
    return bytes(buffer)


def acl(*named: tuple[int, int], default: bool = False) -> bytes:
    """A POSIX ACL as Linux's getxattr gives it: owner rwx, named users with their bits, group, mask, other."""
    entries = [(0x01, 7, 0xFFFFFFFF)]
    entries += [(0x02, bits, uid) for uid, bits in sorted(named)]
    entries += [(0x04, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 0 if default else 4, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""`security.capability` that grants cap_net_bind_service, revision 2."""


def _name_bytes(low: int, high: int) -> st.SearchStrategy[bytes]:
    allowed = bytes(byte for byte in range(1, 256) if byte != 0x2F)
    table = bytes(allowed[i % len(allowed)] for i in range(256))
    return st.binary(min_size=low, max_size=high).map(lambda raw: raw.translate(table))


NAMES = st.one_of(
    st.text("abcXYZ019._-", min_size=1, max_size=12).map(str.encode),
    st.sampled_from([b"lost+found", b".hidden", b"a b", b"new\nline", b"A", b"a", b"\xff\xfe", "größe".encode()]),
    _name_bytes(1, 20),
    st.integers(0, 50).map(lambda i: (b"%d-" % i).ljust(255, b"n")),
    _name_bytes(254, 255),
).filter(lambda name: name not in (b".", b".."))
"""Names as Linux allows them: 1 to 255 bytes without NUL and slash."""


@st.composite
def xattrs(
    draw: st.DrawFn, *, budget: int = 3000, directory: bool = False, symlink: bool = False
) -> dict[bytes, bytes]:
    """Extended attributes of at most `budget` bytes in all, with sizes around the boundaries of an inode's tail."""
    found: dict[bytes, bytes] = {}
    choices = [b"trusted.t", b"trusted.name-that-is-longer", b"security.selinux"]
    if not symlink:
        choices += [b"user.a", b"user.b", b"user." + b"x" * 40, b"user." + b"n" * 250, b"security.capability"]
        choices += [b"system.posix_acl_access"] + [b"system.posix_acl_default"] * directory
    for name in draw(st.lists(st.sampled_from(choices), max_size=4, unique=True)):
        if name.startswith(b"system.posix_acl"):
            users = draw(st.lists(st.sampled_from(IDS[:-1]), max_size=3, unique=True))
            value = acl(*[(uid, 4) for uid in users or [1000]])
        elif name == b"security.capability":
            value = CAPABILITY
        elif name == b"security.selinux":
            value = b"system_u:object_r:etc_t:s0\0"
        else:
            value = bytes([draw(st.integers(0, 255))]) * draw(st.sampled_from(XATTR_SIZES))
        cost = 32 + len(name) + len(value)
        if cost <= budget:
            budget -= cost
            found[name] = value
    return found


@st.composite
def contents(draw: st.DrawFn, *, sparse: bool = True, block_size: int = 4096) -> Content:
    """A file's content: empty, small, of boundary sizes, with holes, with more runs than an inode or a leaf holds."""
    shape = draw(st.sampled_from(["plain", "plain", "bytes"] + ["holes", "tail", "many", "huge"] * sparse))
    seed = draw(st.integers(0, 5))
    if shape == "bytes":
        return BytesContent(draw(st.binary(max_size=80)))
    if shape == "plain":
        return PatternContent(draw(st.sampled_from(SIZES)), seed=seed)
    if shape == "tail":
        hole = draw(st.sampled_from([1, block_size, 10 * block_size]))
        return PatternContent(100 + hole, ((0, 100),), seed)
    if shape == "huge":
        size = draw(st.sampled_from([2**31, 2**32 + 5, 2**40]))
        return PatternContent(size, ((size // 2, 3 * block_size), (size - 1, 1)), seed)
    count = draw(st.sampled_from([1, 2, 4, 5, 6])) if shape == "holes" else draw(st.sampled_from([90, 341, 345, 700]))
    gap = draw(st.sampled_from([block_size, 3 * block_size]))
    start = draw(st.sampled_from([0, block_size, 5 * block_size + 17]))
    runs = tuple((start + i * (block_size + gap), block_size) for i in range(count))
    return PatternContent(runs[-1][0] + block_size + draw(st.sampled_from([0, 1, gap])), runs, seed)


@st.composite
def _special(draw: st.DrawFn, kind: str, metadata: dict[str, object]) -> Special:
    kinds = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}
    if kind in kinds:
        return Special(kinds[kind], **metadata)  # type: ignore[arg-type]  # keywords of Node
    return Special(
        draw(st.sampled_from([stat.S_IFCHR, stat.S_IFBLK])),
        major=draw(st.sampled_from([0, 1, 255, 256, 4095])),
        minor=draw(st.sampled_from([0, 3, 255, 256, 2**20 - 1])),
        **metadata,  # type: ignore[arg-type]  # keywords of Node
    )


def _permissions(what: str, attributes: Mapping[bytes, bytes]) -> st.SearchStrategy[int]:
    if what == "symlink":
        return st.just(0o777)
    strategy = st.sampled_from([0, 0o644, 0o755, 0o4755, 0o1777, 0o7777])
    if b"system.posix_acl_access" in attributes:  # what `acl` says; the kernel keeps the two alike
        return strategy.map(lambda bits: bits & 0o7000 | 0o774)
    return strategy


@st.composite
def trees(
    draw: st.DrawFn,
    *,
    max_nodes: int = 25,
    kinds: Collection[str] = ALL_KINDS,
    names: st.SearchStrategy[bytes] = NAMES,
    sparse: bool = True,
    with_xattrs: bool = True,
    xattr_budget: int = 3000,
    block_size: int = 4096,
    seconds: Sequence[int] = SECONDS,
    granularity_ns: int = 1,
) -> Directory:
    """A tree of at most `max_nodes` names: any depth, every kind in `kinds`, hard links to all but directories.

    FAT's would be `trees(kinds={"file", "directory"}, names=…, with_xattrs=False, sparse=False, granularity_ns=…)`.
    `huge` contents are up to 1 TiB and nearly all hole; `sparse=False` keeps contents below 100 KB.
    """
    choices = sorted(kinds)

    def metadata(what: str) -> dict[str, object]:
        nanoseconds = draw(st.sampled_from([0, 1, 500_000_000, 999_999_999]))
        time = draw(st.sampled_from(seconds)) * 10**9 + nanoseconds
        attributes = NO_XATTRS
        if with_xattrs and what in ("file", "directory", "symlink") and draw(st.booleans()):
            attributes = draw(xattrs(budget=xattr_budget, directory=what == "directory", symlink=what == "symlink"))
        return {
            "permissions": draw(_permissions(what, attributes)),
            "uid": draw(st.sampled_from(IDS)),
            "gid": draw(st.sampled_from(IDS)),
            "mtime_ns": time // granularity_ns * granularity_ns,
            "xattrs": attributes,
        }

    root = Directory(**metadata("directory"))  # type: ignore[arg-type]  # keywords of Node
    directories, others = [root], []
    for _ in range(draw(st.integers(0, max_nodes))):
        # The newest directory half of the time, so that depth grows.
        parent = directories[-1] if draw(st.booleans()) else draw(st.sampled_from(directories))
        name = draw(names)
        if name in parent.entries:
            continue
        kind = draw(st.sampled_from(choices))
        node: Node
        if kind == "hardlink":
            if not others:
                continue
            node = draw(st.sampled_from(others))
        elif kind == "directory":
            node = Directory(**metadata(kind))  # type: ignore[arg-type]  # keywords of Node
            directories.append(node)
        elif kind == "file":
            body = draw(contents(sparse=sparse, block_size=block_size))
            node = File(**metadata(kind), content=body)  # type: ignore[arg-type]  # keywords of Node
        elif kind == "symlink":
            length = draw(st.sampled_from([1, 58, 59, 60, 61, 255, 1000, 1023]))
            node = Symlink(draw(st.sampled_from([b"../x", b"/etc/x", b"t"])).ljust(length, b"s"), **metadata(kind))  # type: ignore[arg-type]  # keywords of Node
        else:
            node = draw(_special(kind, metadata(kind)))
        parent.entries[name] = node
        if not isinstance(node, Directory):
            others.append(node)
    return root


def deep_tree(depth: int, name: bytes = b"d") -> Directory:
    """Directories below one another, `depth` of them, with one file in the last."""
    root = current = Directory()
    for _ in range(depth):
        child = Directory()
        current.entries[name] = child
        current = child
    current.entries[b"bottom"] = File(content=BytesContent(b"deep\n"))
    return root


def wide_tree(count: int, name_length: int = 12) -> Directory:
    """One directory of `count` empty files; long names make it two htree levels deep sooner."""
    entries: dict[bytes, Node] = {b"%0*d" % (name_length, i): File() for i in range(count)}
    return Directory(entries={b"wide": Directory(entries=entries)})


def shuffled(directory: Directory, source: random.Random) -> Directory:
    """The same tree with its entries made in another order."""
    seen = {}

    def again(node):
        if id(node) not in seen:
            seen[id(node)] = copy.copy(node)
            if isinstance(node, Directory):
                names = list(node.entries)
                source.shuffle(names)
                seen[id(node)].entries = {name: again(node.entries[name]) for name in names}
        return seen[id(node)]

    return again(directory)
