"""Random operations on a thin pool of the kernel against a dictionary of bytes: the same as on pools of files."""

import pytest

from blockwright.system.linux import dm
from tests.support.volumemodel import Model, assert_found_out, bounded, sharing


class Thin(Model):
    kind = "thin"
    adopts = False


TestThin = pytest.mark.ci(Thin.TestCase)
TestThin.settings = bounded(4, 25)


def test_a_driver_whose_snapshots_share_what_is_written_is_found_out():
    assert_found_out(sharing(Thin))
    with dm.Mapper() as mapper:
        assert mapper.devices() == []


@pytest.mark.soak
class TestThinLong(Thin.TestCase):
    """The same, for longer."""

    settings = bounded(100, 50)
