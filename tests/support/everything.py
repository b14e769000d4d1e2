"""A tree with at least one of everything that ext4 can hold; the same on both sides of a test."""

import stat

from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from tests.support.trees import CAPABILITY, PatternContent, acl

SECOND = 10**9


def everything(*, block_size: int = 4096, large: int = 700) -> Directory:
    """The tree, with what a block bounds as large as one allows; `large` names in its largest directory."""
    linked = File(0o640, 1000, 1001, 1_600_000_000 * SECOND + 123_456_789, content=BytesContent(b"linked"))
    link = Symlink(b"usr/bin", mtime_ns=5 * SECOND + 1)
    root: dict[bytes, Node] = {
        b"empty": File(0o600, 70_000, 80_000, 3),
        b"small": File(0o4755, 1, 2, 1_700_000_000 * SECOND + 999_999_999, content=BytesContent(b"small\n")),
        b"block": File(content=BytesContent(bytes(range(256)) * 16)),
        b"megabytes": File(content=PatternContent(5_000_001, ((0, 5_000_001),), seed=1)),
        b"sparse": File(content=PatternContent(1 << 34, ((0, 1), (1 << 33, 70_000), ((1 << 34) - 5, 5)), seed=2)),
        b"islands": File(
            content=PatternContent(4 << 20, tuple((index * 8192, 4096) for index in range(500)), seed=3)
        ),
        b"hole": File(content=PatternContent(12_345_678, (), seed=4)),
        b"first": linked,
        b"second": linked,
        b"link": link,
        b"same link": link,
        b"long link": Symlink(b"x" * 60),
        b"longest link": Symlink((b"y/" * 2048)[: block_size - 1]),
        b"short link": Symlink(b"z" * 59),
        b"null": Special(stat.S_IFCHR, 0o666, major=1, minor=3),
        b"disk": Special(stat.S_IFBLK, 0o660, 0, 6, major=259, minor=70_000),
        b"pipe": Special(stat.S_IFIFO, 0o622),
        b"socket": Special(stat.S_IFSOCK, 0o755),
        b"n" * 255: File(content=BytesContent(b"a long name")),
        b"\xff\xfe not UTF-8 \x01": File(),
        b"old": File(mtime_ns=-1_000_000_000 * SECOND - 1),
        b"far": File(mtime_ns=(1 << 33) * SECOND + 7),
        b"capable": File(0o755, xattrs={b"security.capability": CAPABILITY}),
        b"labelled": File(xattrs={b"security.selinux": b"system_u:object_r:bin_t:s0\0"}),
        b"shared": File(0o674, xattrs={b"system.posix_acl_access": acl((1234, 6))}),
        b"attributes": File(
            xattrs={
                b"user.a": b"",
                b"user.small": b"v",
                b"user.large": bytes(block_size // 2),
                b"trusted.t": b"t" * 100,
            }
        ),
        b"team": Directory(
            0o2775, 5, 6, xattrs={b"system.posix_acl_default": acl((1234, 7), default=True), b"user.d": b"d"}
        ),
        b"sticky": Directory(0o1777, mtime_ns=1),
        b"deep": _deep(60),
        b"large": Directory(
            entries={
                b"%06d-%s" % (number, b"padding " * (number % 5)): File(content=BytesContent(b"%d" % number))
                for number in range(large)
            }
        ),
    }
    return Directory(0o755, 0, 0, 1_234_567_890 * SECOND + 987_654_321, entries=root)


def _deep(depth: int) -> Directory:
    top = here = Directory()
    for level in range(depth):
        below = Directory(mtime_ns=level)
        here.entries[b"level %d" % level] = below
        here = below
    return top
