"""What every test shares: hypothesis profiles, and which marked tests run when."""

import os

import hypothesis
import pytest

from tests.support.tools import under_ci

_always = hypothesis.settings(deadline=None, print_blob=True)
if not os.access(".", os.W_OK):
    _always = hypothesis.settings(_always, database=None)  # the checkout is somebody else's

hypothesis.settings.register_profile("default", _always)
hypothesis.settings.register_profile("ci", _always, max_examples=200)
hypothesis.settings.load_profile("ci" if under_ci() else "default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `ci` or `soak`, unless CI is true or `-m` asks for it by name."""
    asked = config.getoption("markexpr", "")
    if "ci" not in asked and not under_ci():
        _skip(items, "ci", "runs with CI=true, or with -m ci")
    if "soak" not in asked:
        _skip(items, "soak", "runs in make soak, or with -m soak")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if item.get_closest_marker(marker) is not None:
            item.add_marker(skip)
