"""What package databases, SBOMs and the reports of debsecan and clamscan say, and what is no such thing."""

import json
import zlib
from datetime import UTC, datetime

import pytest

from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat
from blockwright.scan import Severity
from blockwright.scan.clamav_report import parse_clamscan, parse_cvd
from blockwright.scan.debsecan_feed import parse_feed
from blockwright.scan.debsecan_report import parse_detail
from blockwright.scan.inventory import MAX_DATABASE, take_inventory
from blockwright.scan.packages import Package, parse_dpkg, parse_purl
from blockwright.scan.sbom import SbomFormat, parse_sbom, read_sbom
from blockwright.tree.node import Directory, File, Symlink
from tests.support.scantrees import STATUS, Zeros, debian, file, tree_of

FEED = b"VERSION 1\nCVE-1,,a hole\nCVE-2,,another\n\nopenssl,0,SH F,4,\nzlib,1,S   ,,\n\nopenssl,libssl3\n\n"
DETAIL = b"""CVE-1 (fixed, remotely exploitable, high urgency)
  a hole
  installed: libssl3 3.0.1-1
             (built from openssl 3.0.1-1)
  fixed in unstable: openssl 3.0.9 (source package)
  fix is available for the selected suite (bookworm)

CVE-2
  another
  installed: zlib1g 1:1.2.13.dfsg-1+b1
             (built from zlib 1:1.2.13.dfsg-1)

"""
CLAM = b"""/w/00000001: Evil.One.UNOFFICIAL FOUND
/w/00000003: Heuristics.Limits.Exceeded.MaxFileSize FOUND

----------- SCAN SUMMARY -----------
Known viruses: 2
Engine version: 1.4.6
Scanned directories: 1
Scanned files: 3
Infected files: 2
Time: 0.024 sec (0 m 0 s)
"""
NAMES = ["00000001", "00000002", "00000003"]


# ------------------------------------------------------------------------------------------------- packages


def test_a_dpkg_database():
    assert parse_dpkg(STATUS, "status") == (
        Package("deb", "openssl", "3.0.1-1", "amd64"),
        Package("deb", "libssl3", "3.0.1-1", "amd64", "openssl"),
        Package("deb", "zlib1g", "1:1.2.13.dfsg-1+b1", "", "zlib", "1:1.2.13.dfsg-1"),
    )
    assert parse_dpkg(b"Package: a\r\nVersion: 1\r\n\r\n\r\nPackage: b\nVersion: 2", "s")[1].name == "b"


@pytest.mark.parametrize(
    "data", [b"no field\n", b"Package: a\n", b"Version: 1\n", b"Other: x\n", b"Package: \nVersion: 1"]
)
def test_what_is_no_dpkg_database(data):
    with pytest.raises(Corrupt):
        parse_dpkg(data, "status")
    with pytest.raises(LimitExceeded):
        parse_dpkg(b"Version: " + b"1" * 5000, "status")


@pytest.mark.parametrize(
    ("text", "package"),
    [
        (
            "pkg:deb/debian/libssl3@3.0.1-1%7Ea?arch=amd64&upstream=openssl%403.0.1&distro=debian-12",
            Package("deb", "libssl3", "3.0.1-1~a", "amd64", "openssl", "3.0.1", "debian-12"),
        ),
        ("pkg:npm/%40scope/name@1.0.0#sub", Package("npm", "@scope/name", "1.0.0")),
        ("pkg:golang/github.com/a/b@v1", Package("golang", "github.com/a/b", "v1")),
        ("pkg:deb/debian/a", None),
        ("pkg:deb/debian/a@", None),
        ("pkg:/a@1", None),
        ("a@1", None),
        ("pkg:deb/a@" + "1" * 5000, None),
    ],
)
def test_package_urls(text, package):
    assert parse_purl(text) == package


def test_an_inventory_follows_the_tree_s_own_links():
    found = take_inventory(debian())
    assert found.system == "debian 12"
    assert [(each.manager, each.packages) for each in found.databases] == [("dpkg", 3)]
    assert len(found.dpkg) == 3
    hidden = tree_of({b"var/lib/dpkg": Symlink(b"/opt/x"), b"opt/x/status": file(STATUS)})
    assert take_inventory(hidden).has_packages
    hidden = tree_of({b"var/lib/dpkg/status": Symlink(b"/opt/x"), b"opt/x": file(STATUS)})
    assert take_inventory(hidden).has_packages
    assert not take_inventory(Directory()).has_packages
    assert not take_inventory(tree_of({b"var/lib/dpkg/status": file()})).databases


