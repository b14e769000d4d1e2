"""Who gets which block: runs of free blocks near a goal, and blocks given back.

Groups are searched from the goal's on, as far as their free counts promise something; within a group a run that is
long enough is preferred to the nearest.

Knows: free bits. Refuses to know: what the blocks are for.
"""

from __future__ import annotations

from blockwright.errors import NoSpace
from blockwright.fs.ext4.edit.groups import Group, Groups
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction


class Space:
    """The free blocks of a file system. Positions and counts are in blocks."""

    def __init__(self, transaction: Transaction, groups: Groups, superblock: LiveSuperblock) -> None:
        self._transaction = transaction
        self._groups = groups
        self._superblock = superblock
        self._geometry = transaction.volume.geometry
        self._all = (1 << self._geometry.blocks_per_group) - 1

    def goal_of(self, group: int) -> int:
        """Return the block to look near for something that belongs to a group's inodes."""
        return self._geometry.group_start(group) + self._groups.group(group).hint

    def allocate(self, goal: int, count: int) -> tuple[int, int]:
        """Take a run of 1 to ``count`` blocks; return its first block and its length. Raises NoSpace."""
        geo = self._geometry
        if not geo.first_data_block <= goal < geo.blocks_count:
            goal = geo.first_data_block
        first = geo.group_of(goal)
        best: tuple[int, Group, int] | None = None
        for step in range(geo.groups):
            number = (first + step) % geo.groups
            group = self._groups.group(number)
            if not group.free_blocks:
                continue
            near = goal - geo.group_start(number) if not step else 0
            start, length = self._find(group, near, count)
            if length >= count or (length and not step and start == near):
                return self._take(group, start, length)
            if length and (best is None or length > best[0]):
                best = length, group, start
            if best is not None and step >= _PATIENCE:
                break
        if best is None:
            raise NoSpace(f"file system: expected {count} free blocks, found {self._describe()}")
        return self._take(best[1], best[2], best[0])

    def allocate_runs(self, goal: int, count: int) -> list[tuple[int, int]]:
        """Take ``count`` blocks in as few runs as there are; return (first block, length) of each."""
        if count > self._superblock.fields.free_blocks_count:
            self._recount()
        if count > self._superblock.fields.free_blocks_count:
            raise NoSpace(f"file system: expected {count} free blocks, found {self._describe()}")
        runs: list[tuple[int, int]] = []
        while count:
            start, length = self.allocate(goal, min(count, self._geometry.blocks_per_group))
            if runs and sum(runs[-1]) == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((start, length))
            count -= length
            goal = start + length
        return runs

    def free(self, start: int, count: int) -> None:
        """Give back blocks that are in use. Raises Corrupt where one is free already, or a group's table."""
        geo, groups = self._geometry, self._groups
        self._transaction.volume.check_run(start, count, "blocks to be freed")
        while count:
            group = groups.group(geo.group_of(start))
            bit = start - geo.group_start(group.number)
            part = min(count, geo.group_end(group.number) - start)
            bits = groups.blocks(group)
            mask = ((1 << part) - 1) << bit
            if bits & mask != mask:
                raise self._transaction.volume.corrupt(
                    f"group {group.number}: block bitmap: expected {part} blocks from {start} on in use, "
                    "found some of them free"
                )
            groups.touch(group)
            group.blocks = bits & ~mask
            group.held |= mask
            group.blocks_changed = True
            group.free_blocks += part
            self._superblock.add_free(part, 0)
            for block in self._pending_in(start, part):
                self._transaction.drop(block)
            start += part
            count -= part

    def _recount(self) -> None:
        """Have the superblock say what the groups do, as the kernel does when it mounts."""
        free = sum(self._groups.group(number).free_blocks for number in range(self._geometry.groups))
        if free != self._superblock.fields.free_blocks_count:
            self._superblock.set_free_blocks(min(free, self._geometry.blocks_count))

    def _pending_in(self, start: int, count: int) -> list[int]:
        pending = self._transaction.blocks
        if count < len(pending):
            return [block for block in range(start, start + count) if block in pending]
        return [block for block in pending if start <= block < start + count]

    def _describe(self) -> str:
        held = self._groups.held
        later = f", and {held} more once the changes so far are committed" if held else ""
        return f"{self._superblock.fields.free_blocks_count - held}{later}"

    def _find(self, group: Group, near: int, count: int) -> tuple[int, int]:
        """Return (bit, length) of a free run, cut to ``count``: the first that is long enough, else the longest."""
        free = self._all & ~(self._groups.blocks(group) | group.held)
        if not free:
            return 0, 0
        for begin in (near, 0) if near else (0,):
            rest, at = free >> begin, begin
            while rest:
                start = (rest & -rest).bit_length() - 1
                rest >>= start
                at += start
                length = (~rest & rest + 1).bit_length() - 1
                if length >= count:
                    return at, count
                if count > _SMALL:
                    break
                rest >>= length
                at += length
        return self._longest(free, count)

    @staticmethod
    def _longest(free: int, count: int) -> tuple[int, int]:
        """Return the first run of ``count`` bits, or the longest that there is.

        ``runs`` has a bit set where a run of ``length`` begins; it is narrowed by doubling and then by halves.
        """
        runs, length = free, 1
        while length < count:
            step = min(length, count - length)
            longer = runs & runs >> step
            while not longer and step > 1:
                step //= 2
                longer = runs & runs >> step
            if not longer:
                break
            runs, length = longer, length + step
        return (runs & -runs).bit_length() - 1, length

    def _take(self, group: Group, bit: int, count: int) -> tuple[int, int]:
        bits = self._groups.blocks(group)
        self._groups.touch(group)
        group.blocks = bits | ((1 << count) - 1) << bit
        group.blocks_changed = True
        group.free_blocks = max(0, group.free_blocks - count)
        group.hint = (bit + count) % self._geometry.blocks_per_group
        self._superblock.add_free(-count, 0)
        return self._geometry.group_start(group.number) + bit, count


_SMALL = 64
"""Blocks up to which the first run that is long enough is looked for one by one."""
_PATIENCE = 16
"""Groups that are searched for a longer run when one that is too short was found."""
