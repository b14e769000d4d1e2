"""`blockwright scan`, as a shell sees it."""

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import time

import pytest

from tests.support.command import COMMAND, blockwright
from tests.support.faketrivy import FakeTrivy, report, vulnerability
from tests.support.scantrees import RELEASE, STATUS


@pytest.fixture
def trivy(tmp_path):
    return FakeTrivy(tmp_path / "program")


@pytest.fixture
def rootfs(tmp_path):
    folder = tmp_path / "rootfs"
    (folder / "var/lib/dpkg").mkdir(parents=True)
    (folder / "etc").mkdir()
    (folder / "etc/os-release").write_bytes(RELEASE)
    (folder / "var/lib/dpkg/status").write_bytes(STATUS)
    return folder


@pytest.fixture
def command(trivy, tmp_path):
    """Runs the command with Trivy the only program that there is, and holds it to leave nothing behind."""
    workdir = tmp_path / "work"
    workdir.mkdir()

    def command(*arguments, code=0, **given):
        extra = ["--workdir", workdir, "--database", tmp_path / "cache"]
        done = blockwright("scan", *arguments, *extra, code=code, env={"PATH": str(trivy.folder)}, **given)
        assert os.listdir(workdir) == []
        return done

    return command


@pytest.mark.slow
def test_exit_codes_and_lines(trivy, rootfs, command, tmp_path):
    assert command(rootfs).stdout == b"clean: no HIGH or CRITICAL vulnerabilities\n"
    trivy.says(report(vulnerability("CVE-1", Title="a\x1b[31mb"), vulnerability("CVE-2", "LOW")))
    lines = command(rootfs, code=3).stdout.splitlines()
    assert lines == [
        b"HIGH  CVE-1  openssl  3.0.1  fixed: 3.0.2  a\\x1b[31mb",
        b"1 vulnerability: 1 HIGH",
    ]
    assert len(command(rootfs, "--all", code=3).stdout.splitlines()) == 3
    assert command(rootfs, "--allow", "CVE-1=9999-01-01").stdout.endswith(b"vulnerabilities (1 allowed)\n")
    assert b"1 LOW" in command(rootfs, "--severity", "low", code=3).stdout
    policy = tmp_path / "policy.toml"
    policy.write_text('severities = ["CRITICAL"]\n')
    assert command(rootfs, "--policy", policy).stdout == b"clean: no CRITICAL vulnerabilities\n"
    policy.write_text("\nsevere = 1\n")
    assert b"policy.toml:2: policy: severe: expected one of" in command(rootfs, "--policy", policy, code=1).stderr


@pytest.mark.slow
def test_no_verdict_is_exit_code_1(trivy, rootfs, command):
    trivy.says("{")
    done = command(rootfs, code=1)
    assert done.stdout == b""
    assert done.stderr.startswith(b"blockwright: no verdict: trivy: trivy's report: report: expected JSON")
    done = command(rootfs, "--json", code=1)
    assert json.loads(done.stdout)["verdict"]["decision"] == "failed"
    assert json.loads(done.stderr)["error"]["class"] == "ScanFailed"
    assert b"clamav is not installed" in command(rootfs, "--scanner", "clamav", code=1).stderr


def test_json(trivy, rootfs, command):
    trivy.says(report(vulnerability("CVE-1")))
    found = json.loads(command(rootfs, "--json", code=3).stdout)
    assert found["schema"] == "blockwright.scan/1"
    assert found["line"] == "1 vulnerability: 1 HIGH"
    assert found["verdict"]["counts"]["HIGH"] == 1
    assert found["verdict"]["findings"][0]["identity"] == "CVE-1"


@pytest.mark.slow
def test_an_sbom_is_written_and_scanned_again(trivy, rootfs, command, tmp_path):
    path = tmp_path / "sbom.json"
    component = {"type": "library", "name": "openssl", "purl": "pkg:deb/debian/openssl@3.0.1?arch=amd64"}
    sbom = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [component]})
    trivy.says(sbom)
    command(rootfs, "--scanner", "none", "--sbom", path)
    assert path.read_text() == sbom
    assert b"exists already" in command(rootfs, "--scanner", "none", "--sbom", path, code=2).stderr
    trivy.says(report(vulnerability("CVE-1")))
    assert command("--from-sbom", path, code=3).stdout.endswith(b"1 vulnerability: 1 HIGH\n")
    assert trivy.calls[-1]["argv"][0] == "sbom"
    trivy.says("{}")
    assert b"not written: SBOM" not in command(rootfs, "--scanner", "none", "--sbom", tmp_path / "b", code=1).stdout
    assert not (tmp_path / "b").exists()


def test_a_stream_is_scanned(trivy, rootfs, command, tmp_path):
    with tarfile.open(tmp_path / "r.tar.gz", "w:gz") as archive:
        archive.add(rootfs, ".")
    done = command("-", input=(tmp_path / "r.tar.gz").read_bytes())
    assert done.stdout.startswith(b"clean:")
    assert set(trivy.calls[-1]["shown"]) == {"etc/os-release", "var/lib/dpkg/status"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rootfs", "--from-sbom", "x"],
        ["--from-sbom", "x", "--sbom", "y"],
        ["rootfs", "--scanner", "none"],
        ["--from-sbom", "x", "--scanner", "none"],
        ["rootfs", "--allow", "CVE-1"],
        ["rootfs", "--allow", "CVE-1=soon"],
        ["rootfs", "--severity", "worst"],
        ["rootfs", "--max-database-age", "old"],
        ["rootfs", "--program", "/bin/true"],
    ],
)
def test_wrong_use(rootfs, command, arguments):
    command(*[rootfs if each == "rootfs" else each for each in arguments], code=2)


def test_what_is_not_there(command, tmp_path):
    command(tmp_path / "none", code=5)
    command("--from-sbom", tmp_path / "none", code=5)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_file_and_no_process(trivy, rootfs, tmp_path, number):
    trivy.says(report(), sleep=300, child=True, deaf=True)
    workdir = tmp_path / "work"
    workdir.mkdir()
    command = [*COMMAND, "scan", str(rootfs), "--workdir", str(workdir), "--database", str(tmp_path)]
    environment = {**os.environ, "PATH": trivy.path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as running:
        deadline = time.monotonic() + 60
        while not (trivy.folder / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert os.listdir(workdir)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (130, b"blockwright: interrupted\n")
    assert os.listdir(workdir) == []
    child = (trivy.folder / "child").read_text()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and os.path.exists(f"/proc/{child}"):
        with contextlib.suppress(OSError), open(f"/proc/{child}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] in "ZX":
                break
        time.sleep(0.02)
    else:
        assert not os.path.exists(f"/proc/{child}")
