"""Changes in place."""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.errors import Unsupported
from blockwright.fs.editor import DEFAULT_POLICY, CommitPolicy, Editor


def open(device: BlockDevice, *, policy: CommitPolicy = DEFAULT_POLICY) -> Editor:  # noqa: A001
    """Return the file system on device, which it owns from then on, open for changes."""
    del device, policy
    raise Unsupported("edit: not built yet")
