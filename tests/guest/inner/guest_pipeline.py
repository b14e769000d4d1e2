"""Container images in thin volumes, in a kernel of our own: made, snapshots mounted and compared, killed anywhere."""

import os
import signal

import pytest

from blockwright.pipeline import manage
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.pools import pool_for
from blockwright.pipeline.states import Event, State
from blockwright.system.linux import dm
from blockwright.volume import destroy_pool, open_pool
from tests.support import volumes
from tests.support.killed import fork
from tests.support.pipeline import FILES, POOL, docker_archive, fetch, left, request
from tests.support.volumes import assert_clean


@pytest.fixture
def thin(tmp_path, monkeypatch):
    """A home whose pool is a thin one."""
    volumes.make_pool("thin", tmp_path, monkeypatch, POOL)
    yield tmp_path / "home"
    destroy_pool(POOL, force=True)
    with dm.Mapper() as mapper:
        assert mapper.devices() == []


def mounted(path, mount):
    """Every regular file below the mounted device, by path."""
    at = mount(path, fstype="ext4", options="rw")
    found = {}
    for folder, _, names in os.walk(at):
        for name in names:
            file = os.path.join(folder, name)
            if not os.path.islink(file):
                with open(file, "rb") as opened:
                    found[os.fsencode("/" + os.path.relpath(file, at))] = opened.read()
    return at, found


def test_a_snapshot_is_mounted_and_has_the_image_s_files(thin, tmp_path, mount):
    assert pool_for(POOL).why == ""
    outcome = fetch(request(docker_archive(tmp_path), activate=True))
    assert outcome.run.state is State.ACTIVE
    path = outcome.receipt(Event.ACTIVATE).outputs["path"]
    assert path.startswith("/dev/mapper/")
    at, found = mounted(path, mount)
    assert found == FILES
    (at / "written").write_bytes(b"by the user")
    again = fetch(outcome.run.request)
    assert again.fresh == ()
    with Images() as images:
        second = manage.activate(images, images.list()[0], Context(images.home), "second")
    assert mounted(second.receipts[-1].outputs["path"], mount)[1] == FILES  # the volume is as it was made


@pytest.mark.ci
def test_killed_anywhere_a_thin_volume_is_made_once(thin, tmp_path):
    wanted = request(docker_archive(tmp_path), activate=True)
    met = killed(wanted, 1 << 30)
    assert met is not None
    # What comes before touches no device, and is killed elsewhere.
    for at in range(met.index("create: begun"), len(met)):
        name = met[at]
        with Images() as images:
            manage.remove(images, images.list()[0], snapshots=True)
        assert killed(wanted, at) is None, name
        outcome = fetch(wanted)
        assert outcome.run.state is State.ACTIVE, name
        with open_pool(POOL) as driver:
            found = [each.name for each in driver.list()]
            assert found == [outcome.run.volume, f"{outcome.run.volume}-active"], name
            assert_clean(driver)
            assert list(driver.reconcile().lines) == [], name
        with dm.Mapper() as mapper:
            assert len(mapper.devices()) == 2, name  # the pool, and the snapshot
        assert left(thin) == []


def killed(wanted, at):
    """Fetch in a process that dies at its checkpoint number `at`; return those it met if it came to its end."""
    read, end = os.pipe()
    pid = fork()
    if not pid:
        met = []

        def checkpoint(name):
            if len(met) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            met.append(name)

        try:
            fetch(wanted, checkpoint)
            os.write(end, "\n".join(met).encode())
        finally:
            os._exit(0)
    os.close(end)
    with open(read, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else told.decode().split("\n")
