"""What is asked of object storage: six calls, by key, with versions that conditions can name.

Knows: the contract. Refuses to know: who keeps the objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blockwright.codec.record import Buffer


class Version(NamedTuple):
    """Which state of an object: its entity tag, and the store's own number where it counts."""

    etag: str | None
    number: str | None = None


class ObjectInfo(NamedTuple):
    """An object as a listing has it; ``size`` in bytes."""

    key: str
    size: int
    version: Version


class Objects(ABC):
    """The objects of one bucket, by key. Thread-safe; a call waits for the store.

    ``name`` is what messages call the bucket, ``s3://bucket``. Calls raise StoreError: ObjectNotFound,
    PreconditionFailed where a condition met another version, Throttled.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def name_of(self, key: str) -> str:
        """Return what messages call an object."""
        return f"{self.name}/{key}" if key else self.name

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Return what there is under the key."""

    @abstractmethod
    def get(self, key: str, start: int, end: int, *, match: Version | None = None) -> memoryview:
        """Return bytes [start, end) of the object, all of them. With ``match``, of that version only."""

    @abstractmethod
    def stream(self, key: str, start: int, *, match: Version | None = None) -> Iterator[memoryview]:
        """Yield the bytes of the object from ``start`` on, in pieces; it may break off by raising."""

    @abstractmethod
    def put(self, key: str, data: Buffer, *, only_new: bool = False, over: Version | None = None) -> Version:
        """Have ``data`` under the key, as a whole or not at all.

        With ``only_new`` only where nothing is there, with ``over`` only where that version is. A request that had
        to be made twice may fail its own condition: whoever gives one asks what is there after PreconditionFailed.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Have nothing under the keys; those that had nothing already are no error."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below the prefix, whose last part is whole."""
