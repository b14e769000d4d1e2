"""Random operations on pools of files against a dictionary of bytes, with layers and with shared blocks."""

import pytest

from tests.support.volumemodel import Model, bounded


class Overlay(Model):
    kind = "overlay"


class Reflink(Model):
    kind = "reflink"


TestOverlay = Overlay.TestCase
TestOverlay.settings = bounded(8, 25)
TestReflink = Reflink.TestCase
TestReflink.settings = bounded(5, 25)


@pytest.mark.soak
class TestOverlayLong(Overlay.TestCase):
    """The same, for longer."""

    settings = bounded(400, 60)


@pytest.mark.soak
class TestReflinkLong(Reflink.TestCase):
    """The same, for longer."""

    settings = bounded(200, 60)
