"""Objects of a bucket in memory, as an honest store keeps them, and ways in which it or its user fails."""

import itertools
import threading

from blockwright.errors import ObjectNotFound, PreconditionFailed, StoreError
from blockwright.store.objects import ObjectInfo, Objects, Version


class Ended(BaseException):
    """The process ends here: nothing behind it is asked of the store any more."""


class MemoryObjects(Objects):
    """A bucket in memory. ``before`` is called with (call, key) before each call, and may raise."""

    def __init__(self, before=None):
        super().__init__("s3://memory")
        self.held = {}
        self.calls = []
        self.before = before
        self._tags = itertools.count(1)
        self._lock = threading.Lock()

    def _called(self, call, key):
        self.calls.append((call, key))
        if self.before is not None:
            self.before(call, key)

    def _find(self, key, match=None):
        if key not in self.held:
            raise ObjectNotFound(f"{self.name_of(key)}: no such object")
        data, version = self.held[key]
        if match is not None and match != version:
            raise PreconditionFailed(f"{self.name_of(key)}: another version is there")
        return data, version

    def head(self, key):
        self._called("head", key)
        data, version = self._find(key)
        return ObjectInfo(key, len(data), version)

    def get(self, key, start, end, *, match=None):
        self._called("get", key)
        data, _ = self._find(key, match)
        if end > len(data):
            raise StoreError(f"{self.name_of(key)}: expected {end - start} bytes at {start}", permanent=False)
        return memoryview(data)[start:end]

    def stream(self, key, start, *, match=None):
        self._called("get", key)
        data, _ = self._find(key, match)
        for low in range(start, len(data), 1000):
            yield memoryview(data)[low : low + 1000]

    def put(self, key, data, *, only_new=False, over=None):
        self._called("put", key)
        with self._lock:
            if only_new and key in self.held:
                raise PreconditionFailed(f"{self.name_of(key)}: another version is there")
            if over is not None and (key not in self.held or self.held[key][1] != over):
                raise PreconditionFailed(f"{self.name_of(key)}: another version is there")
            version = Version(f'"{next(self._tags)}"')
            self.held[key] = bytes(data), version
        return version

    def delete(self, keys):
        self._called("delete", " ".join(keys))
        for key in keys:
            self.held.pop(key, None)

    def list(self, prefix):
        self._called("list", prefix)
        for key in sorted(self.held):
            if key.startswith(prefix + "/"):
                yield ObjectInfo(key, len(self.held[key][0]), self.held[key][1])
