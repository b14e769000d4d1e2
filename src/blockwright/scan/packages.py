"""Packages as package databases and SBOMs list them.

Knows: Debian's control stanzas (deb-control(5), Debian Policy 5.1), package URLs (purl specification 1.0). Refuses to
know: where the texts come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from blockwright.errors import Corrupt, LimitExceeded

MAX_PACKAGES: Final = 1_000_000
MAX_FIELD: Final = 4096
"""Bytes of a field that is kept."""

_PURL: Final = re.compile(r"pkg:([A-Za-z][A-Za-z0-9.+-]*)/([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_SOURCE: Final = re.compile(r"([^\s()]+)(?:\s*\(\s*([^\s()]+)\s*\))?")
_KEPT: Final = (b"package", b"version", b"status", b"source", b"architecture")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package. ``kind`` is purl's type (deb, apk, rpm, npm, …); empty texts for what nobody said.

    ``source`` and ``source_version`` are what it was built from, where that differs from its own.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    source_version: str = ""
    distribution: str = ""


def parse_dpkg(data: bytes, name: str) -> tuple[Package, ...]:
    """Return the packages that a dpkg database has installed; a stanza without a status is installed.

    ``name`` is what messages call it. Raises Corrupt for what is no stanza, LimitExceeded.
    """
    found: list[Package] = []
    for stanza in _stanzas(data, name):
        status = stanza.get(b"status", "install ok installed").split()
        if status[-1:] != ["installed"]:
            continue
        if not stanza.get(b"package") or not stanza.get(b"version"):
            keys = ", ".join(sorted(key.decode() for key in stanza if key)) or "neither"
            raise Corrupt(f"dpkg database: expected a package and its version, found {keys}", source=name)
        source = _SOURCE.fullmatch(stanza.get(b"source", "").strip())
        found.append(
            Package(
                "deb",
                stanza[b"package"],
                stanza[b"version"],
                stanza.get(b"architecture", ""),
                source[1] if source else "",
                (source[2] or "") if source else "",
            )
        )
        if len(found) > MAX_PACKAGES:
            raise LimitExceeded(f"dpkg database: expected at most {MAX_PACKAGES} packages, found more", source=name)
    return tuple(found)


def _stanzas(data: bytes, name: str) -> Iterator[dict[bytes, str]]:
    stanza: dict[bytes, str] = {}
    position = 0
    for full in data.split(b"\n"):
        line = full.rstrip(b"\r")
        if not line.strip():
            if stanza:
                yield stanza
            stanza = {}
        elif line[:1] not in (b" ", b"\t"):
            key, colon, value = line.partition(b":")
            if not colon:
                raise Corrupt(f"dpkg database: expected a field, found {line[:40]!r}", source=name, offset=position)
            key = key.lower()
            if key in _KEPT:
                if len(value) > MAX_FIELD:
                    raise LimitExceeded(
                        f"dpkg database: expected at most {MAX_FIELD} bytes in a field, found {len(value)}",
                        source=name,
                        offset=position,
                    )
                stanza[key] = value.strip().decode("utf-8", "replace")
            else:
                stanza.setdefault(b"", "")
        position += len(full) + 1
    if stanza:
        yield stanza


def parse_purl(text: str) -> Package | None:
    """Return the package that a package URL names, None where it is none or names no version."""
    match = _PURL.fullmatch(text.strip()) if len(text) <= MAX_FIELD else None
    if match is None:
        return None
    path, at, version = match[2].strip("/").rpartition("@")
    if not at or not path or not version:
        return None
    qualifiers: dict[str, str] = {}
    for each in (match[3] or "").split("&"):
        key, _, value = each.partition("=")
        qualifiers[key.lower()] = unquote(value, errors="replace")
    source, _, source_version = qualifiers.get("upstream", "").partition("@")
    kind = match[1].lower()
    parts = [unquote(part, errors="replace") for part in path.split("/")]
    # A distribution's packages are told apart by name alone, others' by their name space too.
    name = parts[-1] if kind in ("deb", "apk", "rpm") else "/".join(parts)
    return Package(
        kind,
        name,
        unquote(version, errors="replace"),
        qualifiers.get("arch", ""),
        source,
        source_version,
        qualifiers.get("distro", ""),
    )
