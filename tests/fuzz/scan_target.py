"""Fuzz target: whatever a scanner, a database or a file says of itself; the first byte says which reader gets it."""

import json
import zlib
from collections.abc import Callable

from blockwright.errors import FormatError
from blockwright.scan import Decision, Finding, LeftOut, Severity, Verdict
from blockwright.scan.clamav_report import parse_clamscan, parse_cvd
from blockwright.scan.debsecan_feed import parse_feed
from blockwright.scan.debsecan_report import parse_detail
from blockwright.scan.inventory import take_inventory
from blockwright.scan.packages import parse_dpkg, parse_purl
from blockwright.scan.policy_file import parse_policy
from blockwright.scan.sbom import load_json, parse_sbom
from blockwright.scan.trivy_report import parse_report, parse_version
from tests.support.faketrivy import report, version, vulnerability
from tests.support.scantrees import RELEASE, STATUS, file, tree_of

MAX_BYTES = 1 << 16
NAMES = ["00000001", "00000002"]


def _release(data: bytes) -> None:
    take_inventory(tree_of({b"etc/os-release": file(data), b"lib/apk/db/installed": file(data)}))


def _feed(data: bytes) -> None:
    # What is a text becomes data, so that damage does not end at zlib's checksum.
    parse_feed(zlib.compress(data, 1), "feed").with_canary("LAST", "last")
    parse_feed(data, "feed")


READERS: dict[bytes, Callable[[bytes], object]] = {
    b"t": parse_report,
    b"v": parse_version,
    b"j": lambda data: Verdict.from_json(load_json(data, "verdict", "verdict")),
    b"s": lambda data: parse_sbom(data, "sbom"),
    b"d": parse_detail,
    b"f": _feed,
    b"c": lambda data: parse_clamscan(data, "/w", NAMES),
    b"h": parse_cvd,
    b"k": lambda data: parse_dpkg(data, "status"),
    b"u": lambda data: parse_purl(data.decode("utf-8", "replace")),
    b"p": lambda data: parse_policy(data, "policy"),
    b"r": _release,
}


def seeds() -> list[bytes]:
    """What each reader takes."""
    component = {"type": "library", "purl": "pkg:deb/debian/a@1?distro=debian-12", "components": []}
    reference = {"referenceType": "purl", "referenceLocator": "pkg:deb/debian/a@1"}
    finding = Finding("CVE-1", Severity.HIGH, package="a", violates=True)
    verdict = Verdict(Decision.VIOLATED, scanner="trivy", findings=(finding,), left_out=LeftOut(1, 2, ("a",)))
    return [
        b"t" + json.dumps(report(vulnerability("CVE-1"), vulnerability("CVE-2", "LOW"))).encode(),
        b"v" + json.dumps(version()).encode(),
        b"j" + json.dumps(verdict.to_json()).encode(),
        b"s" + json.dumps({"bomFormat": "CycloneDX", "components": [component]}).encode(),
        b"s" + json.dumps({"spdxVersion": "SPDX-2.3", "packages": [{"externalRefs": [reference]}]}).encode(),
        b"dCVE-1 (fixed, high urgency)\n  hole\n  installed: a 1\n  fixed in unstable: a 2 (source package)\n\n",
        b"fVERSION 1\nCVE-1,,hole\n\nopenssl,0,SH F,4,\n\nopenssl,libssl3\n\n",
        (
            b"c/w/00000001: Evil FOUND\n\n----------- SCAN SUMMARY -----------\nKnown viruses: 1\nEngine version: 1\n"
            b"Scanned files: 2\nInfected files: 1\n"
        ),
        b"hClamAV-VDB:07 Feb 2024 10-38 +0200:27178:2051234:90:0123:sig:builder:1707294000",
        b"k" + STATUS,
        b"upkg:deb/debian/a@1?arch=amd64&upstream=b%401",
        b'pfixed-only = true\nmax-database-age = "7d"\n[[allow]]\nid = "CVE-1"\nuntil = 2027-01-01\n',
        b"r" + RELEASE + b"P:musl\n",
    ]


def fuzz_one(data: bytes) -> None:
    """Lets nothing but the errors that are documented out, each a line."""
    assert "\n" not in _message(data)


def _message(data: bytes) -> str:
    try:
        READERS.get(data[:1], parse_report)(data[1:MAX_BYTES])
    except FormatError as error:
        return str(error)
    return ""
