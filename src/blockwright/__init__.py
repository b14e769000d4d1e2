"""Disk images from Python: make, read, check and convert them, without root.

The package itself knows its version only, so importing it costs nothing; take what you need from its
modules (`blockwright.build`, `blockwright.device`, `blockwright.tree`, ...).
"""

from blockwright._version import __version__

__all__ = ["__version__"]
