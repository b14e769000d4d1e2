"""Every operation of a driver is one that is killed between any two of its steps, by both drivers' tests."""

import inspect

import pytest

from blockwright.volume import Driver, Operation
from tests.faults import test_volume_killed as files
from tests.guest.inner import guest_pools as pools
from tests.guest.inner import guest_thin_volumes as thin
from tests.guest.inner import guest_volume_killed as kernel

ASKS = {"get", "list", "open", "status", "check", "pause"}
"""What changes nothing."""
POOLS = {
    "reconcile": "what_comes_after_is_killed_too",
    "repair": "who_dies_while_metadata_is_repaired_leaves_the_old_or_the_new",
    "tend": "ends in grow_pool",
    "grow_pool": "who_dies_while_a_pool_grows_leaves_it_whole",
    "destroy": "a_pool_whose_destruction_was_killed_is_destroyed_again",
}
"""What is not in the lists: which test kills it, or what it comes to."""
TESTED = {"file": [files.OPERATIONS, kernel.OPERATIONS], "thin": [thin.OPERATIONS, kernel.OPERATIONS]}


def public(of):
    return {name for name, each in vars(of).items() if inspect.isfunction(each) and not name.startswith("_")}


@pytest.mark.parametrize("driver", TESTED)
def test_every_operation_is_killed(driver):
    killed = {name.split()[0] for names in TESTED[driver] for name in names}
    assert public(Driver) - ASKS - POOLS.keys() <= killed
    assert {each.value for each in Operation} - {"tidy"} <= killed  # which follows a removal


def test_those_that_are_not_in_the_lists_have_tests_of_their_own():
    assert POOLS.keys() <= public(Driver)
    tests = public(files) | public(pools)
    assert {f"test_{name}" for name in POOLS.values() if not name.startswith("ends in")} <= tests
