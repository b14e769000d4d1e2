"""A bounded run of the fuzz target: images with a field changed, mostly with right checksums, and then edited."""

import time

import pytest

from tests.fuzz.ext4_edit_target import fuzz_one
from tests.fuzz.test_ext4_fuzz import starts
from tests.support.ext4_mutations import Inventory, mutate

ROUNDS = 10
MAX_SECONDS = 10


@pytest.mark.parametrize(("name", "clean"), starts(), ids=lambda value: value if isinstance(value, str) else "")
def test_editing_damaged_file_systems_raises_our_errors_only(name, clean):
    inventory = Inventory(clean)
    fuzz_one(clean)
    for number in range(ROUNDS):
        data = bytearray(clean)
        mutation = mutate(inventory, f"edit.{name}.{number}")
        for offset, _old, new in mutation.patches:
            data[offset : offset + len(new)] = new
        started = time.monotonic()
        try:
            fuzz_one(bytes(data))
        except Exception as error:
            raise AssertionError(f"replay: edit.{name}.{number}, {mutation}") from error
        assert time.monotonic() - started < MAX_SECONDS, f"replay: edit.{name}.{number}, {mutation}"
