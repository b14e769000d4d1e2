import dataclasses

import pytest

from blockwright.finding import Finding


def test_text_says_rule_message_and_place():
    assert str(Finding("gpt.crc", "expected 1, found 2")) == "gpt.crc: expected 1, found 2"
    assert str(Finding("gpt.crc", "expected 1, found 2", 0)) == "gpt.crc: expected 1, found 2 (byte 0)"


def test_is_a_value():
    assert Finding("a", "b", 5) == Finding("a", "b", 5)
    assert len({Finding("a", "b"), Finding("a", "b"), Finding("a", "b", repairable=True)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding("a", "b").rule = "c"
