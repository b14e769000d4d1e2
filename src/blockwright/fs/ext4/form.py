"""The sizes and kinds of records that a new file system's features lead to.

Knows: the numbers that planner and editor share. Refuses to know: how features are chosen.

Source: Linux 6.1, Documentation/filesystems/ext4 (super, inodes, group_descr).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from blockwright.fs.ext4.layout import MAX_LINKS

INODE_SIZE: Final = 256
"""Bytes of an inode where nobody asks for the old size."""
EXTRA_INODE_SIZE: Final = 32
"""i_extra_isize: as far as the creation time and the project, which Linux 6.1 knows."""
GROUPS_PER_FLEX: Final = 16
"""Groups whose bitmaps and inode tables lie together, with flex_bg."""
OLD_MAX_LINKS: Final = 32000


class Form(NamedTuple):
    """The sizes and kinds of records that the features lead to. Sizes in bytes."""

    block_size: int
    inode_size: int
    descriptor_size: int
    groups_per_flex: int
    extents: bool
    huge_file: bool
    dir_nlink: bool
    metadata_csum: bool
    group_csum: bool
    """Descriptors are summed by CRC-16, and say what was never written, as they do with ``metadata_csum``."""
    attribute_room: int
    """For attributes in an inode. The driver of ext2 reads none there."""

    @property
    def max_links(self) -> int:
        """Links that an inode counts to: those of ext4's driver, or of the older ones'."""
        return MAX_LINKS if self.extents else OLD_MAX_LINKS
