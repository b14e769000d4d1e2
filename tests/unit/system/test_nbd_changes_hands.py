"""A device that was somebody else's by the time it was to be detached stays."""

import os
import sys
from dataclasses import replace

import pytest

from blockwright.system.linux import nbd
from blockwright.system.linux.nbd import ownership
from blockwright.system.linux.nbd.state import NbdState
from blockwright.system.linux.registry import Registry

# The package has functions of these names.
detach, gc, state = (sys.modules[f"blockwright.system.linux.nbd.{each}"] for each in ("detach", "gc", "state"))
OURS = NbdState(3, "/dev/nbd3", 1 << 20, 512, False, 77, "blockwright-x", 0)
OTHER = replace(OURS, task=78, identifier="of another")


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Give the answers to how device 3 is attached, the last of which stays, and what was disconnected."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(detach, "require_driver", lambda *_: None)
    monkeypatch.setattr(gc, "require_driver", lambda *_: None)
    answers, gone = [], []
    monkeypatch.setattr(state, "state", lambda _: answers.pop(0) if len(answers) > 1 else answers[0])
    monkeypatch.setattr(state, "exists", lambda _: True)
    monkeypatch.setattr(state, "number_of", int)
    monkeypatch.setattr(state, "node", lambda _: OURS.path)

    def disconnect(number):
        gone.append(number)
        answers[:] = [None]

    monkeypatch.setattr(detach, "_disconnect", disconnect)
    return answers, gone


def test_what_is_ours_goes(kernel):
    answers, gone = kernel
    answers[:] = [OURS]
    assert nbd.detach(3, force=True)
    assert gone == [3]


def test_what_becomes_somebody_elses_meanwhile_stays(kernel):
    answers, gone = kernel
    answers[:] = [OURS, OTHER]
    assert nbd.detach(3, force=True)  # ours is not attached any more
    assert gone == []


def test_gc_leaves_what_changed_hands_while_it_was_at_others(kernel, monkeypatch):
    answers, gone = kernel
    registry = Registry(ownership.KIND)
    registry.put("x", {"number": 3, "task": 77, "identifier": "blockwright-x"}, owned=True)
    monkeypatch.setattr("blockwright.owner.process_identity", lambda _: None)
    answers[:] = [OURS, OTHER]
    assert nbd.gc() == gc.Collected((), ())
    assert gone == []
    assert list(registry.records()) == []
