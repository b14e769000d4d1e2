"""Volumes as thin devices of device-mapper: on Linux, with root."""

from __future__ import annotations

from blockwright.volume.thin.driver import ThinDriver

__all__ = ["ThinDriver"]
