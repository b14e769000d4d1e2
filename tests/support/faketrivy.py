"""A program called trivy that does what a test says, by the documented report (schema version 2).

It writes down how it was called, so that a test sees its arguments, its environment, its directory, and which files
it was shown.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROGRAM = """#!{python}
import json, os, signal, stat, subprocess, sys, time
base = os.path.dirname(os.path.abspath(__file__))
told = json.load(open(base + "/told.json"))
shown = {{}}
for folder, _, names in os.walk(sys.argv[-3]) if os.path.isdir(sys.argv[-3]) else ():
    for name in names:
        path = os.path.join(folder, name)
        shown[os.path.relpath(path, sys.argv[-3])] = oct(os.lstat(path).st_mode)
with open(base + "/calls", "a") as log:
    call = {{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.listdir("."), "shown": shown}}
    log.write(json.dumps(call) + "\\n")
if sys.argv[1] == "version":
    print(json.dumps(told["version"]))
    sys.exit(told.get("version_status", 0))
if told.get("words"):
    print(told["words"], file=sys.stderr)
if told.get("child"):
    child = subprocess.Popen(["sleep", "300"])
    open(base + "/child", "w").write(str(child.pid))
if told.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(base + "/started", "w").close()
if told.get("sleep"):
    time.sleep(told["sleep"])
if told.get("flood"):
    while True:
        os.write(1, b"x" * 65536)
if told.get("report") is not None and "--output" in sys.argv:
    open(sys.argv[sys.argv.index("--output") + 1], "w").write(told["report"])
if told.get("signal"):
    os.kill(os.getpid(), told["signal"])
sys.exit(told.get("status", 0))
"""


def vulnerability(identity: str, severity: str | None = "HIGH", **more: Any) -> dict[str, Any]:
    """One, with all that Trivy says of it."""
    return {
        "VulnerabilityID": identity,
        "PkgID": "openssl@3.0.1",
        "PkgName": "openssl",
        "PkgIdentifier": {"PURL": "pkg:deb/debian/openssl@3.0.1", "UID": "1234"},
        "InstalledVersion": "3.0.1",
        "FixedVersion": "3.0.2",
        "Status": "fixed",
        "Layer": {},
        "SeveritySource": "debian",
        "PrimaryURL": f"https://avd.aquasec.com/nvd/{identity.lower()}",
        "DataSource": {"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://salsa.debian.org"},
        "Title": "openssl: a hole",
        **({} if severity is None else {"Severity": severity}),
        **more,
    }


def report(*vulnerabilities: dict[str, Any], packages: int = 1, **more: Any) -> dict[str, Any]:
    """A whole report of a Debian system."""
    return {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.74.0"},
        "ReportID": "0197e2a3-0000-7000-8000-000000000000",
        "CreatedAt": "2026-11-01T00:00:00Z",
        "ArtifactName": "root",
        "ArtifactType": "filesystem",
        "Metadata": {"OS": {"Family": "debian", "Name": "12.5"}},
        "Results": [
            {
                "Target": "root (debian 12.5)",
                "Class": "os-pkgs",
                "Type": "debian",
                "Packages": [{"ID": f"package{number}", "Name": f"package{number}"} for number in range(packages)],
                **({"Vulnerabilities": list(vulnerabilities)} if vulnerabilities else {}),
            }
        ],
        **more,
    }


def version(updated: datetime | None = None) -> dict[str, Any]:
    """What Trivy says of itself."""
    text = (updated or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
    return {
        "Version": "0.74.0",
        "VulnerabilityDB": {"Version": 2, "NextUpdate": text, "UpdatedAt": text, "DownloadedAt": text},
    }


class FakeTrivy:
    """The program in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.program = folder / "trivy"
        self.program.write_text(PROGRAM.format(python=sys.executable))
        self.program.chmod(0o755)
        self.says(report())

    def says(self, document: object, **told: Any) -> None:
        """What it reports, as a document or as the text itself, and what else it does."""
        text = document if isinstance(document, str | None) else json.dumps(document)
        told = {"version": version(), "report": text, **told}
        (self.folder / "told.json").write_text(json.dumps(told))

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def path(self) -> str:
        """A PATH on which it is the first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"
