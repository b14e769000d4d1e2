"""Block devices: the one abstraction that everything else reads and writes through."""

from blockwright.device.base import BlockDevice, FileRun, ResizableDevice, Traits, Waits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent

__all__ = ["DATA", "HOLE", "ZERO", "BlockDevice", "Extent", "FileRun", "ResizableDevice", "Traits", "Waits"]
