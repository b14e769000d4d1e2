"""Trivy's adapter against a program that follows the documented report."""

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from blockwright.errors import Corrupt, FormatError, NotFound, PolicyViolated, ScanFailed, Unsupported, UsageError
from blockwright.scan import Decision, Policy, SbomFormat, ScannerOptions, process, rescan, scan
from blockwright.scan.sbom import parse_sbom
from blockwright.scan.trivy_report import parse_report, parse_time, parse_version
from blockwright.tree.node import Directory
from tests.support.faketrivy import FakeTrivy, report, version, vulnerability
from tests.support.scantrees import debian, hostile


@pytest.fixture
def trivy(tmp_path):
    return FakeTrivy(tmp_path / "program")


@pytest.fixture
def examine(trivy, tmp_path):
    """Scans a tree with the program, and holds it to leave nothing behind."""
    workdir = tmp_path / "work"
    workdir.mkdir()

    def examine(tree=None, **given):
        options = {"timeout_s": 60.0, "database": str(tmp_path / "cache"), **given.pop("options", {})}
        options = ScannerOptions(program=str(trivy.program), **options)
        given = {"scanner": "trivy", "mode": "warn", **given}
        try:
            return scan(debian() if tree is None else tree, workdir=str(workdir), options=options, **given)
        finally:
            assert os.listdir(workdir) == []

    return examine


def test_a_clean_report(trivy, examine):
    outcome = examine()
    assert outcome.line == "clean: no HIGH or CRITICAL vulnerabilities"
    verdict = outcome.verdict
    assert (verdict.decision, verdict.scanner, verdict.scanner_version) == (Decision.CLEAN, "trivy", "0.74.0")
    assert (verdict.system, verdict.packages) == ("debian 12.5", 1)
    assert verdict.database_version.startswith("2, 20")
    assert verdict.policy_digest == Policy().digest


