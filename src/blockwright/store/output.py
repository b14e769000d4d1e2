"""A new disk in a bucket as an output: there as a whole when the work ends well, and not at all otherwise.

Knows: when a disk appears. Refuses to know: what is written to it.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Self

from blockwright.errors import StoreError
from blockwright.store.disk import BucketDisk, create_disk
from blockwright.store.objects import Objects


class BucketOutput:
    """A context manager over ``device``, a new disk: flushed and closed where the body ends without an exception.

    ``target_is_zero`` is always True. Raises UsageError where a disk is there already, unless ``force``.
    """

    target_is_zero = True

    def __init__(self, objects: Objects, key: str, *, size: int, force: bool = False) -> None:
        self.device: BucketDisk = create_disk(objects, key, size, force=force)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def commit(self) -> None:
        """Make the disk be there, and delete what was in its place."""
        try:
            before: list[str] = []
            with suppress(StoreError):  # what cannot be listed or deleted now can go another time
                before = self.device.keys()
            self.device.flush()  # behind which another output may begin, whose objects no list of ours has
            with suppress(StoreError):
                self.device.collect(before)
        finally:
            self.device.close()

    def discard(self) -> None:
        """Delete what was put. Idempotent."""
        self.device.close()
