"""genimage's configuration files as disks' definitions."""

from __future__ import annotations

from blockwright.build.genimage.disk import read_genimage

__all__ = ["read_genimage"]
