"""Chunks made ahead: the end is told whatever happens there."""

import pytest

from blockwright.tree.readahead import ReadAhead


@pytest.mark.timeout(20)
def test_an_end_that_fails_does_not_keep_anybody_waiting():
    def fails():
        raise OSError(5, "cannot be closed")

    ahead = ReadAhead(iter([b"one"]), 2, finished=fails)
    assert ahead.get() == b"one"
    with pytest.raises(OSError, match="cannot be closed"):
        ahead.get()


def test_an_error_of_the_iterator_counts_before_one_of_the_end():
    def chunks():
        yield b"one"
        raise ValueError("first")

    ahead = ReadAhead(chunks(), 2, finished=lambda: None)
    assert ahead.get() == b"one"
    with pytest.raises(ValueError, match="first"):
        ahead.get()
