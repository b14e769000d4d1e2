"""An image's list by the real syft, kept, and judged anew by the real debsecan when its data knows more."""

import os
import shutil
import zlib

import pytest

from blockwright.pipeline.images import Images
from blockwright.pipeline.verdicts import all_of
from blockwright.scan.sbom import parse_sbom
from tests.interop.scan.test_scan_peers import FEED, SUITE, rootfs, syft, versions
from tests.support.pipeline import POOL, command, home, parsed
from tests.support.tools import tool

__all__ = ["home", "rootfs"]


@pytest.mark.slow
def test_an_image_is_judged_by_data_that_came_later(home, tmp_path, rootfs, monkeypatch):
    source, feed = tmp_path / "root", tmp_path / "feed"
    shutil.copytree(rootfs, source, symlinks=True)
    monkeypatch.setenv("PATH", f"{os.path.dirname(syft())}{os.pathsep}{os.environ['PATH']}")
    by = ["--scanner", "debsecan", "--program", tool("debsecan"), "--database", str(feed)]
    feed.write_bytes(zlib.compress(FEED.replace(b"SH F,99:1-1", b"SH F,0")))
    asked = [each.replace("--", "") for each in by]
    options = [f"--scanner-option={name}={value}" for name, value in zip(asked[2::2], by[3::2], strict=True)]
    words = ("fetch-and-create", str(source), "--pool", POOL, "--scan", "enforce", "--sbom", "--scanner", "debsecan")
    _, lines = command(*words, *options, "--activate")
    assert "scan: clean: no HIGH or CRITICAL vulnerabilities (1 of unknown severity)" in lines
    shutil.rmtree(source)
    (image,) = parsed("image", "ls")["images"]
    listed = parse_sbom(command("image", "show", image["id"], "--sbom")[0].encode(), "list")
    assert {each.name: each.version for each in listed.packages if each.kind == "deb"} == versions()
    feed.write_bytes(zlib.compress(FEED))
    (entry,) = parsed("image", "scan", "--enforce", *by, code=3)["images"]
    assert entry["line"] == "scan: 1 vulnerability: 1 HIGH (1 of unknown severity)"
    assert entry["active"] == [f"{image['volume']}-active"]
    assert entry["verdict"]["scanner_version"]
    assert SUITE in entry["verdict"]["findings"][0]["fixed"]
    with Images() as images:
        (judged,) = all_of(images.runs.journal, image["id"])
    assert judged.verdict["database_version"].startswith("sha256:")
    os.utime(feed, (1, 1))
    assert "of at most 7 days" in parsed("image", "scan", *by, code=1)["images"][0]["line"]
