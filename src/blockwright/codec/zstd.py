"""zstd's library: Python's own from 3.14 on, the package backports.zstd before.

Knows: where it comes from. Refuses to know: what is packed with it. It is looked for when there is something to pack
or to unpack, so that a Python without it, as a zipapp made for another may be started by, does everything else.
"""

from __future__ import annotations

import sys
from types import ModuleType

from blockwright.errors import NotSupported


def library() -> ModuleType:
    """Return the module ``compression.zstd``, or what stands for it. Raises NotSupported where there is none."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise NotSupported("zstd: this Python has no library: expected backports.zstd, or Python 3.14") from None
    return zstd
