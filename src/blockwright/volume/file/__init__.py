"""Volumes as files: on every platform, without root."""

from __future__ import annotations

from blockwright.volume.file.driver import FileDriver

__all__ = ["FileDriver"]
