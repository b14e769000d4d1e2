"""Archives that attack whoever unpacks them, class by class, made header by header; and what each must come to.

The numbers are those of a table of classes: names upwards (1), links (2 to 7), races (8), devices (9, 10),
duplicates (11), sizes (12 to 14), headers (15), bytes of names (16, 17), bombs (18), counts (19), whiteouts (20),
attributes (21), owners and times (22), manifests (23) and archives of archives (24).
"""

import gzip
import lzma
from collections.abc import Iterator
from typing import NamedTuple

from blockwright.errors import Rejection
from blockwright.tree.rules import ArchiveRules
from tests.support.oci import docker
from tests.support.tarmaker import END, GNU, archive, base256, header, long_name, member, padded, pax, record


class Attack(NamedTuple):
    """An archive, and its outcome: the reason it is refused for, or the paths that the tree then has."""

    number: int
    name: str
    data: bytes
    outcome: Rejection | frozenset[bytes]
    rules: ArchiveRules = ArchiveRules()

    @property
    def id(self) -> str:
        """What a test is called."""
        return f"{self.number}-{self.name}"


def tree(*paths: bytes) -> frozenset[bytes]:
    """The paths of a tree, its root left out."""
    return frozenset(paths)


def image_attacks() -> list[Attack]:
    """Container images that attack: whiteouts, documents and links (classes 20, 23 and 24)."""
    return [Attack(*each) for each in _images()]


UP = b"../" * 12
ESCAPE = UP + b"tmp/blockwright-escaped"


def attacks() -> list[Attack]:
    """All of them."""
    return [Attack(*each) for part in (_names(), _links(), _nodes(), _sizes(), _bytes(), _bombs()) for each in part]


def _names() -> Iterator[tuple]:
    """Class 1: paths that lead out of where they are unpacked."""
    for name, path in {
        "dotdot": b"../escaped",
        "many-dotdots": ESCAPE,
        "dotdot-inside": b"a/../../escaped",
        "dotdot-behind": b"a/..",
        "absolute-dotdot": b"/../escaped",
    }.items():
        yield 1, name, archive(member(path, b"x")), Rejection.NAME
        yield 1, f"pax-{name}", archive(pax((b"path", path)) + member(b"f", b"x")), Rejection.NAME
        yield 1, f"gnu-{name}", archive(long_name(path) + member(b"f", b"x")), Rejection.NAME
    yield 1, "absolute", archive(member(b"/etc/passwd", b"x")), tree(b"etc", b"etc/passwd")
    yield 1, "slashes", archive(member(b"//a//./b", b"x")), tree(b"a", b"a/b")
    yield 1, "trailing-dot", archive(header(b"a/.", kind=b"5")), tree(b"a")


def _links() -> Iterator[tuple]:
    """Classes 2 to 7: what symbolic and hard links have been used for."""
    out = header(b"l", kind=b"2", link=ESCAPE)
    yield (
        2,
        "write-through-a-link",
        archive(out, member(b"l/f", b"x")),
        tree(b"l", b"tmp", b"tmp/blockwright-escaped", b"tmp/blockwright-escaped/f"),
    )
    yield 2, "file-over-a-link", archive(out, member(b"l", b"x")), tree(b"l")
    yield (
        2,
        "two-steps",
        archive(
            header(b"d", kind=b"5"),
            header(b"d/cur", kind=b"2", link=b"."),
            header(b"d/par", kind=b"2", link=b"cur/.."),
            member(b"d/par/f", b"x"),
        ),
        tree(b"d", b"d/cur", b"d/par", b"f"),
    )
    yield 2, "a-circle", archive(header(b"l", kind=b"2", link=b"l"), member(b"l/f", b"x")), Rejection.LINK
    yield 3, "absolute-target", archive(header(b"l", kind=b"2", link=b"/etc/shadow")), tree(b"l")
    yield 3, "target-outside", archive(out), tree(b"l")
    yield 3, "target-with-newline", archive(header(b"l", kind=b"2", link=b"a\nb")), tree(b"l")
    for name, target in (("dotdot", UP + b"etc/passwd"), ("dotdot-inside", b"a/../../etc/passwd")):
        yield 4, f"hard-link-{name}", archive(header(b"h", kind=b"1", link=target)), Rejection.NAME
    yield 4, "hard-link-absolute", archive(header(b"h", kind=b"1", link=b"/etc/passwd")), Rejection.LINK
    yield 4, "hard-link-to-a-directory", archive(header(b"h", kind=b"1", link=b"/")), Rejection.LINK
    yield 4, "hard-link-through-a-link", archive(out, header(b"h", kind=b"1", link=b"l/passwd")), Rejection.LINK
    yield 5, "hard-link-to-a-link", archive(out, header(b"h", kind=b"1", link=b"l")), tree(b"l", b"h")
    yield (
        5,
        "write-through-it",
        archive(out, header(b"h", kind=b"1", link=b"l"), member(b"h", b"x")),
        tree(b"l", b"h"),
    )
    yield (
        5,
        "write-below-it",
        archive(
            header(b"a", kind=b"5"),
            header(b"a/up", kind=b"2", link=UP + b"tmp"),
            header(b"h", kind=b"1", link=b"a/up"),
            member(b"h/blockwright-escaped", b"x"),
        ),
        tree(b"a", b"a/up", b"h", b"tmp", b"tmp/blockwright-escaped"),
    )
    for name in (b"/.", b".", b"./", b"/"):
        shown = name.decode().replace("/", "s").replace(".", "d")
        yield 6, f"root-as-a-link-{shown}", archive(header(name, kind=b"2", link=b"/tmp")), Rejection.PLACE
        yield 6, f"root-as-a-fifo-{shown}", archive(header(name, kind=b"6")), Rejection.PLACE
    yield (
        7,
        "metadata-through-a-link",
        archive(header(b"l", kind=b"2", link=b"/tmp"), header(b"l", kind=b"5", mode=0o777, uid=1234, mtime=1)),
        tree(b"l"),
    )
    yield (
        7,
        "metadata-by-hard-link",
        archive(header(b"l", kind=b"2", link=b"/tmp", mode=0o4777), header(b"h", kind=b"1", link=b"l", mode=0o4777)),
        tree(b"l", b"h"),
    )
    yield (
        8,
        "directory-then-link",
        archive(
            header(b"d", kind=b"5"), header(b"d", kind=b"2", link=b"/tmp"), member(b"d/blockwright-escaped", b"x")
        ),
        tree(b"d", b"tmp", b"tmp/blockwright-escaped"),
    )


