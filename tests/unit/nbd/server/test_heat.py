import json

import pytest

from blockwright.nbd.server.heat import CELLS, Heat, HeatMap
from blockwright.nbd.server.metrics import ExportMetrics


@pytest.mark.parametrize("size", [0, 1, 511, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 62) + 5])
def test_cells_are_few_and_cover_all(size):
    found = Heat(size).snapshot()
    assert 1 <= len(found.reads) <= CELLS
    assert len(found.reads) << found.shift >= size
    assert size < CELLS or len(found.reads) > CELLS // 2 - 1


def test_runs_are_dealt_out_and_what_lies_behind_the_end_is_the_last_cell_s():
    heat = Heat(1 << 20)
    heat.touch(4000, 200, written=True)
    heat.touch(8192, 12288, written=False)
    heat.touch((1 << 20) - 1, 10_000, written=False)
    found = heat.snapshot()
    assert found.writes[:2] == (96, 104)
    assert found.reads[2:5] == (4096, 4096, 4096)
    assert sum(found.reads) == 12288 + 10_000
    assert found.reads[-1] == 10_000


def test_calls_are_counted_where_they_did_something():
    heat = Heat(1 << 20)
    ready = heat.reading(lambda offset, _buffers: offset < 8192)
    assert ready(4096, (memoryview(bytes(512)),))
    assert not ready(8192, (memoryview(bytes(512)),))

    def write(offset, _buffers, *, durable):
        if offset:
            raise OSError

    counted = heat.writing(write)
    counted(0, (b"abc",), durable=False)
    with pytest.raises(OSError):
        counted(4096, (b"abc",), durable=False)
    found = heat.snapshot()
    assert (found.reads[1], sum(found.reads)) == (512, 512)
    assert (found.writes[0], sum(found.writes)) == (3, 3)
    grown = heat.writing(lambda *_args, durable: None)
    grown(1 << 30, (b"abc",), durable=False)
    assert heat.snapshot().writes[-1] == 3


def test_maps_of_other_cells_are_added_in_the_larger_ones():
    small, large = HeatMap(12, (1, 2, 3), (0, 0, 1)), HeatMap(13, (10,), (20,))
    assert small + large == HeatMap(13, (13, 3), (20, 1))
    assert large + small == small + large
    assert HeatMap(0, (), ()) + large == large
    assert HeatMap.of_fields(json.loads(json.dumps(small.fields()))) == small


def test_sessions_are_added_up_and_kept():
    metrics = ExportMetrics(heat=True)
    first, second = metrics.begin_heat(1 << 20), metrics.begin_heat(1 << 20)
    first.touch(0, 5, written=False)
    second.touch(0, 7, written=False)
    metrics.end_heat(first)
    assert metrics.heat().reads[0] == 12
    metrics.end_heat(second)
    assert metrics.heat().reads[0] == 12
    assert ExportMetrics().begin_heat(1 << 20) is None
