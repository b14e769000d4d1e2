"""Files that share their blocks until either is written to, where the file system has such: reflinks.

Linux: FICLONE (linux/fs.h; XFS, btrfs and others). Darwin: clonefile(2) (APFS).

Knows: the calls, and what says that there is no such thing here. Refuses to know: what to do instead.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Final

_FICLONE: Final = 0x40049409
_CANNOT: Final = {
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.ENOTTY,
    errno.EINVAL,
    errno.EXDEV,
}


def clone_file(source: str, target: str) -> bool:
    """Make the new file ``target`` what ``source`` is now, sharing its blocks; False where that is not possible.

    Then there is no ``target``. The copy is of one instant. Raises OSError, FileExistsError among it.
    """
    if sys.platform == "darwin":
        return _clonefile(source, target)
    if sys.platform != "linux":
        return False
    taken = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            share_blocks(taken, made)
            return True
        except BaseException as error:
            os.unlink(target)
            if isinstance(error, OSError) and error.errno in _CANNOT:
                return False
            raise
        finally:
            os.close(made)
    finally:
        os.close(taken)


def share_blocks(source: int, target: int) -> None:
    """Make an open file what another one is, by FICLONE. Raises OSError."""
    if sys.platform == "linux":
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def can_clone(folder: str) -> bool:
    """Whether files in the folder can share blocks: tried with a small one, of which nothing is left."""
    first, second = (os.path.join(folder, f".clone-{os.urandom(6).hex()}") for _ in range(2))
    try:
        with open(first, "xb") as file:
            file.write(bytes(4096))
        return clone_file(first, second)
    finally:
        for path in (first, second):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _clonefile(source: str, target: str) -> bool:
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).clonefile
    call.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32]
    if call(os.fsencode(source), os.fsencode(target), 0) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), target)
