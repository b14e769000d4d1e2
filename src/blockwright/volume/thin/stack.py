"""The pool of a specification in the kernel, over what it lies on (``backing``).

Every call can be made again, whatever a dead process left of the one before. Metadata is verified before the kernel
has it, which would use what is damaged as it is, and make an empty pool of what is blank.

Knows: the order in which pool and devices come and go, and grow. Refuses to know: volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockwright.errors import Damaged, NotFound, UsageError
from blockwright.finding import Finding
from blockwright.system.linux.dm import Info, Mapper, ThinPool, ThinPoolStatus
from blockwright.system.linux.thin import Metadata, Pool, Superblock, check_metadata, is_harmless, metadata_size
from blockwright.units import align_up
from blockwright.volume.spec import PoolSpec
from blockwright.volume.thin.backing import Backing, backing_of
from blockwright.volume.thin.settings import low_water

_PERCENT: Final = 100


class Stack:
    """The pool of a specification, in the kernel or not. Device-mapper has it as ``POOL+``, with its own UUID.

    Another device of that name is nobody's to change.
    """

    def __init__(self, spec: PoolSpec, mapper: Mapper) -> None:
        self._spec = spec
        self._mapper = mapper
        self.backing: Backing = backing_of(spec, mapper)
        self.name = f"{spec.name}+"
        self.key = f"blockwright-{spec.created_ns:x}"
        """What the UUIDs of the pool and its volumes begin with."""

    def _info(self) -> Info | None:
        """Return the pool as device-mapper has it; None where it does not, or the name is somebody else's."""
        try:
            found = self._mapper.info(self.name)
        except NotFound:
            return None
        return found if found.uuid == self.key else None

    @property
    def exists(self) -> bool:
        """Whether there is anything to bring up; nothing is left where it was destroyed halfway."""
        return self.backing.exists

    @property
    def runs(self) -> bool:
        """Whether the kernel has the pool."""
        info = self._info()
        return info is not None and info.active

    def pool(self) -> Pool:
        """Return the pool, up. Raises as ``up`` does."""
        self.up()
        return self.running()

    def running(self) -> Pool:
        """Return the pool, which is up. Raises NotFound where it is not."""
        return Pool(self._mapper, self.name, key=self.key)

    def status(self) -> ThinPoolStatus | None:
        """Return the pool's status, None where it is down."""
        return self.running().status() if self.runs else None

    def superblock(self) -> Superblock:
        """Return what the metadata says of itself while the pool is down. Raises FormatError, NotFound, OSError."""
        with self.backing.metadata() as device:
            return Metadata(device).superblock

    def check(self) -> list[Finding]:
        """Return what is wrong with the metadata: all of it where the pool is down, else a snapshot of its trees."""
        if self.runs:
            pool = self.running()
            if not pool.status().takes_messages:
                with pool.metadata() as found:
                    return check_metadata(found.device)
            with pool.reserved() as found:
                return check_metadata(found.device, live=True)
        with self.backing.metadata() as device:
            return check_metadata(device)

    def detail(self) -> Mapping[str, Any]:
        """Return what it stands on, as JSON has it."""
        return {**self.backing.detail(), "block": self.block}

    @property
    def size(self) -> int:
        """The bytes for data."""
        return self.backing.size

    @property
    def block(self) -> int:
        """The bytes of a block of data."""
        return self.backing.block

    def up(self, *, fresh: bool = False) -> None:
        """Have the pool running; ``fresh`` is for blank metadata, which has the kernel make an empty pool.

        Raises NotFound where a file or device is gone, InUse where another has its name, Damaged.
        """
        info = self._info()
        if info is not None and info.active:
            return
        if not fresh:
            self._refuse_damage()
        if info is not None:
            self._mapper.remove(self.name)  # who made it died before it had a table
        self._mapper.create(self.name, [self._table()], uuid=self.key)

    def _refuse_damage(self) -> None:
        found = damage(self.check())
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise Damaged(
                f"pool {self._spec.name}: metadata is damaged and not used: {found[0].message}{more}: "
                "see 'pool check' and 'pool repair'",
                offset=found[0].offset,
            )

    def _table(self) -> ThinPool:
        size = self.size
        metadata, data = self.backing.attach()
        low = size // self.block * low_water(self._spec) // _PERCENT
        error = self._spec.options.get("full") != "queue"
        return ThinPool(size, metadata, data, self.block, low_water_blocks=low, error_if_full=error)

    def down(self) -> None:
        """Have the kernel have nothing of the pool. Raises InUse while a volume is active or open."""
        if self._info() is not None:
            self._mapper.remove(self.name)
        self.backing.detach()

    def metadata_for(self, size: int) -> int:
        """Return the bytes of metadata that ``size`` bytes of data take."""
        return metadata_size(size, self.block)

    def check_growth(self, size: int) -> int:
        """Return a size for data that is whole blocks. Raises UsageError for less than there is."""
        size = align_up(size, self.block)
        if size < self.size:
            raise UsageError(f"pool {self._spec.name}: has {self.size} bytes, and pools only grow: found {size}")
        return size

    def apply(self) -> None:
        """Have the running pool take what there is of its devices now. Waiting writes go on."""
        self._mapper.replace(self.name, [self._table()])

    def destroy(self) -> None:
        """Have nothing of the pool. Raises InUse for another one of its name."""
        self.down()
        self.backing.destroy()


def damage(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings with which metadata must not be used."""
    return [each for each in found if not is_harmless(each)]
