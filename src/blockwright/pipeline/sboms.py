"""Lists of what images hold (SBOMs), kept beside them, so that they can be judged again without their bytes.

A list is a file named after its run and its digest, which the receipt of the scan has: who comes late with another
list of the same run changes nothing, and a list that was changed is none.

Knows: their names, and when one holds. Refuses to know: who makes them, and what they say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

from blockwright.errors import IntegrityError, NotFound
from blockwright.pipeline.home import Home

_DIGITS: Final = 32
"""Of a list's digest, in its name."""
_SUFFIX: Final = ".cdx.json"


def keep(home: Home, run: str, data: bytes) -> dict[str, Any]:
    """Have a list on the disk, and return what a receipt says of it. Raises OSError."""
    from blockwright.volume.spec import write_file  # who lists images writes none

    digest = hashlib.sha256(data).hexdigest()
    os.makedirs(home.sboms, mode=0o700, exist_ok=True)
    write_file(_path(home, run, digest), data)
    return {"digest": f"sha256:{digest}", "bytes": len(data), "form": "cyclonedx"}


def path_of(home: Home, run: str, kept: Mapping[str, Any]) -> str:
    """Return where the list lies that a receipt tells of."""
    return _path(home, run, str(kept["digest"]).removeprefix("sha256:"))


def _path(home: Home, run: str, digest: str) -> str:
    return os.path.join(home.sboms, f"{run}.{digest[:_DIGITS]}{_SUFFIX}")


def is_kept(home: Home, run: str, kept: Mapping[str, Any] | None) -> bool:
    """Whether the list is there that a receipt tells of, as far as its size says."""
    if not kept or "digest" not in kept:
        return False
    try:
        return os.stat(path_of(home, run, kept)).st_size == int(kept["bytes"])
    except OSError:
        return False


def read(home: Home, run: str, kept: Mapping[str, Any] | None) -> bytes:
    """Return the list that a receipt tells of. Raises NotFound, IntegrityError."""
    if not kept or "digest" not in kept:
        why = f" ({kept['problem']})" if kept and kept.get("problem") else ""
        raise NotFound(f"{run}: no SBOM is kept of it{why}: 'blockwright fetch-and-create --sbom' makes one")
    path, size = path_of(home, run, kept), int(kept["bytes"])
    try:
        with open(path, "rb") as file:
            data = file.read(size + 1)
    except OSError as error:
        raise NotFound(f"{run}: its SBOM is not here: {path}: {str(error.strerror).lower()}") from None
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != kept["digest"]:
        raise IntegrityError(f"{run}: SBOM: expected {kept['digest']}, found another list in {path}")
    return data


def remove(home: Home, run: str) -> None:
    """Have no list of a run."""
    for name in _names(home):
        if name.partition(".")[0] == run:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(home.sboms, name))


def unneeded(home: Home, needed: Collection[str], busy: Collection[str]) -> list[str]:
    """Return the paths of lists that are none of ``needed``, nor of a run that somebody is at now."""
    found = [os.path.join(home.sboms, name) for name in _names(home) if name.partition(".")[0] not in busy]
    return [each for each in found if each not in needed]


def _names(home: Home) -> list[str]:
    try:
        return sorted(os.listdir(home.sboms))
    except FileNotFoundError:
        return []
