"""Sparse members: where the data of a file with holes lies, in the four ways that GNU tar has said it.

Old GNU headers (typeflag ``S``) hold four runs, and further blocks of 21; pax formats 0.0 and 0.1 hold them in the
extended header; format 1.0 has them as text before the data.

Knows: the four forms, and what makes a map sound. Refuses to know: where the stored bytes lie in the archive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.tree.content import Runs
from blockwright.tree.tar.layout import BLOCK, number
from blockwright.tree.tar.pax import MAX_NUMBER, MAX_SPARSE_RUNS, Extended, decimal

_SPEC: Final = "GNU tar manual, Storing Sparse Files"
_MAX_DIGITS: Final = 20

ReadExactly = Callable[[int], bytes]
"""Returns so many of the next bytes, or raises Corrupt."""


class SparseMap(NamedTuple):
    """A file of ``size`` bytes whose data runs lie one behind the other in the archive; ``consumed`` bytes were read.

    Touching runs are one, empty ones left out. ``declared`` counts them as the archive has them.
    """

    size: int
    runs: Runs
    consumed: int
    declared: int


def read_gnu_map(block: bytes, stored: int, read: ReadExactly) -> SparseMap:
    """Return the map of an old GNU sparse header, whose continuation blocks ``read`` gives.

    The header holds (offset, length) of 12 bytes each from byte 386 on, "more follows" at 482, the size at 483.
    """
    pairs: list[int] = []
    _take_pairs(pairs, block, 386, 4)
    more, consumed = block[482], 0
    while more:
        extension = read(BLOCK)
        consumed += BLOCK
        _take_pairs(pairs, extension, 0, 21)
        more = extension[504]
    return _checked(number(block[483:495], "real size"), pairs, stored, consumed)


def _take_pairs(pairs: list[int], block: bytes, start: int, count: int) -> None:
    for at in range(start, start + 24 * count, 24):
        if not block[at]:  # an unused entry
            return
        pairs += (number(block[at : at + 12], "sparse offset"), number(block[at + 12 : at + 24], "sparse length"))
    if len(pairs) > 2 * MAX_SPARSE_RUNS:
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse map: expected at most {MAX_SPARSE_RUNS} runs, found more", spec=_SPEC
        )


def is_sparse(extended: Extended) -> bool:
    """Whether a member's extended header says that it is sparse."""
    return extended.sparse is not None or extended.sparse_runs is not None


def real_name(extended: Extended) -> bytes | None:
    """Return the name that the extended header keeps for the sparse file; the member's own is made up."""
    name = (extended.sparse or {}).get(b"GNU.sparse.name")
    if name is not None and b"\0" in name:
        raise ArchiveRejected(Rejection.SPARSE, f"sparse name: expected no NUL, found {name[:64]!r}", spec=_SPEC)
    return name


def read_pax_map(extended: Extended, stored: int, read: ReadExactly) -> SparseMap:
    """Return the map of a sparse member in pax format 0.0, 0.1 or 1.0; of 1.0 it is read from the body."""
    fields = extended.sparse or {}
    version = (fields.get(b"GNU.sparse.major", b"0"), fields.get(b"GNU.sparse.minor", b""))
    if version == (b"1", b"0"):
        size = _field(fields, b"GNU.sparse.realsize")
        pairs, consumed = _read_text_map(stored, read)
        return _checked(size, pairs, stored - consumed, consumed)
    if version[0] != b"0" or version[1] not in (b"", b"0", b"1"):
        shown = b".".join(version)[:32].decode("ascii", "replace")
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse map: expected format 0.0, 0.1 or 1.0, found {shown}", spec=_SPEC
        )
    size = _field(fields, b"GNU.sparse.size")
    text = fields.get(b"GNU.sparse.map")
    if text is not None:
        words = text.split(b",", 2 * MAX_SPARSE_RUNS + 1) if text else []
        pairs = [decimal(word, "sparse map") for word in words]
    else:
        pairs = extended.sparse_runs or []
    count = fields.get(b"GNU.sparse.numblocks")
    if count is not None and 2 * decimal(count, "sparse map") != len(pairs):
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse map: expected {int(count)} runs, found {len(pairs) / 2:g}", spec=_SPEC
        )
    return _checked(size, pairs, stored, 0)


def _field(fields: dict[bytes, bytes], keyword: bytes) -> int:
    # GNU tar has written either keyword for the size, depending on its version.
    for name in (keyword, b"GNU.sparse.realsize", b"GNU.sparse.size"):
        if name in fields:
            return decimal(fields[name], "real size")
    raise ArchiveRejected(Rejection.SPARSE, f"sparse member: expected {keyword.decode()}, found none", spec=_SPEC)


def _read_text_map(stored: int, read: ReadExactly) -> tuple[list[int], int]:
    """Return the numbers of a format 1.0 map (a count, then pairs, each on a line) and its size in the body."""
    pairs: list[int] = []
    wanted, consumed, rest = None, 0, b""
    while wanted is None or len(pairs) < wanted:
        if consumed + BLOCK > stored:
            raise ArchiveRejected(
                Rejection.SPARSE, f"sparse map: expected to end within the member's {stored} bytes", spec=_SPEC
            )
        lines = (rest + read(BLOCK)).split(b"\n")
        consumed += BLOCK
        rest = lines.pop()
        for line in lines:
            if wanted is None:
                wanted = 2 * decimal(line, "sparse map")
                if wanted > 2 * MAX_SPARSE_RUNS:
                    raise ArchiveRejected(
                        Rejection.SPARSE,
                        f"sparse map: expected at most {MAX_SPARSE_RUNS} runs, found {wanted // 2}",
                        spec=_SPEC,
                    )
            elif len(pairs) < wanted:
                pairs.append(decimal(line, "sparse map"))
        if len(rest) > _MAX_DIGITS and (wanted is None or len(pairs) < wanted):
            raise ArchiveRejected(
                Rejection.SPARSE, f"sparse map: expected a number on each line, found {rest[:32]!r}", spec=_SPEC
            )
    return pairs, consumed


def _checked(size: int, pairs: list[int], stored: int, consumed: int) -> SparseMap:
    """Return the map of ``pairs`` if it is sound: ascending, within the size, and as long as what is stored."""
    if not 0 <= size <= MAX_NUMBER:
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse member: size: expected 0 to {MAX_NUMBER} bytes, found {size}", spec=_SPEC
        )
    if len(pairs) % 2:
        raise ArchiveRejected(
            Rejection.SPARSE, "sparse map: expected a length for each offset, found one missing", spec=_SPEC
        )
    if len(pairs) > 2 * MAX_SPARSE_RUNS:
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse map: expected at most {MAX_SPARSE_RUNS} runs, found more", spec=_SPEC
        )
    runs: list[tuple[int, int]] = []
    end = total = 0
    for offset, length in zip(pairs[::2], pairs[1::2], strict=True):
        if offset < end or length < 0 or offset + length > size:
            raise ArchiveRejected(
                Rejection.SPARSE,
                f"sparse map: expected ascending runs within {size} bytes, found {length} bytes at {offset}",
                spec=_SPEC,
            )
        if length and runs and offset == end and runs[-1][0] + runs[-1][1] == end:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        elif length:
            runs.append((offset, length))
        end = offset + length
        total += length
    if total != stored:
        raise ArchiveRejected(
            Rejection.SPARSE, f"sparse map: expected {stored} bytes of data, found {total}", spec=_SPEC
        )
    return SparseMap(size, tuple(runs), consumed, len(pairs) // 2)
