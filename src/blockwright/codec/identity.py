"""Identities that follow from a seed: the same input gives the same UUIDs, volume numbers and hash seeds.

Each use names its purpose, so two identities of one build never coincide and none changes when another is added.

Knows: how a seed and a purpose become bytes. Refuses to know: what the seed stands for, and any random source.
"""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID

_VERSION: Final = 8
_DOMAIN: Final = b"blockwright identity 1"


def derive_bytes(seed: bytes, purpose: str, length: int) -> bytes:
    """Return ``length`` bytes, at most 64, that follow from ``seed`` and ``purpose`` alone.

    SHA-512 over the domain, the seed and the purpose, each behind its length in 8 bytes, so that no two pairs run
    into one another. A shorter result is the beginning of a longer one.
    """
    assert 0 <= length <= 64, f"identity: {length} bytes asked for"
    state = hashlib.sha512()
    for part in (_DOMAIN, seed, purpose.encode()):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()[:length]


def derive_uuid(seed: bytes, purpose: str) -> UUID:
    """Return the UUID that follows from ``seed`` and ``purpose``: version 8 (RFC 9562 section 5.8), variant 10."""
    value = int.from_bytes(derive_bytes(seed, purpose, 16), "big")
    value = value & ~(0xF << 76) | _VERSION << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def derive_u32(seed: bytes, purpose: str) -> int:
    """Return an unsigned 32-bit number, never 0, that follows from ``seed`` and ``purpose``.

    Zero stands for "not set" wherever such a number is stored (a FAT volume id, an MBR disk signature).
    """
    return int.from_bytes(derive_bytes(seed, purpose, 4), "big") or 1
