"""Names, sizes, states and their transitions, and the documents that the journal keeps."""

import json

import pytest

from blockwright.errors import InUse, NotFound, UsageError
from blockwright.volume.info import (
    TRANSITIONS,
    Operation,
    State,
    VolumeInfo,
    check_name,
    check_size,
    check_transition,
    parse_volume_name,
)
from blockwright.volume.steps import Change


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "a\n", "ä", "x" * 64, "a\0", "٣", "a:1"])
def test_names_are_those_of_files_and_devices(name):
    with pytest.raises(UsageError, match="expected a name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "x" * 63])
def test_names_that_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize("size", [0, 1, 511, 513, -512, 1 << 63, (1 << 63) - 1])
def test_sizes_are_whole_sectors(size):
    with pytest.raises(UsageError, match="size"):
        check_size(size)


def test_the_largest_size():
    assert check_size((1 << 63) - 512) == (1 << 63) - 512


def test_every_operation_has_a_transition_and_no_state_is_a_dead_end():
    assert set(TRANSITIONS) == set(Operation)
    for state in set(State) - {State.ABSENT}:
        leaving = [
            each for each, (allowed, to) in TRANSITIONS.items() if state in allowed and to not in (None, state)
        ]
        assert leaving, state


@pytest.mark.parametrize(
    ("operation", "state", "error"),
    [
        (Operation.ACTIVATE, State.ABSENT, NotFound),
        (Operation.CREATE, State.INACTIVE, UsageError),
        (Operation.REMOVE, State.ACTIVE, InUse),
        (Operation.REMOVE, State.MOUNTED, InUse),
        (Operation.GROW, State.LOST, NotFound),
        (Operation.MOUNT, State.INACTIVE, InUse),
        (Operation.DEACTIVATE, State.MOUNTED, InUse),
    ],
)
def test_what_is_refused(operation, state, error):
    with pytest.raises(error, match="v"):
        check_transition(operation, "v", state)


def test_volumes_and_changes_survive_the_journal():
    volume = VolumeInfo("p", "v", 3, 4096, origin="u", state=State.ACTIVE, path="/x", extra={"layer": 7})
    change = Change(Operation.SNAPSHOT, None, volume, volume, {"names": ["w"]})
    document = json.loads(json.dumps(change.document()))
    assert Change.parse("snapshot", document) == change
    assert change.names == {"v", "w"}


@pytest.mark.parametrize("text", ["", "/a", "a/", "a/b/c", "../a"])
def test_a_volume_is_named_by_pool_and_name(text):
    with pytest.raises(UsageError):
        parse_volume_name(text)
