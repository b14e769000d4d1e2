"""What lies on a disk beside its partitions ends where the table's copy begins, and not before."""

import pytest

from blockwright.build.definition import Definition, NamedContent
from blockwright.build.partition import PartitionDefinition
from blockwright.build.plan import plan_disk
from blockwright.errors import NoSpace
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory
from blockwright.units import MiB

SIZE = 16 * MiB


def disk(sector: int, start: int) -> Definition:
    image = NamedContent("image", BytesContent(b"x" * sector))
    parts = (
        PartitionDefinition(mount="/", size=4 * MiB),
        PartitionDefinition(image=image, start=start, in_table=False, name="beside"),
    )
    return Definition(size=SIZE, sector_size=sector, partitions=parts)


@pytest.mark.parametrize(("sector", "backup"), [(512, 33), (4096, 5)])
def test_the_last_place_beside_partitions_ends_where_the_copy_of_the_table_begins(sector: int, backup: int) -> None:
    last = SIZE - (backup + 1) * sector
    plan = plan_disk(Directory(), disk(sector, last), b"seed")
    assert [part.start for part in plan.parts if part.partition is None] == [last]
    with pytest.raises(NoSpace, match=f"to lie on the disk, found room up to byte {last + sector}$"):
        plan_disk(Directory(), disk(sector, last + sector), b"seed")
