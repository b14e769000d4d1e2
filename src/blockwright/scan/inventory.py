"""What a tree says of itself: its operating system, and which package databases it holds.

A scanner that finds no packages says "nothing is wrong". So what there is to be found is known beforehand, by the
tree's own links, and ``decision`` holds the scanner to it.

Knows: where package managers keep their databases, os-release(5). Refuses to know: scanners.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.codec.lines import lines_of
from blockwright.errors import LimitExceeded
from blockwright.scan.packages import Package, parse_dpkg
from blockwright.tree.content import Content
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File
from blockwright.units import KiB, MiB, format_size

MAX_DATABASE: Final = 256 * MiB
"""Bytes of a package database that is read here."""

MAX_RELEASE: Final = 64 * KiB
MAX_PARTS: Final = 100_000
"""Files of a package database that is a directory."""

DATABASES: Final[Mapping[bytes, str]] = {
    b"var/lib/dpkg/status": "dpkg",
    b"var/lib/dpkg/status.d": "dpkg",
    b"lib/apk/db/installed": "apk",
    b"usr/lib/apk/db/installed": "apk",
    b"var/lib/rpm/Packages": "rpm",
    b"var/lib/rpm/Packages.db": "rpm",
    b"var/lib/rpm/rpmdb.sqlite": "rpm",
    b"usr/lib/sysimage/rpm/Packages": "rpm",
    b"usr/lib/sysimage/rpm/Packages.db": "rpm",
    b"usr/lib/sysimage/rpm/rpmdb.sqlite": "rpm",
    b"usr/share/rpm/Packages": "rpm",
    b"usr/share/rpm/rpmdb.sqlite": "rpm",
    b"var/lib/pacman/local": "pacman",
}
"""Where package managers keep what is installed; the two that are directories have a file or directory for each."""

RELEASES: Final = (b"etc/os-release", b"usr/lib/os-release")
KNOWN_FILES: Final = (
    *RELEASES,
    b"etc/alpine-release",
    b"etc/debian_version",
    b"etc/lsb-release",
    b"etc/redhat-release",
    b"etc/system-release",
    *(path for path in DATABASES if not path.endswith((b".d", b"local"))),
)
"""Files that scanners look for by their path: what a tree has there through links they get as files."""

SYSTEM_KINDS: Final = ("alpm", "apk", "deb", "rpm")
"""Package URLs' types of what an operating system consists of."""

_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class PackageDatabase:
    """One database: of which package manager, where, and how many packages it has, None where that is not known."""

    manager: str
    path: bytes
    packages: int | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a tree says of itself. ``release`` is its os-release, ``dpkg`` what its dpkg databases have installed."""

    release: Mapping[str, str]
    databases: tuple[PackageDatabase, ...]
    dpkg: tuple[Package, ...]

    @property
    def system(self) -> str:
        """The operating system, as in ``debian 12``; empty where the tree does not say."""
        return " ".join(each for each in (self.release.get("ID", ""), self.release.get("VERSION_ID", "")) if each)

    @property
    def has_packages(self) -> bool:
        """Whether a database has packages, or cannot be counted here."""
        return any(each.packages is None or each.packages > 0 for each in self.databases)


def inventory_of(packages: Sequence[Package], name: str) -> Inventory:
    """Return what an SBOM says of a system, ``name`` being the list's: its packages of package managers, if any."""
    count = sum(each.kind in SYSTEM_KINDS for each in packages)
    return Inventory({}, (PackageDatabase("SBOM", name.encode("utf-8", "surrogateescape"), count),) * bool(count), ())


def take_inventory(root: Directory) -> Inventory:
    """Return what ``root`` says of itself. Raises Corrupt, LimitExceeded for a database that is not to be read."""
    databases: list[PackageDatabase] = []
    dpkg: list[Package] = []
    for path, manager in DATABASES.items():
        node = lookup(root, path)
        if isinstance(node, Directory):
            parts = [each for _, each in sorted(node.entries.items()) if _counts(manager, each)]
        else:
            parts = [node] if isinstance(node, File) and node.content.size else []
        if not parts:
            continue
        if len(parts) > MAX_PARTS:
            raise LimitExceeded(
                f"expected at most {MAX_PARTS} parts of a package database, found {len(parts)}", source=_text(path)
            )
        _bound(sum(part.content.size for part in parts if isinstance(part, File)), manager, path)
        count: int | None = None
        if manager == "dpkg":
            found = [each for part in parts if isinstance(part, File) for each in _dpkg(part.content, path)]
            dpkg += found
            count = len(found)
        elif manager == "apk":
            content = parts[0].content if isinstance(parts[0], File) else None
            count = None if content is None else (b"\n" + _read(content)).count(b"\nP:")
        elif manager == "pacman":
            count = len(parts)
        databases.append(PackageDatabase(manager, path, count))
    return Inventory(_release(root), tuple(databases), tuple(dpkg))


def _counts(manager: str, node: object) -> bool:
    return isinstance(node, Directory) if manager == "pacman" else isinstance(node, File)


def _dpkg(content: Content, path: bytes) -> tuple[Package, ...]:
    data = _read(content)
    # Beside each of status.d's stanzas lies a list of checksums, which has no fields.
    if path.endswith(b".d") and b"Package:" not in data:
        return ()
    return parse_dpkg(data, _text(path))


def _bound(size: int, manager: str, path: bytes) -> None:
    """Raise LimitExceeded for a database that would be read here, and is too large for that."""
    if size > MAX_DATABASE and manager in ("dpkg", "apk"):
        raise LimitExceeded(
            f"expected a package database of at most {format_size(MAX_DATABASE)}, found {format_size(size)}",
            source=_text(path),
        )


def _read(content: Content) -> bytes:
    return content.read(0, content.size)


def _release(root: Directory) -> dict[str, str]:
    for path in RELEASES:
        node = lookup(root, path)
        if isinstance(node, File):
            text = node.content.read(0, min(node.content.size, MAX_RELEASE)).decode("utf-8", "replace")
            return _assignments(text)
    return {}


def _assignments(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines_of(text):
        key, equals, value = line.strip().partition("=")
        if not equals or not _NAME.fullmatch(key):
            continue
        try:
            words = shlex.split(value[:1024])
        except ValueError:  # a quote that does not end
            words = [value[:1024]]
        found[key] = " ".join(words)
    return found


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