def test_how_it_is_called(trivy, examine, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIVY_SEVERITY", "LOW")
    monkeypatch.setenv("TRIVY_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    examine()
    first, second = trivy.calls
    assert first["argv"] == ["version", "--format", "json", "--cache-dir", str(tmp_path / "cache")]
    argv = second["argv"]
    assert argv[0] == "rootfs"
    for pair in (["--format", "json"], ["--exit-code", "0"], ["--scanners", "vuln"], ["--timeout", "60s"]):
        assert argv[argv.index(pair[0]) + 1] == pair[1]
    for flag in ("--skip-db-update", "--skip-java-db-update", "--offline-scan", "--list-all-pkgs"):
        assert flag in argv
    assert "--server" not in argv
    names = {"PATH", "HOME", "TMPDIR", "LC_ALL", "TZ", "TRIVY_DISABLE_TELEMETRY", "TRIVY_SKIP_VERSION_CHECK"}
    assert set(second["env"]) - {"LC_CTYPE"} == names
    assert second["cwd"] == []
    assert second["shown"] == {
        "etc/os-release": "0o100644",
        "usr/lib/os-release": "0o100644",
        "usr/bin/openssl": "0o100755",
        "var/lib/dpkg/status": "0o100644",
    }


def test_a_hostile_tree_is_shown_as_files(trivy, examine):
    outcome = examine(hostile(), policy=Policy(allow_incomplete=True))
    assert outcome.verdict.decision is Decision.CLEAN
    assert "not scanned" in outcome.line or outcome.verdict.left_out.files  # what had no room is named
    assert trivy.calls[-1]["shown"]
    assert all(mode in ("0o100644", "0o100755") for mode in trivy.calls[-1]["shown"].values())
    assert examine(hostile()).verdict.decision is Decision.FAILED


def test_findings_and_their_verdict(trivy, examine):
    trivy.says(report(vulnerability("CVE-1"), vulnerability("CVE-2", None), vulnerability("CVE-3", "LOW")))
    outcome = examine()
    assert outcome.line == "1 vulnerability: 1 HIGH (1 of unknown severity)"
    finding = outcome.verdict.findings[0]
    assert (finding.identity, finding.package, finding.installed, finding.fixed, finding.place) == (
        "CVE-1", "openssl", "3.0.1", "3.0.2", "root (debian 12.5)"
    )  # fmt: skip
    with pytest.raises(PolicyViolated) as caught:
        examine(mode="enforce")
    assert caught.value.exit_code == 3
    assert caught.value.verdict["violations"] == 1
    assert json.dumps(caught.value.verdict)


def test_an_exit_status_of_zero_without_a_report_is_no_verdict(trivy, examine):
    trivy.says(None, words="2026-11-01T00:00:00Z\tFATAL\tno luck")
    outcome = examine()
    assert outcome.verdict.decision is Decision.FAILED
    assert outcome.line == "no verdict: trivy: expected a report, found none (2026-11-01T00:00:00Z\tFATAL\tno luck)"
    with pytest.raises(ScanFailed) as caught:
        examine(mode="enforce")
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, PolicyViolated)


@pytest.mark.parametrize(
    ("document", "told", "message"),
    [
        (report(), {"status": 1, "words": "FATAL boom"}, "trivy: exit status 1: FATAL boom"),
        (report(), {"signal": int(signal.SIGKILL)}, "trivy: ended by SIGKILL"),
        (report(), {"sleep": 60}, "trivy: expected an end within 1 s, found none"),
        (json.dumps(report())[:-9], {}, "expected JSON"),
        ("", {}, "trivy: expected a report, found it empty"),
        ("null", {}, "expected an object, found NoneType"),
        ("[" * 100_000, {}, "nested too deeply"),
        ('{"SchemaVersion": NaN}', {}, "nan is no number"),
        (report(SchemaVersion=3), {}, "expected schema version 2, found 3"),
        (report(SchemaVersion=True), {}, "expected schema version 2, found True"),
        ({}, {}, "expected schema version 2, found None"),
        (report(Results="none"), {}, "Results: expected a list, found str"),
        (report(Results=["x"]), {}, "Results: expected objects in it, found str"),
        (report(vulnerability("")), {}, "expected a vulnerability's name, found none"),
        (report(vulnerability("CVE-1", "TERRIBLE")), {}, "CVE-1: expected a severity, found 'TERRIBLE'"),
        (report(vulnerability("CVE-1", PkgName=7)), {}, "PkgName: expected a text, found int"),
        (report(Results=None), {}, "expected packages, found none, though there is a package database"),
        (
            report(Metadata={}, Results=None),
            {},
            "expected an operating system, found none, though there is a package",
        ),
        (report(Metadata={"OS": {"Family": "none"}}), {}, "expected an operating system, found none"),
        (report(packages=0), {}, "expected packages, found none"),
        (report(), {"version": {"Version": "0.74.0"}}, "expected a vulnerability database in "),
        (report(), {"version": []}, "version: expected an object, found list"),
        (report(), {"version": {"VulnerabilityDB": {"UpdatedAt": "now"}}}, "time: expected RFC 3339, found 'now'"),
        (report(), {"version": {"VulnerabilityDB": {"Version": 2}}}, "found one without a date"),
        (report(), {"version_status": 1}, "trivy: version: exit status 1"),
        (report(), {"version": version(datetime.now(UTC) - timedelta(days=30))}, "found one of 30 days"),
    ],
)
def test_whatever_is_in_doubt_is_one_line(trivy, examine, document, told, message):
    trivy.says(document, **told)
    options = {"timeout_s": 1.0} if "sleep" in told else {}
    outcome = examine(options=options)
    assert outcome.verdict.decision is Decision.FAILED
    assert message in outcome.line
    assert "\n" not in outcome.line
    with pytest.raises(ScanFailed, match="no verdict"):
        examine(mode="enforce", options=options)


def test_a_report_that_never_ends(trivy, examine, monkeypatch):
    monkeypatch.setattr("blockwright.scan.trivy.MAX_OUTPUT", 1 << 20)
    trivy.says(report(), flood=True)
    assert "at most 1 MiB of output, found more" in examine().line


def test_a_report_that_is_no_file(trivy, examine, monkeypatch):
    monkeypatch.setattr("blockwright.scan.report_file.MAX_OUTPUT", 100)
    link = "import os, sys\nos.symlink('/etc/passwd', sys.argv[sys.argv.index('--output') + 1])\nsys.exit(0)\n"
    text = trivy.program.read_text().replace('if told.get("words")', f'exec({link!r})\nif told.get("words")')
    trivy.program.write_text(text)
    assert "expected a report, found none" in examine().line


def test_a_system_without_updates_is_told(trivy, examine):
    trivy.says(report(Metadata={"OS": {"Family": "debian", "Name": "9.13", "EOSL": True}}))
    assert examine().line == "clean: no HIGH or CRITICAL vulnerabilities (debian 9.13 gets no more updates)"


def test_an_empty_tree_needs_no_results(trivy, examine):
    trivy.says(report(Metadata={}, Results=None))
    assert examine(Directory()).verdict.decision is Decision.CLEAN


def test_an_image_is_read_by_trivy_itself(trivy, examine, tmp_path):
    image = tmp_path / "image.tar"
    image.write_bytes(b"")
    assert examine(scanner="trivy-image", image=str(image)).verdict.decision is Decision.CLEAN
    argv = trivy.calls[-1]["argv"]
    assert argv[0] == "image"
    assert argv[argv.index("--input") + 1] == str(image)
    assert "expected a container image" in examine(scanner="trivy-image").line


def test_the_database_is_fetched_where_that_is_asked_for(trivy, examine, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    assert examine(options={"update": True}).verdict.decision is Decision.CLEAN
    assert trivy.calls[0]["argv"][:2] == ["image", "--download-db-only"]
    assert trivy.calls[0]["env"]["HTTPS_PROXY"] == "http://proxy.invalid"
    trivy.says(report(), status=1, words="FATAL no network")
    assert examine(options={"update": True}).line.endswith(
        "database: cannot be fetched: exit status 1: FATAL no network"
    )


@pytest.fixture
def server():
    """A Trivy server's page of its version."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Trivy-Token")))
            if self.path == "/away/version":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{httpd.server_port}/stolen")
                self.end_headers()
                return
            data = json.dumps(version()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments):
            """Nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", seen
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_server_has_the_database(trivy, examine, server, monkeypatch):
    address, seen = server
    monkeypatch.setenv("TRIVY_TOKEN", "secret")
    assert examine(options={"server": address}).verdict.decision is Decision.CLEAN
    assert seen == [("/version", "secret")]
    (call,) = trivy.calls
    assert call["argv"][call["argv"].index("--server") + 1] == address
    assert call["env"]["TRIVY_TOKEN"] == "secret"
    assert "--skip-db-update" not in call["argv"]
    assert "found 302" in examine(options={"server": address + "/away"}).line
    assert "/stolen" not in [path for path, _ in seen]


def test_a_server_that_is_not_there(examine):
    assert "cannot be fetched" in examine(options={"server": "http://127.0.0.1:1"}).line


def test_an_interruption_ends_trivy_and_removes_everything(trivy, examine, monkeypatch):
    gather, inside = process._gather, []

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    def gathered(*arguments):
        inside.append(arguments)
        try:
            return gather(*arguments)
        finally:
            inside.pop()

    monkeypatch.setattr(process, "_gather", gathered)

    trivy.says(report(), sleep=300, child=True)
    before = signal.signal(signal.SIGALRM, interrupt)
    stop = threading.Event()

    def kick():
        while not stop.wait(0.05):
            if inside and (trivy.folder / "started").exists():
                os.kill(os.getpid(), signal.SIGALRM)
                return

    thread = threading.Thread(target=kick)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            examine()
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)
    child = int((trivy.folder / "child").read_text())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    break
        except (FileNotFoundError, ProcessLookupError):
            break
    else:
        raise AssertionError("the child lives")


def test_an_sbom_is_scanned_again(trivy, tmp_path):
    path = tmp_path / "sbom.json"
    component = {"type": "library", "name": "openssl", "purl": "pkg:deb/debian/openssl@3.0.1?arch=amd64"}
    path.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [component]}))
    trivy.says(report(vulnerability("CVE-1", "CRITICAL")))
    options = ScannerOptions(program=str(trivy.program))
    sbom = parse_sbom(path.read_bytes(), str(path))
    outcome = rescan(sbom, scanner="trivy", workdir=str(tmp_path), options=options)
    assert outcome.line == "1 vulnerability: 1 CRITICAL"
    for document, reason in (
        (report(Metadata={}, Results=None), "expected an operating system, found none"),
        (report(packages=0), "expected packages, found none"),
    ):
        trivy.says(document)
        assert reason in rescan(sbom, scanner="trivy", workdir=str(tmp_path), options=options).line
    assert trivy.calls[-1]["argv"][0] == "sbom"
    assert str(path) in trivy.calls[-1]["argv"]


