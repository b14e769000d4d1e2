"""Areas behind data are found by the device's size alone, and nothing else is taken for one."""

from uuid import UUID

import pytest

from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.errors import NotThisFormat
from blockwright.testing.recording import RecordingDevice
from blockwright.units import MAX_SIZE
from blockwright.verity.find import area_of, find_behind
from blockwright.verity.format import protected
from blockwright.verity.layout import Parameters


@pytest.mark.parametrize("blocks", [1, 2, 129, 1000])
@pytest.mark.parametrize("algorithm", ["sha1", "sha512"])
def test_areas_of_every_size_are_found(blocks, algorithm):
    for data_block in (512, 2048, 4096, 65536):
        for hash_block in (512, 4096, 65536):
            parameters = Parameters(blocks, algorithm, b"salt", data_block, hash_block)
            whole, _ = protected(ZeroDevice(parameters.data_size), parameters, UUID(int=9))
            offset, area = find_behind(whole)
            assert (offset, area.parameters) == (parameters.data_size, parameters)
            assert area_of(whole, None, behind=True) == area


@pytest.mark.parametrize("size", [0, 511, 512, 4096, 12345 * 512, 1 << 50, MAX_SIZE])
def test_nothing_is_found_where_nothing_is(size):
    assert find_behind(ZeroDevice(size)) is None
    with pytest.raises(NotThisFormat):
        area_of(ZeroDevice(size), None, behind=True)


def test_an_area_that_speaks_of_other_data_is_none():
    parameters = Parameters(10)
    whole, _ = protected(ZeroDevice(parameters.data_size), parameters, UUID(int=9))
    copy = MemoryDevice(content=whole.read(0, whole.size))
    copy.write(40960, Parameters(11).superblock(UUID(int=9)))
    assert find_behind(copy) is None
    copy.write(40960, Parameters(10, hash_block=512).superblock(UUID(int=9)))
    assert find_behind(copy) is None


def test_little_is_read():
    device = RecordingDevice(ZeroDevice(1 << 40))
    find_behind(device)
    assert sum(call.name == "read" for call in device.calls) <= 11 * 11 * 2
