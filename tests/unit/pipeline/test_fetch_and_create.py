"""One image from its archive to a volume, and again."""

import os

import pytest

from blockwright.pipeline.images import Images
from blockwright.pipeline.states import STEPS, Event, State
from blockwright.volume import open_pool
from tests.support.pipeline import (
    FILES,
    POOL,
    command,
    content,
    docker_archive,
    fetch,
    home,
    left,
    packed,
    parsed,
    request,
    volumes,
)

__all__ = ["home"]


def test_a_docker_archive_becomes_a_volume(home, tmp_path):
    outcome = fetch(request(docker_archive(tmp_path)))
    assert outcome.run.state is State.READY
    assert tuple(outcome.fresh) == STEPS
    assert content(f"volume:{POOL}/{outcome.run.volume}") == FILES
    assert volumes() == [outcome.run.volume]
    assert left(home) == []


def test_it_is_made_once(home, tmp_path):
    path = docker_archive(tmp_path)
    first = fetch(request(path))
    names: list[str] = []
    second = fetch(request(path), names.append)
    assert second.fresh == ()
    assert names == []
    assert [each.digest for each in second.receipts] == [each.digest for each in first.receipts]


def test_another_archive_under_the_same_name_is_another_image(home, tmp_path):
    first = fetch(request(docker_archive(tmp_path)))
    os.unlink(tmp_path / "image.tar")
    second = fetch(request(docker_archive(tmp_path)))
    assert first.run.id != second.run.id
    assert len(volumes()) == 2


@pytest.mark.parametrize("activate", [False, True])
def test_an_archive_that_passes_once(home, tmp_path, activate):
    outcome = fetch(request(packed(tmp_path), activate=activate))
    assert content(f"volume:{POOL}/{outcome.run.volume}") == {
        b"/etc/os-release": b"ID=test\n",
        b"/bin/tool": b"tool" * 5000,
        b"/gone": b"g",
    }
    if activate:
        found = outcome.receipt(Event.ACTIVATE)
        assert os.path.exists(found.outputs["path"])
        assert outcome.run.state is State.ACTIVE


def test_a_volume_that_is_gone_is_made_again(home, tmp_path):
    path = docker_archive(tmp_path)
    first = fetch(request(path))
    with open_pool(POOL) as driver:
        driver.remove(first.run.volume)
    again = fetch(request(path))
    assert list(again.fresh) == [Event.CREATE]
    assert again.run.volume == first.run.volume
    assert content(f"volume:{POOL}/{again.run.volume}") == FILES


def test_the_command_prints_the_path_and_nothing_else(home, tmp_path):
    path = docker_archive(tmp_path)
    out, lines = command("fetch-and-create", path, "--pool", POOL)
    with Images() as images:
        (found,) = images.list()
    assert out == f"volume:{POOL}/{found.volume}\n"
    assert [line.partition(":")[0] for line in lines] == ["run", "device-mapper", "status", "scan"]
    listed = parsed("image", "ls")["images"]
    assert [each["id"] for each in listed] == [found.id]
    assert "[ready]" in command("image", "show", found.id)[0]