def _nodes() -> Iterator[tuple]:
    """Classes 9 to 11, 21 and 22: devices, FIFOs, duplicates, attributes, owners and times."""
    yield 9, "disk-device", archive(header(b"sda", kind=b"4", major=8, mode=0o666)), tree(b"sda")
    yield 9, "memory-device", archive(header(b"mem", kind=b"3", major=1, minor=1)), tree(b"mem")
    yield 9, "numbers-cut", archive(header(b"x", kind=b"3", major=base256(2**32 + 1, 8))), Rejection.DEVICE
    yield 9, "setuid", archive(member(b"su", b"x", mode=0o4755), member(b"sg", b"x", mode=0o2755)), tree(b"su", b"sg")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    capable = pax((b"SCHILY.xattr.security.capability", capability)) + member(b"f", b"x")
    yield 9, "capability", archive(capable), tree(b"f")
    yield 10, "fifo", archive(header(b"p", kind=b"6", mode=0o666)), tree(b"p")
    yield 10, "file-over-a-fifo", archive(header(b"p", kind=b"6"), member(b"p", b"x")), tree(b"p")
    yield 11, "twice", archive(member(b"f", b"1"), member(b"f", b"2")), tree(b"f")
    yield 11, "file-then-directory", archive(member(b"f", b"1"), member(b"f/g", b"2")), Rejection.PLACE
    yield (
        11,
        "directory-then-link-that-holds-something",
        archive(member(b"d/f", b"1"), header(b"d", kind=b"2", link=b"/tmp")),
        Rejection.PLACE,
    )
    for name in (b"trusted.overlay.opaque", b"security.selinux", b"security.ima", b"system.nfs4_acl", b"user.ok"):
        data = archive(pax((b"SCHILY.xattr." + name, b"y")) + member(b"f", b"x"))
        yield 21, name.decode(), data, tree(b"f")
    yield 21, "nul", archive(pax((b"SCHILY.xattr.user.a\0b", b"y")) + member(b"f")), Rejection.XATTR
    many = [(b"SCHILY.xattr.user.%d" % i, b"y") for i in range(2000)]
    yield 21, "too-many", archive(pax(*many) + member(b"f")), Rejection.METADATA_BYTES
    large = [(b"SCHILY.xattr.user.a", b"y" * 65537)]
    yield 21, "too-large", archive(pax(*large) + member(b"f")), Rejection.METADATA_BYTES
    for name, uid in (("negative", base256(-1, 8)), ("none", base256(2**32 - 1, 8)), ("over", base256(2**32, 8))):
        yield 22, f"uid-{name}", archive(header(b"f", uid=uid)), Rejection.OWNER
        yield 22, f"gid-{name}", archive(header(b"f", gid=uid)), Rejection.OWNER
    yield 22, "pax-uid", archive(pax((b"uid", b"%d" % 2**32)) + header(b"f")), Rejection.OWNER
    yield 22, "late", archive(header(b"f", mtime=base256(2**60, 12))), tree(b"f")
    yield 22, "early", archive(header(b"f", mtime=base256(-(2**60), 12))), tree(b"f")
    yield 22, "no-time", archive(header(b"f", mtime=base256(2**80, 12))), Rejection.TIME


