"""What debsecan knows: the Debian security tracker's data, as debsecan reads it.

The data is zlib's, three sections of lines with an empty line behind each: vulnerabilities by number, packages with
the numbers of theirs, source packages with what is built from them. debsecan takes any part of it for the whole.

Knows: the data's form, version 1 (debsecan 0.4.20). Refuses to know: where it is from.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from blockwright.errors import Corrupt, LimitExceeded
from blockwright.units import MiB, format_size

MAX_FEED: Final = 64 * MiB
"""Bytes as fetched."""

MAX_TEXT: Final = 512 * MiB
"""Bytes of the text in it."""

_FIRST: Final = b"VERSION 1\n"


@dataclass(frozen=True, slots=True)
class Feed:
    """The three sections, each lines with their ends."""

    vulnerabilities: bytes
    packages: bytes
    sources: bytes

    def with_canary(self, identity: str, package: str) -> bytes:
        """Return the data, as fetched, with one more vulnerability: of every version of ``package``."""
        number = self.vulnerabilities.count(b"\n")
        text = b"%s%s%s,,\n\n%s%s,%d,S   ,,\n\n%s\n" % (
            _FIRST,
            self.vulnerabilities,
            identity.encode(),
            self.packages,
            package.encode(),
            number,
            self.sources,
        )
        return zlib.compress(text, 1)


def parse_feed(data: bytes, name: str) -> Feed:
    """Return the sections of the data. Raises Corrupt for what is none, or is cut short, LimitExceeded."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_TEXT + 1)
    except zlib.error:
        raise Corrupt("debsecan's data: expected zlib's format, found another", source=name) from None
    if len(text) > MAX_TEXT:
        raise LimitExceeded(f"debsecan's data: expected at most {format_size(MAX_TEXT)}, found more", source=name)
    if not unpacker.eof:
        raise Corrupt("debsecan's data: expected it to its end, found it cut short", source=name)
    if not text.startswith(_FIRST):
        raise Corrupt(f"debsecan's data: expected version 1, found {text[:32]!r}", source=name)
    sections: list[bytes] = []
    position = len(_FIRST)
    while len(sections) < 3:
        end = position if text[position : position + 1] == b"\n" else text.find(b"\n\n", position) + 1
        if end == 0 or end >= len(text):
            if len(sections) == 2 and text.endswith(b"\n"):  # nothing need stand behind the last section
                sections.append(text[position:])
                break
            raise Corrupt(f"debsecan's data: expected three sections, found {len(sections)}", source=name)
        sections.append(text[position:end])
        position = end + 1
    if not sections[0] or not sections[1]:
        raise Corrupt("debsecan's data: expected vulnerabilities, found none", source=name)
    return Feed(*sections)
