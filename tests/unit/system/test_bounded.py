"""Calls that may not end are waited for as long as they should be, and what comes late is not lost."""

import threading
from itertools import count

import pytest

from blockwright.system.linux.bounded import within


def test_results_and_errors_come_through():
    assert within(60, lambda: 7, late=pytest.fail) == 7
    with pytest.raises(ValueError, match="seven"):
        within(60, lambda: [][int("seven")], late=pytest.fail)


def test_what_does_not_end_is_given_up_and_its_result_is_passed_on():
    ended, given = threading.Event(), threading.Event()
    late = []

    def function():
        ended.wait(60)
        return 7

    def take(result):
        late.append(result)
        given.set()

    with pytest.raises(TimeoutError, match=r"not done after 0\.01 s"):
        within(0.01, function, late=take)
    ended.set()
    assert given.wait(60)
    assert late == [7]


def test_it_is_waited_for_as_long_as_something_gets_done():
    ended = threading.Event()
    steps = count()

    def progress():
        step = next(steps)
        if step == 5:
            ended.set()
        return step

    assert within(0.001, lambda: ended.wait(60), late=pytest.fail, progress=progress) is True
