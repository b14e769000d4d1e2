"""What every test shares: hypothesis profiles, and which marked tests run when."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace, TracebackType

import hypothesis
import pytest

from blockwright.testing import device
from tests.support.tools import under_ci

_HERE = Path(__file__).parent

# No time decides a test: neither that of a case, nor that in which cases are made up.
_always = hypothesis.settings(deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow])
if not os.access(".", os.W_OK):
    _always = hypothesis.settings(_always, database=None)  # the checkout is somebody else's

hypothesis.settings.register_profile("default", _always)
# The same cases for the same tree: what lets a change in must not depend on chance. Elsewhere they are new ones.
hypothesis.settings.register_profile("ci", _always, max_examples=200, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if under_ci() else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Have ``check_device`` take the same cases too, where it is given no seed."""
    if under_ci():
        patch = pytest.MonkeyPatch()
        patch.setattr(device, "secrets", SimpleNamespace(randbits=lambda _bits: 1))
        config.add_cleanup(patch.undo)


# A shell starts what it leaves in the background deaf to SIGINT, and so would be every program of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """Undo what a command that ran in this process did to signals: later programs ignore what is ignored here."""
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {each: signal.getsignal(each) for each in names}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for each, handler in handlers.items():
        if signal.getsignal(each) is not handler:
            signal.signal(each, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """Give every line of a traceback a number.

    A time limit interrupts anywhere, also at an instruction CPython has no line for, and pytest then ends the whole
    session with an error of its own.
    """
    if call.excinfo is not None and call.excinfo._excinfo is not None:
        kind, value, traceback = call.excinfo._excinfo
        call.excinfo._excinfo = (kind, value, _numbered(traceback))


def _numbered(traceback: TracebackType) -> TracebackType:
    """The same traceback, with a function's first line wherever an entry has none."""
    entries = [traceback]
    while entries[-1].tb_next is not None:
        entries.append(entries[-1].tb_next)
    after = None
    for entry in reversed(entries):
        line = entry.tb_frame.f_code.co_firstlineno if entry.tb_lineno is None else entry.tb_lineno
        after = TracebackType(after, entry.tb_frame, entry.tb_lasti, line)
    return after or traceback


_UNPRIVILEGED = ("interop", "guest/inner/guest_kernel.py", "guest/inner/guest_build.py")
"""Where tests are whose point is that no root is needed, but for long ones (`ci`); others mark theirs one by one. Of
those in a guest, whose user is root whoever starts it, the ones that prove that anybody can start it, and what was
built outside of it.
"""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by where they are, and skip what is marked `ci` or `soak` unless it was asked for.

    `ci` is asked for by CI=true or by name (`-m ci`), `soak` by name only.
    """
    for item in items:
        where = item.path.relative_to(_HERE).as_posix()
        if where.startswith(_UNPRIVILEGED) and item.get_closest_marker("ci") is None:
            item.add_marker("unprivileged")
    if os.environ.get("BLOCKWRIGHT_IN_GUEST"):
        return  # what runs there was asked for outside
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
