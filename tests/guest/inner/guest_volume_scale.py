"""Many volumes and many snapshots in one thin pool: what one costs does not grow, and nothing of them is left."""

import os
from collections import Counter
from pathlib import Path

import pytest

from blockwright.system.linux import dm, loop
from blockwright.system.linux.dm.control import Control
from blockwright.units import GiB, MiB
from blockwright.volume import State, create_pool, destroy_pool, open_pool
from tests.support import volumes
from tests.support.volumes import assert_clean


@pytest.fixture
def requests(monkeypatch):
    """What device-mapper was asked, by name and how often."""
    counted: Counter[str] = Counter()
    request = Control.request

    def counting(control, command, *arguments, **options):
        counted[command.name] += 1
        return request(control, command, *arguments, **options)

    monkeypatch.setattr(Control, "request", counting)
    return counted


def in_kernel():
    with dm.Mapper() as mapper:
        return {each.name for each in mapper.devices()}


@pytest.mark.ci
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_many_volumes_and_a_snapshot_of_each(tmp_path, monkeypatch, requests, count):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    create_pool("p", "thin", {"size": 64 * GiB})
    names = [f"v{number}" for number in range(count)]
    with open_pool("p") as pool:
        pool.list()
        empty = pool.status()
        costs = {}

        def each(what, operation, names):
            """Do it to all; what it asks of the kernel is the same for the second and for the last."""
            for at, name in enumerate(names):
                requests.clear()
                operation(name)
                if at == 1:
                    costs[what] = dict(requests)
            assert costs[what].keys() == requests.keys(), what
            grown = {key: requests[key] - number for key, number in costs[what].items()}
            # An answer that is long is asked for once more; what is in use just then is tried again.
            assert all(more <= 4 for more in grown.values()), f"{what}: {costs[what]} became {dict(requests)}"

        each("create", lambda name: pool.create(name, MiB), names)
        each("snapshot", lambda name: pool.snapshot(name, f"s{name}"), names)
        each("activate", pool.activate, names)
        each("snapshot of what is active", lambda name: pool.snapshot(name, f"a{name}"), names)
        assert in_kernel() == {"p+", *(f"p+{name}" for name in names)}
        found = pool.list()
        assert [each.name for each in found] == sorted(prefix + name for name in names for prefix in ("", "s", "a"))
        assert sum(each.state is State.ACTIVE for each in found) == count
        assert len(pool.check()) == 0
        with open_pool("p") as other:
            requests.clear()
            assert other.reconcile().lines == []
            assert requests.total() < 8 * count + 100
        each("deactivate", pool.deactivate, names)
        for prefix in ("", "s", "a"):
            each(f"remove {prefix}", pool.remove, [prefix + name for name in names])
        assert pool.list() == []
        assert_clean(pool)
        assert in_kernel() == {"p+"}
        left = pool.status()
        assert (left.data_used, left.metadata_used) == (empty.data_used, empty.metadata_used)
        folder = Path(pool.spec.text("directory"))
        assert (folder / "data").stat().st_blocks == 0
    destroy_pool("p")
    assert in_kernel() == set()
    assert not any(str(folder) in each.backing for each in loop.states())
    assert os.listdir(tmp_path / "home" / "pools") == []
