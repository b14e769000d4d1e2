"""Trees for scanners: a small Debian, and one that means harm."""

import stat

from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File, Node, Special, Symlink

RELEASE = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
STATUS = b"""Package: openssl
Status: install ok installed
Architecture: amd64
Version: 3.0.1-1

Package: libssl3
Status: install ok installed
Source: openssl
Architecture: amd64
Version: 3.0.1-1
Description: a library
 whose description goes on

Package: gone
Status: deinstall ok config-files
Version: 1

Package: zlib1g
Status: install ok installed
Source: zlib (1:1.2.13.dfsg-1)
Version: 1:1.2.13.dfsg-1+b1
"""


def file(data: bytes = b"", permissions: int = 0o644) -> File:
    return File(permissions, content=BytesContent(data))


def tree_of(paths: dict[bytes, Node]) -> Directory:
    """A tree with these nodes, and the directories above them."""
    root = Directory()
    for path, node in paths.items():
        here = root
        *above, name = path.split(b"/")
        for part in above:
            below = here.entries.setdefault(part, Directory())
            assert isinstance(below, Directory)
            here = below
        here.entries[name] = node
    return root


def debian(**more: Node) -> Directory:
    """A Debian system with three packages, its release behind a link as it is there."""
    return tree_of(
        {
            b"etc/os-release": Symlink(b"../usr/lib/os-release"),
            b"usr/lib/os-release": file(RELEASE),
            b"var/lib/dpkg/status": file(STATUS),
            b"usr/bin/openssl": file(b"\x7fELF", 0o755),
            **{name.encode(): node for name, node in more.items()},
        }
    )


class Zeros(Content):
    """A file of one hole."""

    def runs(self):
        return ()

    def read_into(self, offset, buffer, /):
        buffer[:] = bytes(len(buffer))


def hostile() -> Directory:
    """Names, types and modes that a host must never have."""
    shared = file(b"shared", 0o6777)
    deep = Directory()
    here = deep
    for _ in range(300):
        below = Directory()
        here.entries[b"d"] = below
        here = below
    here.entries[b"deep"] = file(b"deep")
    closed = Directory(0)
    closed.entries[b"hidden"] = file(b"hidden", 0)
    return tree_of(
        {
            b"a\nb: Evil FOUND": file(b"newline"),
            b"-rf": file(b"dash"),
            b"\xff\xfe\x01": file(b"bytes"),
            b"closed": closed,
            b"deep": deep,
            b"dev/null": Special(stat.S_IFCHR, 0o666, major=1, minor=3),
            b"dev/sda": Special(stat.S_IFBLK, 0o666, major=8, minor=0),
            b"fifo": Special(stat.S_IFIFO, 0o666),
            b"socket": Special(stat.S_IFSOCK, 0o666),
            b"out": Symlink(b"../../../../../../../../etc"),
            b"passwd": Symlink(b"/etc/passwd"),
            b"etc/os-release": Symlink(b"/usr/lib/os-release"),
            b"usr/lib/os-release": file(RELEASE),
            b"lib": Symlink(b"usr/lib"),
            b"loop": Symlink(b"loop"),
            b"huge": File(0o644, content=Zeros(1 << 43)),
            b"setuid": shared,
            b"again": shared,
            b"x" * 255: file(b"long"),
            b"sparse": File(0o644, content=Zeros(1 << 20)),
        }
    )