def test_databases_of_other_package_managers():
    tree = tree_of(
        {
            b"lib/apk/db/installed": file(b"P:musl\nV:1\n\nP:busybox\nV:2\n"),
            b"var/lib/rpm/rpmdb.sqlite": file(b"SQLite"),
            b"var/lib/dpkg/status.d/base": file(b"Package: base-files\nVersion: 12\n"),
            b"var/lib/dpkg/status.d/base.md5sums": file(b"0123456789abcdef  etc/x\n"),
            b"var/lib/pacman/local/bash-5/desc": file(b"%NAME%\n"),
            b"usr/lib/os-release": file(b"# x\nID='a \"b'\nVERSION_ID=\"unended\nbad key=1\n"),
        }
    )
    found = take_inventory(tree)
    counts = {each.manager: each.packages for each in found.databases}
    assert counts == {"apk": 2, "rpm": None, "dpkg": 1, "pacman": 1}
    assert found.release["ID"] == 'a "b'


def test_databases_that_are_not_to_be_read_are_refused():
    with pytest.raises(LimitExceeded, match="found 8 TiB"):
        take_inventory(tree_of({b"var/lib/dpkg/status": File(content=Zeros(1 << 43))}))
    half = File(content=Zeros(MAX_DATABASE // 2 + 1))
    with pytest.raises(LimitExceeded):
        take_inventory(tree_of({b"var/lib/dpkg/status.d/a": half, b"var/lib/dpkg/status.d/b": half}))
    with pytest.raises(Corrupt):
        take_inventory(tree_of({b"var/lib/dpkg/status": file(b"damaged")}))


# ---------------------------------------------------------------------------------------------------- debsecan


def test_debsecan_s_data_gets_one_more():
    feed = parse_feed(zlib.compress(FEED), "feed")
    lines = zlib.decompress(feed.with_canary("LAST", "last-package")).split(b"\n")
    assert lines[3] == b"LAST,,"
    assert lines[7] == b"last-package,2,S   ,,"
    assert lines[9] == b"openssl,libssl3"
    assert parse_feed(zlib.compress(FEED[:-1]), "feed").sources == b"openssl,libssl3\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Corrupt),
        (b"VERSION 1\n", Corrupt),
        (zlib.compress(FEED)[:-4], Corrupt),
        (zlib.compress(b"VERSION 2\n"), Corrupt),
        (zlib.compress(b"VERSION 1\n\n\n\n"), Corrupt),
        (zlib.compress(FEED[: FEED.index(b"zlib")]), Corrupt),
        (zlib.compress(FEED[: FEED.index(b"openssl,libssl3") - 1]), Corrupt),
    ],
)
def test_what_is_not_debsecan_s_data_to_its_end(data, kind):
    with pytest.raises(kind):
        parse_feed(data, "feed")


def test_data_that_unpacks_to_too_much(monkeypatch):
    monkeypatch.setattr("blockwright.scan.debsecan_feed.MAX_TEXT", 1 << 20)
    with pytest.raises(LimitExceeded):
        parse_feed(zlib.compress(bytes(1 << 22)), "feed")


def test_what_debsecan_prints():
    first, second = parse_detail(DETAIL)
    assert (first.identity, first.severity, first.package, first.installed) == (
        "CVE-1", Severity.HIGH, "libssl3", "3.0.1-1"
    )  # fmt: skip
    assert (first.fixed, first.title) == ("in bookworm", "a hole")
    assert (second.severity, second.fixed) == (Severity.UNKNOWN, "")
    assert parse_detail(b"") == []
    without_suite = DETAIL.replace(b"  fix is available for the selected suite (bookworm)\n", b"")
    assert parse_detail(without_suite)[0].fixed == "3.0.9"
    for cut in range(1, len(DETAIL) - 1):
        if DETAIL[:cut].endswith(b"\n\n"):
            continue
        with pytest.raises(Corrupt):
            parse_detail(DETAIL[:cut])


