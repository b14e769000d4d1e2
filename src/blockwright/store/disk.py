"""A disk in a bucket, as a device that is read and written.

What is written stays in memory until ``flush``, or until there is too much of it: then the oldest chunks are put,
under new names, which nothing refers to yet. A flush puts the rest, the pages that changed, and then the root, if it
still is what this writer last saw; that is the moment at which the new state is there. What the old state alone
referred to is deleted behind it. Whoever reads the old state meanwhile is told that it is gone.

Knows: when what is put and deleted. Refuses to know: how objects are named (``layout``) and kept (``objects``).
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final

from blockwright.codec.checksum import crc32c
from blockwright.device.base import ResizableDevice, Traits, Waits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.ranges import RangeLock
from blockwright.device.vector import Cutter, clear, total
from blockwright.errors import (
    FormatError,
    IntegrityError,
    InUse,
    ObjectNotFound,
    PreconditionFailed,
    SourceChanged,
    StoreError,
    UsageError,
)
from blockwright.store.layout import (
    CHUNK,
    MAX_PAGE,
    MAX_ROOT,
    PAGE_CHUNKS,
    Ref,
    Root,
    Writer,
    check_shape,
    chunk_key,
    decode_page,
    decode_root,
    encode_page,
    encode_root,
    page_key,
    root_key,
)
from blockwright.store.objects import Objects, Version
from blockwright.units import MiB, ceil_div

DIRTY: Final = 64 * MiB
"""Bytes of changed chunks in memory, above which the oldest are put."""
THREADS: Final = 16
"""Requests at once."""
PAGES: Final = 256
"""Pages that a reader has in memory, each of about half a megabyte."""
_TRIES: Final = 8
"""How often a chunk is looked up again that was replaced while it was being read."""


class BucketDisk(ResizableDevice):
    """The disk at ``key``. Use ``open_disk`` and ``create_disk``.

    ``version`` is that of the root as the bucket has it, None for a disk that is not there yet: its first flush makes
    it, ``over`` another one where that is given. ``writer`` None is a disk that is read only.
    """

    def __init__(
        self,
        objects: Objects,
        key: str,
        root: Root,
        version: Version | None,
        writer: Writer | None,
        *,
        over: Version | None = None,
        dirty: int = DIRTY,
    ) -> None:
        writable = writer is not None
        traits = Traits(
            writable=writable,
            discard=writable,
            fast_zero=writable,
            parallelism=THREADS,
            preferred_block=root.chunk,
            waits=Waits.PEER,
        )
        super().__init__(root.size, traits)
        self._objects, self._key = objects, key
        self._root, self._version, self._over, self._writer = root, version, over, writer
        self._limit = dirty
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="bucket")
        self._turns = RangeLock()  # by chunk: whoever changes one
        self._flushing = threading.Lock()
        self._loading = threading.Lock()
        self._lock = threading.Lock()  # of all below; never held during I/O
        self._pages: dict[int, dict[int, Ref]] = {}
        self._dirty: dict[int, bytearray] = {}
        self._changed: set[int] = set()
        self._serial = 0
        self._ours: set[str] = set()  # put and in no root yet
        self._replaced: list[str] = []  # in the root, and not in the state to come
        self._resized = False
        self._lost = False
        self._unsure = False  # a root was put, and the store did not say whether it is there

    @property
    def name(self) -> str:
        """What messages call the disk."""
        return self._objects.name_of(self._key)

    # -- reading ---------------------------------------------------------------------------------------------

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        cutter = Cutter(buffers)
        pieces = [(index, low, cutter.take(high - low)) for index, low, high in self._pieces(offset, total(buffers))]
        if len(pieces) == 1:
            self._read_piece(*pieces[0])
        else:
            for _ in self._pool.map(self._read_piece, *zip(*pieces, strict=True)):
                pass

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield (chunk, first byte, end) of what the range has of each chunk."""
        end = offset + length
        while offset < end:
            index, low = divmod(offset, self._root.chunk)
            high = min(self._root.chunk, low + end - offset)
            yield index, low, high
            offset += high - low

    def _read_piece(self, index: int, low: int, views: Sequence[memoryview]) -> None:
        for _ in range(_TRIES):
            chunks = self._load(index // PAGE_CHUNKS)
            with self._lock:
                data: bytearray | memoryview | None = self._dirty.get(index)
                ref = chunks.get(index)
                length = self._length(index)
            if data is None and ref is not None:
                try:
                    data = self._fetch(chunk_key(self._key, ref.name), length, ref)
                except SourceChanged:
                    with self._lock:
                        replaced = index in self._dirty or chunks.get(index) != ref
                    if replaced:
                        continue  # by a write of ours
                    raise
            for view in views:
                if data is None:
                    clear(view)
                else:
                    view[:] = memoryview(data)[low : low + len(view)]
                    low += len(view)
            return
        raise StoreError(f"{self.name}: chunk {index} changes faster than it can be read", permanent=False)

    def _length(self, index: int) -> int:
        return min(self._root.chunk, self._size - index * self._root.chunk)

    def _load(self, page: int) -> dict[int, Ref]:
        """Return the page's chunks. A writer has each page in memory from then on, a reader the last ``PAGES``."""
        chunks = self._pages.get(page)
        if chunks is not None:
            return chunks
        with self._loading:
            chunks = self._pages.get(page)
            if chunks is not None:
                return chunks
            ref = self._root.pages.get(page)
            chunks = {}
            if ref is not None:
                key = page_key(self._key, ref.name)
                try:
                    info = self._objects.head(key)
                except ObjectNotFound:
                    raise self._gone(key) from None
                if info.size > MAX_PAGE:
                    raise IntegrityError(f"{self._objects.name_of(key)}: expected at most {MAX_PAGE} bytes")
                with _naming(self._objects.name_of(key)):
                    chunks = decode_page(bytes(self._fetch(key, info.size, ref)), page, self._root)
            with self._lock:
                self._pages[page] = chunks
                if self._writer is None and len(self._pages) > PAGES:
                    del self._pages[next(iter(self._pages))]
            return chunks

    def _fetch(self, key: str, length: int, ref: Ref) -> memoryview:
        """Return the bytes of an object that a root refers to."""
        try:
            data = self._objects.get(key, 0, length, match=Version(ref.etag))
        except (ObjectNotFound, PreconditionFailed):
            raise self._gone(key) from None
        found = crc32c(bytes(data))
        if found != ref.crc32c:
            raise IntegrityError(
                f"{self._objects.name_of(key)}: expected the checksum {ref.crc32c:08x}, found {found:08x}"
            )
        return data

    def _gone(self, key: str) -> SourceChanged:
        return SourceChanged(f"{self.name}: was changed by somebody else since it was opened: {key} is gone")

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        size, chunk = self._size, self._root.chunk
        for page in range(offset // chunk // PAGE_CHUNKS, self._page_end(min(offset + length, size))):
            used = set(self._used(page))
            first, end = page * PAGE_CHUNKS, min((page + 1) * PAGE_CHUNKS, ceil_div(size, chunk))
            if not used:
                yield Extent(first * chunk, min(end * chunk, size) - first * chunk, HOLE | ZERO)
                continue
            for index in range(first, end):
                start = index * chunk
                yield Extent(start, min(chunk, size - start), DATA if index in used else HOLE | ZERO)

    def _page_end(self, end: int) -> int:
        return ceil_div(end, self._root.chunk * PAGE_CHUNKS)

    # -- writing ---------------------------------------------------------------------------------------------

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self._check_not_lost()
        cutter = Cutter(buffers)
        for index, low, high in self._pieces(offset, total(buffers)):
            views = cutter.take(high - low)
            with self._turns.exclusive(index, index + 1):
                data = self._changeable(index, whole=high - low == self._length(index))
                data[low:high] = views[0] if len(views) == 1 else b"".join(views)
                with self._lock:
                    self._dirty[index] = data
            self._make_room()
        if durable:
            self._flush()

    def _changeable(self, index: int, *, whole: bool) -> bytearray:
        """Return the chunk's bytes in memory of our own, whose order of age a change does not alter."""
        with self._lock:
            data = self._dirty.get(index)
        if data is None:
            data = bytearray(self._length(index))
            if not whole:
                self._read_piece(index, 0, [memoryview(data)])
        return data

    def _make_room(self) -> None:
        """Put the oldest chunks until what is left in memory is within the limit."""
        while True:
            with self._lock:
                over = len(self._dirty) * self._root.chunk - self._limit
                oldest = [index for index, _ in zip(self._dirty, range(THREADS), strict=False)] if over > 0 else []
            if not oldest:
                return
            self._settle_all(oldest)

    def _settle_all(self, indexes: Sequence[int]) -> None:
        for _ in self._pool.map(self._settle, indexes):
            pass

    def _settle(self, index: int) -> None:
        """Put a changed chunk under a new name, and have the state to come refer to it."""
        with self._turns.exclusive(index, index + 1):
            with self._lock:
                data = self._dirty.get(index)
            if data is None:
                return
            ref = None if data.count(0) == len(data) else self._put(chunk_key, bytes(data))
            self._load(index // PAGE_CHUNKS)
            with self._lock:
                self._refer(index, ref)
                del self._dirty[index]

    def _refer(self, index: int, ref: Ref | None) -> None:
        """Have the state to come refer to another object for the chunk; the lock is held."""
        page = index // PAGE_CHUNKS
        chunks = self._pages[page]
        old = chunks.pop(index, None)
        if ref is not None:
            chunks[index] = ref
        if old is not None:
            self._replaced.append(chunk_key(self._key, old.name))
        if old is not None or ref is not None:
            self._changed.add(page)

    def _put(self, key_of: Callable[[str, str], str], data: bytes) -> Ref:
        """Have the bytes in a new object."""
        assert self._writer is not None
        with self._lock:
            self._serial += 1
            name = f"{self._writer.session}-{self._serial}"
            key = key_of(self._key, name)
            self._ours.add(key)
        try:
            etag = self._objects.put(key, data, only_new=True).etag
        except PreconditionFailed:  # nobody else has the name: it was ours, and the store was asked twice
            info = self._objects.head(key)
            if info.size != len(data):
                raise
            etag = info.version.etag
        return Ref(name, etag, crc32c(data))

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        self._check_not_lost()
        end, chunk = offset + length, self._root.chunk
        for page in range(offset // chunk // PAGE_CHUNKS, self._page_end(end)):
            for index in self._used(page):
                low, high = max(offset - index * chunk, 0), min(end - index * chunk, self._length(index))
                if low < high:
                    self._zero_piece(index, low, high)
        if durable:
            self._flush()

    def _used(self, page: int) -> list[int]:
        """Return the chunks of a page that are not zeros by what is known, in order."""
        chunks = self._load(page)
        first = page * PAGE_CHUNKS
        with self._lock:
            changed = [index for index in self._dirty if first <= index < first + PAGE_CHUNKS]
            return sorted(chunks.keys() | changed)

    def _zero_piece(self, index: int, low: int, high: int) -> None:
        with self._turns.exclusive(index, index + 1):
            if high - low == self._length(index):
                with self._lock:
                    self._dirty.pop(index, None)
                    self._refer(index, None)
                return
            data = self._changeable(index, whole=False)
            data[low:high] = bytes(high - low)
            with self._lock:
                self._dirty[index] = data
        self._make_room()

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        first, end = ceil_div(offset, self._root.chunk), (offset + length) // self._root.chunk
        if offset + length == self._size:
            end = ceil_div(self._size, self._root.chunk)
        if first < end:
            start = first * self._root.chunk
            whole = min(end * self._root.chunk, self._size) - start
            self._zero(start, whole, may_unmap=True, fast_only=False, durable=durable)

    def _resize(self, size: int) -> None:
        self._check_not_lost()
        check_shape(size, self._root.chunk)
        with self._flushing:
            first = ceil_div(size, self._root.chunk)
            for page in range(first // PAGE_CHUNKS, self._page_end(self._size)):
                for gone in self._used(page):
                    if gone >= first:
                        self._zero_piece(gone, 0, self._length(gone))
            index, within = divmod(min(size, self._size), self._root.chunk)
            if not within:
                self._size, self._resized = size, True
                return
            with self._turns.exclusive(index, index + 1):  # the chunk that the nearer end cuts gets another length
                kept = self._changeable(index, whole=False)[:within]  # a copy: others may be reading the old one
                added = bytes(min(self._root.chunk, size - index * self._root.chunk) - within)
                with self._lock:
                    self._dirty[index] = kept + added
                    self._size, self._resized = size, True

    # -- the state that is there -----------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._writer is None:
            return
        self._check_not_lost()
        with self._flushing:
            self._turns.wait_for_earlier()
            with self._lock:
                dirty = list(self._dirty)
            self._settle_all(dirty)
            changed: set[int] = set()
            replaced: list[str] = []
            try:
                with self._lock:
                    changed, self._changed = self._changed, changed
                    replaced, self._replaced = self._replaced, replaced
                    pages = {page: dict(self._pages[page]) for page in changed}
                if pages or self._resized or self._version is None:
                    replaced += self._replace_pages(pages)
            except BaseException:
                with self._lock:
                    self._changed |= changed
                    self._replaced = replaced + self._replaced
                raise
            self._forget(replaced)

    def _replace_pages(self, pages: dict[int, dict[int, Ref]]) -> list[str]:
        """Have a root in the bucket that has these pages, and return the keys of those in their place before."""
        old = [self._root.pages[page] for page in pages if page in self._root.pages]
        root = self._new_root(pages)
        self._replace_root(root)
        self._resized = False
        with self._lock:
            self._ours.difference_update(page_key(self._key, ref.name) for ref in root.pages.values())
            for chunks in pages.values():
                self._ours.difference_update(chunk_key(self._key, ref.name) for ref in chunks.values())
        return [page_key(self._key, ref.name) for ref in old]

    def _new_root(self, pages: dict[int, dict[int, Ref]]) -> Root:
        """Put the pages and return the root that refers to them."""
        used = [(page, encode_page(chunks)) for page, chunks in pages.items() if chunks]
        refs = list(self._pool.map(lambda each: self._put(page_key, each[1]), used))
        merged = {page: ref for page, ref in self._root.pages.items() if page not in pages}
        merged.update((page, ref) for (page, _), ref in zip(used, refs, strict=True))
        return Root(self._size, self._root.chunk, self._root.serial + 1, merged, self._writer)

    def _replace_root(self, root: Root) -> None:
        """Have the root in the bucket where what is there is what we know. Raises InUse where it is another's."""
        key, data = root_key(self._key), encode_root(root)
        over = self._version or self._over
        doubtful, self._unsure = self._unsure, True  # also for what ends this thread between the put and its answer
        try:
            version = self._objects.put(key, data, only_new=over is None, over=over)
        except StoreError as error:
            version = self._arrived(key, root, error, doubtful=doubtful)
        self._root, self._version, self._unsure = root, version, False

    def _arrived(self, key: str, root: Root, error: StoreError, *, doubtful: bool) -> Version:
        """Return the version of our root where it is there, although the store said ``error``, or raise that.

        Where ``doubtful``, what is there may also be an earlier root of ours, whose put was answered by an error too:
        then ours takes its place.
        """
        try:
            there, version = _read_root(self._objects, key)
        except (StoreError, FormatError):
            if isinstance(error, PreconditionFailed):
                raise StoreError(f"{self.name}: whose root is there cannot be told", permanent=False) from None
            raise error from None
        if there == root:
            return version
        if not isinstance(error, PreconditionFailed):
            raise error from None
        if doubtful and self._is_ours(there):
            return self._objects.put(key, encode_root(root), over=version)
        self._lost = True
        raise InUse(f"{self.name}: somebody else writes to it now, and what was not flushed is lost") from None

    def _is_ours(self, root: Root) -> bool:
        return root.writer is not None and self._writer is not None and root.writer.session == self._writer.session

    def _check_not_lost(self) -> None:
        if self._lost:
            raise InUse(f"{self.name}: somebody else writes to it now")

    def _forget(self, keys: Sequence[str]) -> None:
        """Delete what nothing refers to; what stays is found by ``collect``."""
        if keys:
            with suppress(StoreError):
                self._objects.delete(keys)
            with self._lock:
                self._ours.difference_update(keys)

    def keys(self) -> list[str]:
        """Return the keys of all pages and chunks below the disk's, whatever leads to them."""
        return [info.key for part in ("pages", "chunks") for info in self._objects.list(f"{self._key}/{part}")]

    def collect(self, keys: Sequence[str]) -> int:
        """Delete those of the objects that the disk's root does not lead to, and return how many.

        For a writer that has changed nothing since its last flush: what it put then would go too.
        """
        if not keys:
            return 0
        for page in self._root.pages:
            self._load(page)
        with self._lock:
            used = {root_key(self._key)}
            used.update(page_key(self._key, ref.name) for ref in self._root.pages.values())
            used.update(chunk_key(self._key, ref.name) for chunks in self._pages.values() for ref in chunks.values())
        unused = [key for key in keys if key not in used]
        if unused:
            self._objects.delete(unused)
        return len(unused)

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)  # a call that a signal ended may have left some that still put
        if self._writer is None or self._lost or self._unsure:
            return
        with suppress(StoreError, InUse):
            if self._version is not None:
                self._replace_root(self._root.with_writer(None))
            self._forget(sorted(self._ours))


def open_disk(
    objects: Objects, key: str, *, writable: bool = False, take_over: bool = False, dirty: int = DIRTY
) -> BucketDisk:
    """Return the disk at ``key``. Closing it lets go of it; what was not flushed is lost.

    Only one writer has it: with ``take_over`` this one, whose coming the earlier is told of at its next flush. Raises
    ObjectNotFound, InUse where somebody has it open for writing, FormatError, IntegrityError, StoreError.
    """
    root, version = _read_root(objects, root_key(key))
    if not writable:
        return BucketDisk(objects, key, root, version, None)
    before = root.writer
    if before is not None and not take_over:
        raise InUse(
            f"{objects.name_of(key)}: is open for writing by {before}: if that has ended, --force-unlocked takes over"
        )
    disk = BucketDisk(objects, key, root, version, _new_writer(), dirty=dirty)
    try:
        # What is there before the disk is ours: whoever takes it over from us puts what no list of ours has.
        there = disk.keys() if before is not None else []
        disk._replace_root(root.with_writer(disk._writer))  # noqa: SLF001 - the two make one constructor
        disk.collect(there)
    except BaseException:
        disk.close()
        raise
    return disk


def create_disk(
    objects: Objects, key: str, size: int, *, chunk: int = CHUNK, force: bool = False, dirty: int = DIRTY
) -> BucketDisk:
    """Return a new disk of ``size`` bytes that reads as zeros. It is there with its first flush, as a whole.

    With ``force`` it then takes the place of a disk that is there; the objects of that one are deleted by
    ``collect``. Raises UsageError for a shape that cannot be, and where a disk is there.
    """
    check_shape(size, chunk)
    with suppress(ObjectNotFound):
        objects.head(key)
        raise UsageError(f"{objects.name_of(key)}: is an object, which would hide a disk: expected another key")
    over = None
    with suppress(ObjectNotFound):
        over = objects.head(root_key(key)).version
        if not force:
            raise UsageError(f"{objects.name_of(key)}: holds a disk already; --force overwrites it")
    return BucketDisk(objects, key, Root(size, chunk, 0, {}), None, _new_writer(), over=over, dirty=dirty)


def _read_root(objects: Objects, key: str) -> tuple[Root, Version]:
    """Return the root that is there now; one that is replaced while it is being read is read again."""
    for _ in range(_TRIES):
        info = objects.head(key)
        if info.size > MAX_ROOT:
            raise IntegrityError(f"{objects.name_of(key)}: expected at most {MAX_ROOT} bytes, found {info.size}")
        with suppress(PreconditionFailed), _naming(objects.name_of(key)):
            return decode_root(bytes(objects.get(key, 0, info.size, match=info.version))), info.version
    raise StoreError(f"{objects.name_of(key)}: changes faster than it can be read", permanent=False)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Have what is wrong with a document say which one it is."""
    try:
        yield
    except FormatError as error:
        error.source = error.source or source
        raise


def _new_writer() -> Writer:
    return Writer(secrets.token_hex(8), socket.gethostname(), os.getpid(), int(time.time()))
