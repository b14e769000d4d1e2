"""What compressed clusters and grains have in common: some that were read stay in memory, and noise is not packed.

Knows: bytes. Refuses to know: how they are compressed, and where they lie.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from typing import Final

from blockwright.units import MiB

KEPT: Final = 4 * MiB
"""Bytes of what was unpacked that are kept."""
SAMPLE: Final = 512
SAMPLES: Final = 8
"""Pieces, and their bytes, by which zlib is spared what other compressors made already."""


class Unpacked:
    """The pieces of ``size`` bytes that were read last, by a key of the caller's. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._most = max(2, KEPT // size)
        self._lock = threading.Lock()

    def find(self, key: int) -> memoryview | None:
        """Return what is kept under the key, None where nothing is."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        return found

    def keep(self, key: int, data: bytes) -> memoryview:
        """Keep and return a piece; the one that was not asked for the longest may go."""
        view = memoryview(data)
        with self._lock:
            self._kept[key] = view
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return view

    def clear(self) -> None:
        """Forget all: a key may come to mean another piece."""
        with self._lock:
            self._kept.clear()


def is_noise(data: memoryview) -> bool:
    """Whether pieces from all over ``data`` do not get any shorter: then neither does it, in 20 times the time."""
    step = len(data) // SAMPLES
    if step < 2 * SAMPLE:
        return False
    sample = b"".join([data[at : at + SAMPLE] for at in range(0, step * SAMPLES, step)])
    return len(zlib.compress(sample, 1)) >= len(sample)
