"""Sizes: constants, alignment, and their text forms.

Knows: how people write sizes and fractions. Refuses to know: what they are sizes of.
"""

from __future__ import annotations

import re

from blockwright.errors import UsageError

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30
TiB = 1 << 40

SECTOR = 512
"""Bytes in the sector that tables, loop devices and the kernel's block layer count in."""

MAX_SIZE = (1 << 63) - 1
"""The largest size of anything: off_t, and what NBD and the kernel take."""

_SUFFIXES = {"": 1, "b": 1, "s": SECTOR, "k": KiB, "m": MiB, "g": GiB, "t": TiB, "p": 1 << 50, "e": 1 << 60}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}
_SIZE = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,9})?)\s*(?P<unit>[bskmgtpe]?)(?P<rest>i?b)?", re.IGNORECASE)


def align_up(value: int, alignment: int) -> int:
    """Return the smallest multiple of ``alignment`` that is not below ``value``."""
    return -(-value // alignment) * alignment


def align_down(value: int, alignment: int) -> int:
    """Return the largest multiple of ``alignment`` that is not above ``value``."""
    return value // alignment * alignment


def ceil_div(value: int, divisor: int) -> int:
    """Return ``value / divisor`` rounded up."""
    return -(-value // divisor)


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` names: ``4096``, ``64k``, ``4G``, ``1.5GiB``, ``10MB``, ``34s``.

    A single letter and ``KiB`` count in powers of 1024, ``KB`` in powers of 1000, ``s`` in 512-byte sectors.
    Raises UsageError for anything else, for a part of a byte, and past 2**63 - 1.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"size {text[:64]!r}: expected a number with an optional unit such as 64k, 4G or 34s")
    unit, rest = match["unit"].lower(), (match["rest"] or "").lower()
    if rest and unit in ("", "b", "s"):
        raise UsageError(f"size {text[:64]!r}: the unit {match['unit']}{match['rest']!s} is not known")
    scale = _DECIMAL[unit] if rest == "b" else _SUFFIXES[unit]
    whole, _, fraction = match["number"].partition(".")
    value, remainder = divmod(int(whole + fraction) * scale, 10 ** len(fraction))
    if remainder:
        raise UsageError(f"size {text[:64]!r}: is not a whole number of bytes")
    if value > MAX_SIZE:
        raise UsageError(f"size {text[:64]!r}: is over the limit of 2**63 - 1 bytes")
    return int(value)


def parse_new_size(text: str) -> int:
    """Return the bytes of something that is to be, of which there is at least one. Raises as ``parse_size``."""
    value = parse_size(text)
    if not value:
        raise UsageError(f"size {text[:64]!r}: expected at least one byte")
    return value


def parse_fraction(text: str) -> float:
    """Return the fraction that ``text`` names: ``20%`` is 0.2. Raises UsageError outside [0, 95]%."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", text.strip())
    if match is None or not 0 <= float(match[1]) <= 95:
        raise UsageError(f"fraction {text[:64]!r}: expected a percentage from 0% to 95%")
    return float(match[1]) / 100


def format_size(value: int) -> str:
    """Return ``value`` bytes for people, in powers of 1024: ``0 B``, ``1.5 KiB``, ``64 MiB``."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            text = f"{size:.0f}" if unit == "B" or size >= 100 or size == int(size) else f"{size:.1f}"
            return f"{text} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
