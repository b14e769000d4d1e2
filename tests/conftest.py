"""What every test shares: hypothesis profiles, and which marked tests run when."""

import os
from pathlib import Path

import hypothesis
import pytest

from tests.support.tools import under_ci

_HERE = Path(__file__).parent

_always = hypothesis.settings(deadline=None, print_blob=True)
if not os.access(".", os.W_OK):
    _HERE = Path(__file__).parent

_always = hypothesis.settings(_always, database=None)  # the checkout is somebody else's

hypothesis.settings.register_profile("default", _always)
hypothesis.settings.register_profile("ci", _always, max_examples=200)
hypothesis.settings.load_profile("ci" if under_ci() else "default")


_UNPRIVILEGED = ("interop", "guest/inner")
"""Directories of tests whose point is that no root is needed; others mark theirs one by one."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by where they are, and skip what is marked `ci` or `soak` unless it was asked for.

    `ci` is asked for by CI=true or by name (`-m ci`), `soak` by name only.
    """
    for item in items:
        if item.path.relative_to(_HERE).as_posix().startswith(_UNPRIVILEGED):
            item.add_marker("unprivileged")
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
