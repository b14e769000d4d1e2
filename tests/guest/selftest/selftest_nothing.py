"""Tests that are there on the host and gone in the guest."""

import os

if not os.environ.get("BLOCKWRIGHT_IN_GUEST"):

    def test_only_on_the_host():
        raise AssertionError("never reached")
