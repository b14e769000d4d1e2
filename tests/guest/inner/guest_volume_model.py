"""Random operations on a thin pool of the kernel against a dictionary of bytes: the same as on pools of files."""

import pytest

from tests.support.volumemodel import Model, bounded


class Thin(Model):
    kind = "thin"
    adopts = False


TestThin = pytest.mark.ci(Thin.TestCase)
TestThin.settings = bounded(4, 25)


@pytest.mark.soak
class TestThinLong(Thin.TestCase):
    """The same, for longer."""

    settings = bounded(100, 50)