def _sizes() -> Iterator[tuple]:
    """Classes 12 to 15: sizes, maps of holes, two sizes for one member, headers without end."""
    for name, size in (("negative", -512), ("minus-one", -1), ("over", 2**63), ("spin", 2**63 - 1), ("huge", 2**62)):
        reason = Rejection.SIZE if not 0 <= size < 2**63 else Rejection.BYTES
        yield 12, name, archive(header(b"f", size=base256(size, 12))), reason
    yield 12, "beyond-the-archive", archive(header(b"f", size=10**6)), Rejection.TRUNCATED
    sparse = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")]
    count = padded(b"99999999\n")
    yield 13, "count", archive(pax(*sparse) + member(b"f", count)), Rejection.SPARSE
    yield 13, "no-end", archive(pax(*sparse) + member(b"f", b"1" * 1024)), Rejection.SPARSE
    old = {386: base256(0, 12) + base256(2**62, 12), 483: base256(2**62, 12)}
    yield 13, "old-gnu", archive(header(b"f", kind=b"S", magic=GNU, patches=old)), Rejection.SPARSE
    hole = [(b"GNU.sparse.size", b"%d" % 2**62), (b"GNU.sparse.map", b"0,1")]
    yield 13, "logical-size", archive(pax(*hole) + member(b"f", b"x")), Rejection.BYTES
    overlap = [(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,2,1,2")]
    yield 13, "overlap", archive(pax(*overlap) + member(b"f", b"1234")), Rejection.SPARSE
    inner = archive(member(b"smuggled", b"x"))
    size = b"%d" % len(inner)
    yield 14, "pax-size-over-zero", archive(pax((b"size", size)) + header(b"f") + inner), tree(b"f")
    yield 14, "two-sizes", archive(pax((b"size", size)) + header(b"f", size=512) + inner), Rejection.SIZE
    yield 14, "smaller", archive(pax((b"size", b"0")) + header(b"f", size=len(inner)) + inner), Rejection.SIZE
    full = header(b"f", size=b"77777777777\0")
    yield 14, "saturated", archive(pax((b"size", size)) + full + inner), tree(b"f")
    long = pax((b"size", size)) + long_name(b"n" * 150) + header(b"x") + inner
    yield 14, "not-of-the-long-name", archive(long), tree(b"n" * 150)
    yield 14, "global", archive(pax((b"size", b"512"), kind=b"g") + header(b"f") + inner), Rejection.EXTENDED
    yield 14, "global-name", archive(pax((b"path", b"g"), kind=b"g") + header(b"f")), Rejection.EXTENDED
    for kind in (b"x", b"g"):
        data = header(b"x", kind=kind, size=2**32)
        yield 15, f"extended-header-{kind.decode()}", archive(data), Rejection.HEADER_BYTES
    yield 15, "long-name", archive(header(b"x", kind=b"L", size=2**31)), Rejection.NAME
    yield 15, "no-progress", archive(member(b"x", b"0 path=a\n", kind=b"x") + header(b"f")), Rejection.EXTENDED
    yield 15, "digits", archive(member(b"x", b"1" * 4000, kind=b"x") + header(b"f")), Rejection.EXTENDED
    comment = member(b"x", record(b"comment", b"x" * 1000), kind=b"x")
    yield 15, "without-a-member", archive(*[comment] * 50), Rejection.EXTENDED
    yield 15, "component", archive(pax((b"path", b"n" * 256)) + header(b"f")), Rejection.NAME
    yield 15, "path", archive(pax((b"path", b"n/" * 2049)) + header(b"f")), Rejection.NAME
    yield 15, "target", archive(pax((b"linkpath", b"n" * 4096)) + header(b"l", kind=b"2")), Rejection.LINK


def _bytes() -> Iterator[tuple]:
    """Classes 16 and 17: what some file systems take for something else."""
    for where in (b"path", b"linkpath"):
        data = archive(pax((where, b"a\0b")) + header(b"l", kind=b"2", link=b"x"))
        yield 16, f"nul-in-{where.decode()}", data, Rejection.EXTENDED
    yield 16, "nul-in-a-long-name", archive(long_name(b"a\0b") + header(b"f")), Rejection.NAME
    sparse = [(b"GNU.sparse.name", b"a\0b"), (b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", b"")]
    yield 16, "nul-in-a-sparse-name", archive(pax(*sparse) + header(b"f")), Rejection.SPARSE
    yield 16, "backslash", archive(member(b"..\\..\\f", b"x")), tree(b"..\\..\\f")
    yield 16, "drive", archive(member(b"C:f", b"x")), tree(b"C:f")
    yield 16, "digits", archive(member(b"0123", b"x")), tree(b"0123")
    yield 16, "not-utf-8", archive(member(b"\xff\xfe", b"x")), tree(b"\xff\xfe")
    names = (b"A", b"a", "\u00e9".encode(), "e\u0301".encode())
    yield 17, "fold", archive(*[member(name, name) for name in names]), tree(*names)
    data = archive(header(b"A", kind=b"2", link=b"/tmp"), member(b"a/f", b"x"))
    yield 17, "link-by-other-case", data, tree(b"A", b"a", b"a/f")


def _bombs() -> Iterator[tuple]:
    """Classes 18 and 19: much of little, many, and deep."""
    body = member(b"f", bytes(40 << 20))
    small = ArchiveRules(ratio_from=1 << 20)
    yield 18, "gzip", gzip.compress(archive(body), mtime=0), Rejection.RATIO, small
    yield 18, "gzip-bytes", gzip.compress(archive(body), mtime=0), Rejection.BYTES, ArchiveRules(size=1 << 20)
    yield 18, "xz", lzma.compress(archive(body)), Rejection.RATIO, small
    pieces = [gzip.compress(piece, mtime=0) for piece in (body[:512], *[bytes(4 << 20)] * 10, END)]
    yield 18, "concatenated", b"".join(pieces), Rejection.RATIO, small
    yield 18, "nested", archive(member(b"bomb.gz", gzip.compress(bytes(1 << 20), mtime=0))), tree(b"bomb.gz")
    memory = lzma.compress(archive(header(b"f")), preset=9)
    yield 18, "decoder-memory", memory, Rejection.MEMORY, ArchiveRules(memory=1 << 20)
    many = archive(*[header(b"%d" % i) for i in range(101)])
    yield 19, "entries", many, Rejection.ENTRIES, ArchiveRules(entries=100)
    yield (
        19,
        "implied",
        archive(pax((b"path", b"d/" * 101 + b"f")) + header(b"f")),
        Rejection.ENTRIES,
        ArchiveRules(entries=100),
    )
    yield 19, "depth", archive(pax((b"path", b"d/" * 257 + b"f")) + header(b"f")), Rejection.DEPTH
    yield 19, "time", gzip.compress(archive(header(b"f"))), Rejection.SECONDS, ArchiveRules(time_s=0)
    turns = [header(b"l%d" % i, kind=b"2", link=b"d/../" * 19 + b"l%d" % (i + 1)) for i in range(39)]
    chain = archive(header(b"d", kind=b"5"), *turns, header(b"l39", kind=b"2", link=b"d"), header(b"l0/x"))
    yield 19, "links", chain, tree(b"d", b"d/x", *[b"l%d" % i for i in range(40)])


def _images() -> Iterator[tuple]:
    """Classes 20, 23 and 24: what needs layers and documents about them."""
    lower = archive(header(b"d", kind=b"5"), member(b"d/a", b"1"), header(b"l", kind=b"2", link=UP + b"tmp"))
    for name in (b".wh.", b".wh...", b".wh..", b".wh.a/b", b"../.wh.x"):
        shown = name.decode().replace("/", "s")
        yield 20, f"whiteout-{shown}", docker([lower, archive(header(name))]), Rejection.WHITEOUT
    through = archive(header(b"l/.wh.blockwright-kept"), header(b"l/.wh..wh..opq"), member(b"l/f", b"x"))
    yield 20, "through-a-link", docker([lower, through]), tree(b"d", b"d/a", b"l", b"tmp", b"tmp/f")
    named = archive(header(b"d/.wh.a", kind=b"1", link=b"d/a"))
    yield 20, "as-a-hard-link", docker([lower, named]), tree(b"d", b"l")
    escape = ["/etc/passwd", "../../../../../../etc/passwd"]
    for number, name in enumerate(escape):
        yield 23, f"layer-{number}", docker([lower], patch={"Layers": [name]}), Rejection.MANIFEST
        yield 23, f"configuration-{number}", docker([lower], patch={"Config": name}), Rejection.MANIFEST
        link = header(b"out.tar", kind=b"2", link=name.encode())
        yield 24, f"link-{number}", link + docker([lower], patch={"Layers": ["out.tar"]}), Rejection.MANIFEST
    yield 24, "links-within", docker([lower], links=True), tree(b"d", b"d/a", b"l")
