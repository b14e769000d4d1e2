"""The pool that images go to, made on first use, and what stands in for what this machine lacks."""

import os
import sys

import pytest

from blockwright.errors import KernelError, UsageError
from blockwright.pipeline import pools
from blockwright.pipeline.pools import DEFAULT, pool_for
from blockwright.volume import load_spec, pool_names
from tests.support.pipeline import command, docker_archive
from tests.support.together import run_together

pytestmark = pytest.mark.unprivileged


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("thin", [False, True])
def test_files_stand_in_where_there_is_no_device_mapper(monkeypatch, tmp_path, thin):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(pools, "_MAPPER", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "platform", "linux")
    found = pool_for("p", thin=thin)
    assert (found.driver, found.why) == ("file", "the kernel has no device-mapper: modprobe dm_mod")
    assert pool_for("p", thin=thin) == found


def test_why_it_is_files_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "_MAPPER", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert pool_for("b", thin=True).why == "device-mapper needs root"
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert pool_for("c").why == "no thin pool was asked for"
    assert pool_for("c").why == "pool c is one of files"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert pool_for("c", thin=True).why == "darwin has no device-mapper"


def test_a_thin_pool_that_cannot_be_made_is_one_of_files(monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "_MAPPER", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    create = pools.create_pool
    asked = []

    def refuse(name, driver, options=None):
        asked.append(driver)
        if driver == "thin":
            raise KernelError("table load", "/dev/mapper/control", 22, "invalid argument")
        return create(name, driver, options)

    monkeypatch.setattr(pools, "create_pool", refuse)
    found = pool_for("p", thin=True)
    assert asked == ["thin", "file"]
    assert found.driver == "file"
    assert "invalid argument" in found.why


def test_several_make_the_same_pool_at_once():
    run_together([lambda: pool_for("p")] * 6)
    assert load_spec("p").driver == "file"


def test_what_is_no_name():
    with pytest.raises(UsageError):
        pool_for("../p")


def test_the_command_makes_the_pool(tmp_path):
    out, lines = command("fetch-and-create", docker_archive(tmp_path), "--scan", "off")
    assert pool_names() == [DEFAULT]
    assert out.startswith(f"volume:{DEFAULT}/image.tar-")
    assert lines[1].startswith("device-mapper: files of pool images stand in for it: ")
