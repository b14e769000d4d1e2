"""Objects of stores on this host, each of one version: fetched once, by whoever comes first, however many want it.

A file is called by a hash of what its object is known by, so no other version's bytes get in. One that is being
fetched has ``.part`` behind its name, and a lock; a process that dies leaves a part with which the next one goes on.

Knows: files, locks, and whom to ask. Refuses to know: runs, and what is in an object.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final

from blockwright.device.descriptor import naming_full
from blockwright.errors import Cancelled, IntegrityError, InUse
from blockwright.pipeline.context import Context
from blockwright.pipeline.home import Home
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.request import canonical
from blockwright.volume.spec import sync_folder

if TYPE_CHECKING:  # most sources come from elsewhere
    from blockwright.store.objects import ObjectInfo, Objects

PART: Final = ".part"
"""Behind the name of an object that is not here as a whole."""
AT_ONCE: Final = 4
"""Objects that are fetched at once."""
_PIECE: Final = 1 << 20

Progress = Callable[[int, int], None]


def object_path(home: Home, identity: Mapping[str, Any]) -> str:
    """Return where an object goes; ``identity`` is what it is known by, as JSON has it."""
    return os.path.join(home.objects, hashlib.sha256(canonical(identity)).hexdigest()[:32])


def object_lock(home: Home, path: str, stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Return the lock of whoever fetches or removes an object; two runs may want the same one."""
    return exclusive(home.lock(f"object.{os.path.basename(path)}"), stop)


def remove_object(path: str) -> None:
    """Have nothing of an object; to be called with its lock."""
    for each in (path, path + PART):
        with suppress(FileNotFoundError):
            os.unlink(each)


def remove_part(home: Home, path: str) -> None:
    """Have nothing of an object that is not here as a whole; who fetches it now goes on with what there is."""
    with suppress(InUse, FileNotFoundError), object_lock(home, path, refuse):
        os.unlink(path + PART)


def refuse() -> None:
    """Raise InUse: for whoever does not wait for a lock."""
    raise InUse("object: is being fetched")


def has_object(path: str, size: int) -> bool:
    """Whether an object is here as a whole; no byte of it is read."""
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def obtain(identity: Mapping[str, Any], context: Context, progress: Progress) -> dict[str, Any]:
    """Have an object here, and return where it is, its size, digest and entity tag.

    Raises what fetching does, SourceChanged where that version is gone.
    """
    from blockwright.store.address import parse_object
    from blockwright.store.cloud import open_bucket
    from blockwright.store.objects import ObjectInfo, Version

    address = parse_object(str(identity["uri"]))
    info = ObjectInfo(address.key, int(identity["size"]), Version(identity["etag"], identity["version"]))
    path = object_path(context.home, identity)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with object_lock(context.home, path, context.stop):
        if has_object(path, info.size):
            digest = _digest_of(path)
        else:
            digest = _download(open_bucket(address.bucket), info, path + PART, progress)
            context.checkpoint("download: fetched")
            os.replace(path + PART, path)
            sync_folder(os.path.dirname(path))
    return {"path": path, "bytes": info.size, "digest": digest, "etag": identity["etag"]}


def obtain_all(identities: Sequence[Mapping[str, Any]], context: Context, progress: Progress) -> list[dict[str, Any]]:
    """Have several objects here, a few at once, and return of each what ``obtain`` does.

    ``progress`` is told of all together, by any thread; the first that fails ends the others. What came of them is
    kept for the next one who asks, but for what a store has no more.
    """
    stopped, lock = threading.Event(), threading.Lock()
    came, whole = [0] * len(identities), sum(int(each["size"]) for each in identities)

    def one(number: int) -> dict[str, Any]:
        def told(done: int, _total: int) -> None:
            if stopped.is_set():
                raise Cancelled("layer: is not wanted any more")
            with lock:
                came[number] = done
                shown = sum(came)
            progress(shown, whole)

        try:
            return obtain(identities[number], context, told)
        except IntegrityError:
            remove_part(context.home, object_path(context.home, identities[number]))
            raise

    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(identities))), "object") as threads:
        futures = [threads.submit(one, number) for number in range(len(identities))]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            stopped.set()
            for future in futures:
                future.cancel()
            raise


def _download(objects: Objects, info: ObjectInfo, path: str, progress: Progress) -> str:
    """Have the object in the file, from where that ends on, and return the digest of all."""
    from blockwright.store.download import download

    hasher = hashlib.sha256()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with naming_full(path), open(fd, "r+b") as file:
        if os.fstat(fd).st_size > info.size:
            file.truncate(0)
        while piece := file.read(_PIECE):
            hasher.update(piece)
        done = file.tell()
        for part in download(objects, info, done):
            file.write(part)
            hasher.update(part)
            done += len(part)
            progress(done, info.size)
        file.flush()
        os.fsync(fd)
    return f"sha256:{hasher.hexdigest()}"


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
