"""What files a pool's folder has, and which volumes they are, by their names and headers alone.

Knows: which of several files is a volume's own. Refuses to know: the journal.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass

from blockwright.device.file import FileDevice
from blockwright.errors import FormatError
from blockwright.format.qcow2.open import read_header
from blockwright.volume.file.layers import FileName, parse_file_name

MAX_FILES = 1 << 20
"""Files of a folder that are looked at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file: what its name says, its disk's ``size``, and the file that it ``stands_on``, None for none."""

    name: FileName
    size: int
    stands_on: str | None


def files_in(folder: str) -> list[str]:
    """Return the names in the folder, sorted. Raises OSError."""
    return sorted(os.listdir(folder))[:MAX_FILES]


def used_bytes(folder: str) -> int:
    """Return how much of its disk the files in the folder take."""
    used = 0
    for name in files_in(folder):
        with suppress(FileNotFoundError):
            status = os.lstat(os.path.join(folder, name))
            used += int(getattr(status, "st_blocks", -(-status.st_size // 512))) * 512
    return used


def free_bytes(folder: str) -> int:
    """Return how much the folder's disk has left."""
    if sys.platform == "win32":
        import shutil

        return shutil.disk_usage(folder).free
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def look_at(folder: str, names: list[str]) -> dict[str, Seen]:
    """Return what can be told of the files among ``names`` that are layers and sound, by file name."""
    found: dict[str, Seen] = {}
    for text in names:
        name = parse_file_name(text)
        if name is None:
            continue
        try:
            with FileDevice(os.path.join(folder, text), force_unlocked=True) as file:
                if name.form == "raw":
                    found[text] = Seen(name, file.size, None)
                    continue
                header = read_header(file)
        except (FormatError, OSError):
            continue
        below = None if header.backing_file is None else header.backing_file.decode("utf-8", "replace")
        found[text] = Seen(name, header.record.size, below)
    return found


def heads_of(seen: dict[str, Seen]) -> dict[int, Seen]:
    """Return each volume's own file: the newest of those named for it that nothing else stands on, by volume."""
    under = {each.stands_on for each in seen.values()}
    heads: dict[int, Seen] = {}
    for text, each in seen.items():
        if not each.name.volume or text in under or not _stands(each, seen):
            continue
        other = heads.get(each.name.volume)
        if other is None or other.name.layer < each.name.layer:
            heads[each.name.volume] = each
    return heads


def chain_of(head: Seen, seen: dict[str, Seen]) -> list[Seen]:
    """Return the files that make a volume, its own first."""
    chain = [head]
    while (below := chain[-1].stands_on) is not None and len(chain) <= len(seen):
        chain.append(seen[below])
    return chain


def _stands(each: Seen, seen: dict[str, Seen]) -> bool:
    """Whether all that a file stands on is there, and does not lead back to it."""
    met = 0
    while each.stands_on is not None:
        below = seen.get(each.stands_on)
        met += 1
        if below is None or met > len(seen):
            return False
        each = below
    return True
