"""Whether all names add up: parents, connections, link counts.

Knows: the graph of directories. Refuses to know: how entries are stored.
"""

from __future__ import annotations

from blockwright.fs.ext4.check.state import State
from blockwright.fs.ext4.inode import S_IFDIR
from blockwright.fs.ext4.layout import MAX_LINKS, InodeFlag, ReservedInode, RoCompat


def check_connections(state: State) -> None:
    """Report directories whose ``..`` is not their parent, and those that hang from nothing."""
    root = int(ReservedInode.root)
    if root not in state.directories:
        state.report("directory.root", "expected a root directory, found none")
    connected = {root}
    for number, directory in state.directories.items():
        if directory.parent and directory.dotdot != directory.parent:
            state.report(
                "directory.parent",
                f"directory {number}: ..: expected inode {directory.parent}, found {directory.dotdot}",
                directory.inode.position,
            )
        trail, at = set[int](), number
        while at not in connected:
            trail.add(at)
            connected.add(at)
            above = state.directories.get(at)
            if above is None or not above.parent:
                state.report(
                    "directory.unconnected", f"directory {at}: expected a name in another directory, found none"
                )
                break
            at = above.parent
            if at in trail:
                state.report("directory.loop", f"directory {at}: expected the root above it, found itself")
                break


def check_counts(state: State) -> None:
    """Report inodes whose link count is not the number of their names."""
    superblock = state.volume.superblock
    for number, links in state.links.items():
        if number == ReservedInode.bad_blocks or (number < superblock.first_ino and number != ReservedInode.root):
            continue
        if number not in state.kinds or number in (superblock.s_prj_quota_inum, superblock.s_orphan_file_inum):
            continue
        counted = state.counted.get(number, 0)
        if not counted:
            inode = state.volume.inode(number)
            references = state.attribute_inodes.get(number, 0) if inode.flags & InodeFlag.ea_inode else 0
            if not references:
                state.report(
                    "links.unattached", f"inode {number}: expected a name, found none", inode.position + 0x1A
                )
                continue
            counted = 1
            _references(state, number, references)
        if state.kinds[number] == S_IFDIR and counted > MAX_LINKS:
            if not state.ro_compat(RoCompat.dir_nlink):
                state.report("links.feature", f"inode {number}: expected the feature dir_nlink, found it off")
            counted = 1
        if counted == links:
            continue
        inode = state.volume.inode(number)
        once_more = state.kinds[number] == S_IFDIR and links == 1 and counted > 1
        if once_more and inode.flags & InodeFlag.index:
            continue
        state.report(
            "links.count",
            f"inode {number}: expected {counted} links, found {links}",
            inode.position + 0x1A,
            repairable=True,
        )


def _references(state: State, number: int, met: int) -> None:
    """Judge how often a value's inode says that it is referred to: in i_ctime and i_version, of all places."""
    inode = state.volume.inode(number)
    raw = inode.raw
    stated = int.from_bytes(raw[0xC:0x10], "little") << 32 | inode.version
    # An older form has no count there, but a time of change that is also that of the last access.
    if stated != met and raw[0x8:0xC] != raw[0xC:0x10]:
        state.report(
            "attribute.references",
            f"inode {number}: expected {met} references, found {stated}",
            inode.position + 0x24,
            repairable=True,
        )
