"""An object from its beginning to its end, of one version, whatever breaks off in between.

Knows: where to go on. Refuses to know: what the bytes are for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from blockwright.errors import IntegrityError, ObjectNotFound, PreconditionFailed, SourceChanged, StoreError
from blockwright.store.objects import ObjectInfo, Objects
from blockwright.tree.ranges import hastened

_TRIES: Final = 5
"""How often an object is asked for again that gave no byte."""
_BACKOFF_S: Final = 0.5
"""Seconds before it is, twice as long each time."""
_MAX_BREAKS: Final = 64
"""How often it may break off though some bytes came each time, and once more for each ``_PROGRESS`` that it has."""
_PROGRESS: Final = 1 << 20


def download(
    objects: Objects, info: ObjectInfo, start: int = 0, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[memoryview]:
    """Yield the bytes of the version of ``info`` from ``start`` to its end, in pieces, all of them or an error.

    A stream that breaks off goes on behind the last byte that came, and a slow one over several connections. Raises
    SourceChanged where the version is gone, IntegrityError where there is more than the size, StoreError where trying
    again is of no use any more.
    """
    name, done, tries, breaks = objects.name_of(info.key), start, 0, 0

    def part(low: int, high: int) -> memoryview:
        return objects.get(info.key, low, high, match=info.version)

    while done < info.size:
        before = done
        try:
            stream = objects.stream(info.key, done, match=info.version)
            with closing(hastened(stream, done, info.size, part)) as pieces:
                for piece in pieces:
                    done += len(piece)
                    if done > info.size:
                        raise IntegrityError(f"{name}: expected {info.size} bytes, found more")
                    yield piece
            if done < info.size:
                raise StoreError(f"{name}: expected {info.size} bytes, and it ended at {done}", permanent=False)
        except (ObjectNotFound, PreconditionFailed):
            version = info.version.etag or info.version.number
            raise SourceChanged(f"{name}: is not what it was at first: expected the version {version}") from None
        except StoreError as error:
            tries, breaks = (0 if done > before else tries + 1), breaks + 1
            if error.permanent or tries >= _TRIES or breaks > _MAX_BREAKS + info.size // _PROGRESS:
                raise
            if tries:
                sleep(_BACKOFF_S * 2 ** (tries - 1))
