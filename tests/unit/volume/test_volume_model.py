"""Random operations on pools of files against a dictionary of bytes, with layers and with shared blocks."""

import pytest

from tests.support.volumemodel import Model, assert_found_out, bounded, sharing


class Overlay(Model):
    kind = "overlay"


class Reflink(Model):
    kind = "reflink"


TestOverlay = Overlay.TestCase
TestOverlay.settings = bounded(8, 25)
TestReflink = Reflink.TestCase
TestReflink.settings = bounded(5, 25)


@pytest.mark.parametrize("model", [Overlay, Reflink])
def test_a_driver_whose_snapshots_share_what_is_written_is_found_out(model):
    assert_found_out(sharing(model))


@pytest.mark.soak
class TestOverlayLong(Overlay.TestCase):
    """The same, for longer."""

    settings = bounded(400, 60)


@pytest.mark.soak
class TestReflinkLong(Reflink.TestCase):
    """The same, for longer."""

    settings = bounded(200, 60)