def test_trivy_makes_an_sbom_where_syft_is_missing(trivy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(trivy.folder))
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}
    trivy.says(document)
    outcome = scan(Directory(), mode="off", workdir=str(tmp_path), sbom=SbomFormat.CYCLONEDX)
    assert json.loads(outcome.sbom) == document
    assert outcome.verdict.decision is Decision.OFF
    argv = trivy.calls[-1]["argv"]
    assert argv[argv.index("--format") + 1] == "cyclonedx"
    trivy.says("{")
    outcome = scan(Directory(), mode="off", workdir=str(tmp_path), sbom=SbomFormat.CYCLONEDX)
    assert outcome.sbom == b""
    assert "expected JSON" in outcome.sbom_problem


# ---------------------------------------------------------------------------------------- which scanner is meant


def test_modes_and_missing_scanners(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = scan(debian(), mode="warn", workdir=str(tmp_path))
    assert outcome.verdict.decision is Decision.UNSCANNED
    assert outcome.line == "not scanned: no scanner is installed (trivy or debsecan)"
    assert scan(debian(), scanner="clamav", workdir=str(tmp_path)).line == (
        "not scanned: clamav is not installed (no program clamscan on PATH)"
    )
    with pytest.raises(ScanFailed, match=r"^not scanned: no scanner is installed") as caught:
        scan(debian(), mode="enforce", workdir=str(tmp_path))
    assert caught.value.exit_code == 1
    assert scan(debian(), mode="off", workdir=str(tmp_path / "none")).line == "not scanned: scanning is off"
    with pytest.raises(UsageError):
        scan(debian(), mode="perhaps", workdir=str(tmp_path))
    with pytest.raises(UsageError):
        scan(debian(), scanner="nobody", workdir=str(tmp_path))
    with pytest.raises(UsageError):
        scan(debian(), workdir=str(tmp_path), options=ScannerOptions(program="/bin/true"))
    with pytest.raises(NotFound):
        scan(debian(), scanner="trivy", workdir=str(tmp_path), options=ScannerOptions(program="/none"))
    outcome = scan(debian(), mode="off", workdir=str(tmp_path), sbom=SbomFormat.SPDX)
    assert outcome.sbom_problem == "SBOM: no program that makes one is installed (syft or trivy)"


def test_trivy_is_taken_before_others(trivy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", trivy.path)
    assert scan(debian(), workdir=str(tmp_path)).verdict.scanner == "trivy"


# --------------------------------------------------------------------------------------------------- the report


def test_texts_of_a_report_can_be_stored():
    document = json.dumps(report(vulnerability("CVE-1", Title="\ud800" + "x" * 9000)))
    title = parse_report(document.encode()).findings[0].title
    assert len(title) == 4096
    assert title.encode()


def test_times():
    assert parse_time("2026-11-28T03:00:00.5+02:00") == datetime(2026, 11, 28, 1, tzinfo=UTC)
    for text in ("", "2026-13-01T00:00:00Z", "2026-11-28", "0001-01-01T00:00:00+23:00", "2026-11-28T03:00:00Z\n"):
        with pytest.raises(Corrupt):
            parse_time(text)


def test_versions():
    assert parse_version(b'{"Version": "1"}').database is None
    with pytest.raises(FormatError):
        parse_version(b"\xff")
    with pytest.raises(Unsupported):
        parse_report(b"{}")