# ------------------------------------------------------------------------------------------------------ ClamAV


def test_what_clamscan_prints():
    report = parse_clamscan(CLAM, "/w", NAMES)
    assert report.engine == "1.4.6"
    assert report.found == (("00000001", "Evil.One.UNOFFICIAL"),)
    assert report.unseen == ("00000003",)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"----------- SCAN SUMMARY -----------", b""),
        (b"Known viruses: 2", b"Known viruses: 0"),
        (b"Known viruses: 2\n", b""),
        (b"Scanned files: 3", b"Scanned files: 2"),
        (b"Infected files: 2", b"Infected files: 1"),
        (b"/w/00000001: Evil.One.UNOFFICIAL FOUND\n", b""),
        (b"/w/00000001:", b"/w/00000009:"),
        (b"/w/00000001:", b"/x/00000001:"),
        (b"Evil.One.UNOFFICIAL FOUND", b"Can't open file ERROR"),
        (b"Infected files: 2", b"Infected files: 2\nTotal errors: 1"),
        (b"\n\n---", b"\nLibClamAV Warning: odd\n\n---"),
    ],
)
def test_a_report_of_clamscan_that_is_not_whole(old, new):
    assert old in CLAM
    with pytest.raises(Corrupt):
        parse_clamscan(CLAM.replace(old, new), "/w", NAMES)


def test_headers_of_clamav_s_databases():
    header = b"ClamAV-VDB:07 Feb 2024 10-38 +0200:27178:2051234:90:0123:sig:builder:1707294000"
    assert parse_cvd(header) == ("27178", datetime(2024, 2, 7, 8, 38, tzinfo=UTC))
    for damaged in (b"", b"x" * 512, header.replace(b"Feb", b"Xxx"), header.replace(b"27178", b"x")):
        assert parse_cvd(damaged) is None


# ------------------------------------------------------------------------------------------------------- SBOMs


def test_cyclonedx():
    document = {
        "bomFormat": "CycloneDX",
        "components": [
            {"type": "operating-system", "name": "debian", "version": "12"},
            {"type": "library", "purl": "pkg:deb/debian/a@1", "components": [{"purl": "pkg:deb/debian/b@2"}]},
            {"type": "file", "name": "no package"},
        ],
    }
    sbom = parse_sbom(json.dumps(document).encode(), "s")
    assert (sbom.form, sbom.system) == (SbomFormat.CYCLONEDX, "debian 12")
    assert [each.name for each in sbom.packages] == ["a", "b"]


def test_spdx():
    reference = {"referenceType": "purl", "referenceLocator": "pkg:deb/debian/a@1?distro=debian-12"}
    document = {"spdxVersion": "SPDX-2.3", "packages": [{"name": "a", "externalRefs": [reference]}, {"name": "b"}]}
    sbom = parse_sbom(b"\xef\xbb\xbf" + json.dumps(document).encode(), "s")
    assert (sbom.form, sbom.system, len(sbom.packages)) == (SbomFormat.SPDX, "debian 12", 1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Corrupt),
        (b"\xff", Corrupt),
        (b"[]", NotThisFormat),
        (b"{}", NotThisFormat),
        (b'{"spdxVersion": "SPDX-3.0"}', NotThisFormat),
        (b'{"bomFormat": "CycloneDX", "components": {}}', Corrupt),
        (b'{"bomFormat": "CycloneDX", "components": [1]}', Corrupt),
        (b'{"bomFormat": "CycloneDX"', Corrupt),
        (
            b'{"bomFormat": "CycloneDX", "components": ' + b'[{"components":' * 99 + b"[]" + b"}]" * 99 + b"}",
            LimitExceeded,
        ),
        (b"[" * 99999, Corrupt),
        (b"9" * 9999, Corrupt),
    ],
)
def test_what_is_no_sbom(data, kind):
    with pytest.raises(kind):
        parse_sbom(data, "s")


def test_files_of_sboms(tmp_path, monkeypatch):
    with pytest.raises(NotFound):
        read_sbom(str(tmp_path / "none"))
    monkeypatch.setattr("blockwright.scan.sbom.MAX_SBOM", 10)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(LimitExceeded):
        read_sbom(str(tmp_path / "large"))
