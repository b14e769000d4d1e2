"""What keeps failing is told where it begins and where it ends, and counted each time."""

import errno
import os

import pytest

from blockwright.nbd.server.metrics import ServerMetrics
from blockwright.nbd.server.unaccepted import QUIET_S, Unaccepted


class Case:
    def __init__(self):
        self.now = 1000.0
        self.lines = []
        self.metrics = ServerMetrics()
        self.loop = Unaccepted(lambda event, **more: self.lines.append((event, more)), self.metrics, lambda: self.now)

    def fail(self, listener="a", number=errno.EMFILE):
        self.loop.failed(listener, OSError(number, os.strerror(number)))

    def pass_by(self, seconds):
        """Let time pass as the loop does: with a look a second."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1)
            self.loop.look()


def begun(number):
    return "not accepted", {"reason": os.strerror(number).lower()}


def ended(number, failed):
    return "accepting again", {"reason": os.strerror(number).lower(), "failed": failed}


def test_a_trouble_has_two_lines_however_long_it_takes():
    case = Case()
    for _ in range(600):
        case.fail()
        case.loop.look()
        case.now += 0.05
    assert case.lines == [begun(errno.EMFILE)]
    case.loop.accepted("a")
    case.pass_by(QUIET_S + 1)
    assert case.lines == [begun(errno.EMFILE), ended(errno.EMFILE, 600)]
    case.pass_by(QUIET_S + 1)
    assert len(case.lines) == 2
    case.fail()
    assert case.lines[2:] == [begun(errno.EMFILE)], "the next one is told as the first"
    assert case.metrics.events() == {("not accepted", "EMFILE"): 601}


def test_it_is_not_over_before_somebody_was_accepted():
    case = Case()
    case.fail()
    case.pass_by(10 * QUIET_S)
    assert case.lines == [begun(errno.EMFILE)]
    case.loop.accepted("a")
    case.loop.look()
    assert case.lines[1:] == [ended(errno.EMFILE, 1)]


def test_a_server_at_its_limit_has_one_with_all_who_come_and_go():
    case = Case()
    for _ in range(100):
        case.fail()
        case.loop.accepted("a")
        case.pass_by(QUIET_S - 0.5)
    assert case.lines == [begun(errno.EMFILE)]
    case.pass_by(1)
    assert case.lines[1:] == [ended(errno.EMFILE, 100)]


def test_a_failure_behind_an_accepted_client_needs_another_one():
    case = Case()
    case.loop.accepted("a")
    case.fail()
    case.loop.accepted("a")
    case.fail()
    case.pass_by(10 * QUIET_S)
    assert case.lines == [begun(errno.EMFILE)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_what_all_lack_is_one_trouble(number):
    case = Case()
    case.fail("a", number)
    case.fail("b", number)
    case.loop.accepted("b")
    case.pass_by(QUIET_S + 1)
    assert case.lines == [begun(number), ended(number, 2)]


def test_what_a_listener_has_of_its_own_stays_its_own():
    """One that is broken for good says so once, however many come to the others."""
    case = Case()
    for _ in range(10):
        case.fail("broken", errno.EINVAL)
        case.loop.accepted("whole")
        case.pass_by(QUIET_S + 1)
    assert case.lines == [begun(errno.EINVAL)]
    case.fail("whole", errno.EINVAL)
    assert case.lines == [begun(errno.EINVAL)] * 2
    case.loop.accepted("whole")
    case.pass_by(QUIET_S + 1)
    assert case.lines[2:] == [ended(errno.EINVAL, 1)]


def test_an_error_without_a_number_is_told_by_its_text():
    case = Case()
    case.loop.failed("a", OSError("Something Else"))
    assert case.lines == [("not accepted", {"reason": "something else"})]
    assert case.metrics.events() == {("not accepted", "other"): 1}
