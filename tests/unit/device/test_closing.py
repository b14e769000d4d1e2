"""What several devices stand under is closed whole, also when closing one of them fails."""

import pytest

from blockwright.device.concat import Concat
from blockwright.device.memory import MemoryDevice
from blockwright.device.overlay import Overlay


class Stuck(MemoryDevice):
    """Memory that cannot be closed."""

    def _close(self):
        raise OSError(5, "cannot be closed")


def test_an_overlay_closes_its_base_when_its_top_fails():
    base, top = MemoryDevice(4096), Stuck(4096)
    with pytest.raises(OSError, match="cannot be closed"):
        Overlay(base, top).close()
    assert base.closed


@pytest.mark.parametrize("place", range(3))
def test_a_concatenation_closes_every_part_when_one_fails(place):
    parts = [Stuck(4096) if index == place else MemoryDevice(4096 * (index % 2)) for index in range(3)]
    with pytest.raises(OSError, match="cannot be closed"):
        Concat.of(*parts).close()
    assert all(part.closed for part in parts)
