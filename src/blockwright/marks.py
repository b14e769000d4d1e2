"""Marks by which a process is seen to live from where its number says nothing: from another PID namespace.

A mark is one byte of a file beside what is shared, at a random place, that the process has locked. The kernel lets go
of it with the process and not before: such locks (fcntl(2)) are neither inherited nor given up, as long as no other
descriptor of the file is closed in that process. So each file is opened once, and stays open until ``drop``.

Knows: these locks. Refuses to know: who has them, and why.
"""

from __future__ import annotations

import os
import sys
from typing import Final

MOST: Final = 1 << 62
"""Marks are below this."""

if sys.platform == "win32":

    def take(_path: str) -> int:
        """Return the mark of this process in the file: there can be none."""
        return 0

    def taken(_path: str) -> bool:
        """Whether this process has the file open, for a mark of its own or another's."""
        return False

    def drop(_path: str) -> None:
        """Have no mark in the file, and not have it open."""

    def is_held(_path: str, _mark: int) -> bool:
        """Whether a process has that mark, or may have it."""
        return True

else:
    import errno
    import fcntl
    import secrets
    import threading

    _TRIES: Final = 8
    _lock = threading.Lock()
    _files: dict[tuple[int, int], int] = {}
    """The descriptors of files that were opened, by device and inode."""
    _taken: dict[tuple[int, int], int] = {}
    """The marks of this process."""

    def _begin_anew() -> None:
        """Have no marks in a process that was forked off."""
        _taken.clear()
        _lock.release()

    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_begin_anew)

    def _opened(path: str, flags: int) -> tuple[tuple[int, int], int]:
        """Return which file is at ``path``, and the only descriptor of it that this process has. Raises OSError."""
        for key, fd in list(_files.items()):
            if not os.fstat(fd).st_nlink:  # removed, so it marks nothing any more
                os.close(fd)
                del _files[key]
                _taken.pop(key, None)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        else:
            if (key := (status.st_dev, status.st_ino)) in _files:
                return key, _files[key]
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        status = os.fstat(fd)
        key = status.st_dev, status.st_ino
        _files[key] = fd
        return key, fd

    def take(path: str) -> int:
        """Return the mark of this process in the file at ``path``; 0 where there can be none."""
        with _lock:
            try:
                file, fd = _opened(path, os.O_RDWR | os.O_CREAT)
                for _ in range(0 if file in _taken else _TRIES):
                    mark = 1 + secrets.randbelow(MOST - 1)
                    try:
                        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, mark)
                    except OSError as error:
                        if error.errno not in (errno.EAGAIN, errno.EACCES):
                            return 0
                    else:
                        _taken[file] = mark
                        break
                return _taken.get(file, 0)
            except OSError:
                return 0

    def is_held(path: str, mark: int) -> bool:
        """Whether a process has that mark, or may have it."""
        if not 0 < mark < MOST:
            return False
        with _lock:
            try:
                file, fd = _opened(path, os.O_RDWR)
                if _taken.get(file) == mark:
                    return True
                # Shared: whoever asks at the same time is not taken for the one that is asked for.
                fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, mark)
                fcntl.lockf(fd, fcntl.LOCK_UN, 1, mark)
            except FileNotFoundError:
                return False
            except OSError:
                return True
            return False

    def taken(path: str) -> bool:
        """Whether this process has the file open, for a mark of its own or another's."""
        with _lock:
            return _key(path) in _files

    def drop(path: str) -> None:
        """Have no mark in the file, and not have it open."""
        with _lock:
            if (key := _key(path)) is not None and key in _files:
                _taken.pop(key, None)
                os.close(_files.pop(key))

    def _key(path: str) -> tuple[int, int] | None:
        try:
            status = os.stat(path)
        except OSError:
            return None
        return status.st_dev, status.st_ino
