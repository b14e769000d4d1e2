import uuid

from hypothesis import given
from hypothesis import strategies as st

from blockwright.codec.identity import derive_bytes, derive_u32, derive_uuid


@given(st.binary(max_size=40), st.text(max_size=20))
def test_uuid_is_version_8_of_rfc_9562(seed, purpose):
    value = derive_uuid(seed, purpose)
    assert value.version == 8
    assert value.variant == uuid.RFC_4122
    assert value == derive_uuid(seed, purpose)


def test_seed_and_purpose_do_not_run_into_one_another():
    assert derive_uuid(b"ab", "c") != derive_uuid(b"a", "bc")
    assert derive_uuid(b"", "gpt.disk") != derive_uuid(b"gpt.disk", "")


def test_values_stay_what_released_images_carry():
    assert str(derive_uuid(b"seed", "gpt.disk")) == "3c0096be-cec6-8dc9-a316-15c79646e8ff"
    assert derive_u32(b"seed", "fat.volume") == 0x4B63B5AA


def test_shorter_is_the_beginning_of_longer():
    assert derive_bytes(b"s", "p", 64).startswith(derive_bytes(b"s", "p", 16))


def test_u32_is_never_zero():
    assert all(derive_u32(bytes([n]), "x") for n in range(256))
