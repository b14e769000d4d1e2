"""Blobs by their digests in a directory of the host: fetched once, by whoever comes first, and verified.

A blob that is there was verified and synced before it got its name. One that is being fetched has ``.part`` behind
its name and a lock on it; a process that dies leaves a part whose bytes are verified and used by the next one.

Knows: files and locks. Refuses to know: where bytes come from.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from blockwright.device.descriptor import naming_full
from blockwright.errors import ConnectionLost, IntegrityError, LimitExceeded
from blockwright.oci.manifest import ALGORITHMS, hasher_of, parse_digest

MAX_BLOB: Final = 1 << 40
"""Bytes of a blob."""
_TRIES: Final = 5
"""How often a blob is asked for again that broke off, without a byte more than before."""
_BACKOFF_S: Final = 0.2
"""Seconds before a blob that gave nothing is asked for again; twice as long each time."""
_MAX_BREAKS: Final = 64
"""How often a blob may break off though each time some bytes came, and once more for each ``_PIECE`` that it has."""
_PIECE: Final = 1 << 20

Fetch = Callable[[int], AbstractContextManager[tuple[int, Iterator[memoryview]]]]
"""``fetch(start)``: a context with bytes from ``start`` on, and the offset where they really begin."""


class BlobStore:
    """The blobs below ``directory``, which is made where it is not there."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "blobs")
        for each in ALGORITHMS:
            os.makedirs(os.path.join(self.directory, each), mode=0o700, exist_ok=True)

    def path(self, digest: str) -> str:
        """Return where the blob is or will be. Raises ArchiveRejected for what is no digest."""
        algorithm, _, value = parse_digest(digest).partition(":")
        return os.path.join(self.directory, algorithm, value)

    def files(self) -> dict[str, str]:
        """Return the paths of all blobs by digest; of one that is being fetched with what is behind its name."""
        return {
            f"{each}:{name}": os.path.join(self.directory, each, name)
            for each in ALGORITHMS
            for name in sorted(os.listdir(os.path.join(self.directory, each)))
        }

    def has(self, digest: str, size: int) -> bool:
        """Return whether the blob is there."""
        try:
            return os.stat(self.path(digest)).st_size == size
        except FileNotFoundError:
            return False

    def obtain(self, digest: str, size: int, fetch: Fetch) -> str:
        """Have the blob, and return its path. Raises IntegrityError, LimitExceeded, and what ``fetch`` raises."""
        if size > MAX_BLOB:
            raise LimitExceeded(f"{digest}: expected at most {MAX_BLOB} bytes, found {size}")
        path = self.path(digest)
        while not self.has(digest, size):
            with _locked(f"{path}.part") as fd:
                if not _is_at(fd, f"{path}.part"):
                    continue  # who had the lock before has made a blob of it
                if self.has(digest, size):
                    os.unlink(f"{path}.part")  # made anew by opening it
                else:
                    try:
                        with naming_full(path):
                            _fill(fd, digest, size, fetch)
                    except BaseException:
                        if not os.fstat(fd).st_size:
                            os.unlink(f"{path}.part")  # nothing of it is of use to the next one
                        raise
                    os.fsync(fd)
                    os.rename(f"{path}.part", path)
                    _sync_directory(os.path.dirname(path))
        return path


def _fill(fd: int, digest: str, size: int, fetch: Fetch) -> None:
    """Have the blob in the file, from where it ends on; what is there counts only if the whole is right."""
    hasher = hasher_of(digest)
    done = _hash_prefix(fd, hasher, size)
    resumed, tries, breaks = done > 0, 0, 0
    while done < size or (not size and not tries):
        before = done
        try:
            with fetch(done) as (start, pieces):
                if start != done:
                    hasher, done, resumed = hasher_of(digest), 0, False
                    os.ftruncate(fd, 0)
                for piece in pieces:
                    _write_all(fd, piece, done)
                    hasher.update(piece)
                    done += len(piece)
            if done < size:
                raise ConnectionLost(f"{digest}: expected {size} bytes, and it ended at {done}")
            tries += 1
        except ConnectionLost:
            tries, breaks = (0 if done > before else tries + 1), breaks + 1
            if tries >= _TRIES or breaks > _MAX_BREAKS + size // _PIECE:
                raise
            if tries:
                time.sleep(_BACKOFF_S * 2 ** (tries - 1))
    found = f"{hasher.name}:{hasher.hexdigest()}"
    if found == digest and done == size:
        return
    os.ftruncate(fd, 0)
    if resumed:  # by what another process left, perhaps
        _fill(fd, digest, size, fetch)
        return
    raise IntegrityError(f"blob: expected {digest} of {size} bytes, found {found} of {done}")


def _hash_prefix(fd: int, hasher: hashlib._Hash, size: int) -> int:
    """Hash what the file has; return how much that is. One that is too long is emptied."""
    there = os.fstat(fd).st_size
    os.lseek(fd, 0, os.SEEK_SET)
    if there > size:
        os.ftruncate(fd, 0)
        return 0
    done = 0
    while done < there:
        data = os.read(fd, min(_PIECE, there - done))
        if not data:
            break
        hasher.update(data)
        done += len(data)
    return done


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def _locked(path: str) -> Iterator[int]:
    """A context with the file open for writing, and nobody else of us in it; by then it may have got another name."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Return whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_directory(path: str) -> None:
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
