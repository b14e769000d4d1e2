import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from blockwright.errors import BlockwrightError, Corrupt
from blockwright.scan import Allowed, Decision, Finding, LeftOut, Policy, Severity, Verdict
from blockwright.scan.decision import Evidence, decide, line_of
from blockwright.scan.inventory import Inventory, PackageDatabase
from blockwright.scan.scanner import Database, Report

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HIGH = Finding("CVE-1", Severity.HIGH, package="openssl", installed="1", fixed="2")
UNKNOWN = Finding("CVE-2", Severity.UNKNOWN, package="zlib")
FRESH = Report("0.74.0", Database("2", NOW - timedelta(hours=1)), (), "debian 12.5", 3)
DEBIAN = Evidence(Inventory({"ID": "debian"}, (PackageDatabase("dpkg", b"var/lib/dpkg/status", 3),), ()))
BEFORE = Verdict(Decision.FAILED, scanner="trivy", policy_digest=Policy().digest, when="2026-11-28T12:00:00Z")


def decided(report=FRESH, policy=Policy(), evidence=DEBIAN, before=BEFORE):  # noqa: B008 - a value
    verdict = decide(before, report, policy, evidence, NOW)
    return verdict, line_of(verdict, policy)


def test_nothing_found_is_clean():
    verdict, line = decided()
    assert verdict.decision is Decision.CLEAN
    assert line == "clean: no HIGH or CRITICAL vulnerabilities"
    assert (verdict.system, verdict.packages) == ("debian 12.5", 3)
    assert (verdict.scanner_version, verdict.database_date) == ("0.74.0", "2026-11-28T11:00:00Z")


def test_findings_are_counted_by_severity():
    critical = replace(HIGH, identity="CVE-9", severity=Severity.CRITICAL)
    verdict, line = decided(replace(FRESH, findings=(HIGH, critical, replace(HIGH, package="libssl3"), UNKNOWN)))
    assert verdict.decision is Decision.VIOLATED
    assert line == "3 vulnerabilities: 1 CRITICAL, 2 HIGH (1 of unknown severity)"
    assert verdict.counts == {"CRITICAL": 1, "HIGH": 2, "MEDIUM": 0, "LOW": 0, "UNKNOWN": 1}
    assert decided(replace(FRESH, findings=(HIGH,)))[1] == "1 vulnerability: 1 HIGH"


def test_what_is_excused_is_told():
    policy = Policy(allow=(Allowed("CVE-1", date(2027, 1, 1)), Allowed("CVE-2", date(2020, 1, 1))), fixed_only=True)
    unfixed = Finding("CVE-3", Severity.HIGH)
    verdict, line = decided(replace(FRESH, findings=(HIGH, UNKNOWN, unfixed)), policy)
    assert verdict.decision is Decision.CLEAN
    assert line.endswith(
        "(1 allowed; 1 without a fixed version; 1 of unknown severity; the exception for CVE-2 ended on 2020-01-01)"
    )


@pytest.mark.parametrize(
    ("report", "evidence", "reason"),
    [
        (replace(FRESH, system=""), DEBIAN, "expected an operating system, found none, though"),
        (replace(FRESH, packages=0), DEBIAN, "expected packages, found none, though"),
        (
            replace(FRESH, database=Database("2", NOW - timedelta(days=8))),
            DEBIAN,
            "of at most 7 days, found one of 8 d",
        ),
        (replace(FRESH, database=Database("2", NOW + timedelta(days=2))), DEBIAN, "expected one from before now"),
        (replace(FRESH, database=Database("2", None)), DEBIAN, "found one without a date"),
        (FRESH, replace(DEBIAN, left_out=LeftOut(1, 5, ("big",))), "1 file of 5 B left out: big"),
        (replace(FRESH, unseen=LeftOut(1, 5, ("big",))), DEBIAN, "1 file of 5 B left out: big"),
    ],
)
def test_what_is_in_doubt_is_no_verdict(report, evidence, reason):
    for findings in ((), (HIGH,)):
        verdict, line = decided(replace(report, findings=findings), evidence=evidence)
        assert verdict.decision is Decision.FAILED
        assert reason in verdict.reason
        assert line == f"no verdict: {verdict.reason}"


def test_a_policy_may_accept_any_age_and_what_was_left_out():
    policy = Policy(max_database_age_s=None, allow_incomplete=True)
    evidence = replace(DEBIAN, left_out=LeftOut(4, 5, ("a", "b", "c", "d")))
    verdict, line = decided(replace(FRESH, database=Database("2", None)), policy, evidence)
    assert verdict.decision is Decision.CLEAN
    assert line == "clean: no HIGH or CRITICAL vulnerabilities (4 files of 5 B left out: a, b, c, …)"


def test_a_tree_without_packages_needs_no_system():
    empty = replace(FRESH, system="", packages=0)
    assert decided(empty, evidence=Evidence(Inventory({}, (), ())))[0].decision is Decision.CLEAN
    none = (PackageDatabase("dpkg", b"var/lib/dpkg/status", 0),)
    assert (
        decided(replace(FRESH, packages=0), evidence=Evidence(Inventory({}, none, ())))[0].decision is Decision.CLEAN
    )
    unknown = (PackageDatabase("rpm", b"var/lib/rpm/Packages", None),)
    assert (
        decided(replace(FRESH, packages=0), evidence=Evidence(Inventory({}, unknown, ())))[0].decision
        is Decision.FAILED
    )


def test_malware_has_words_of_its_own():
    before = replace(BEFORE, scanner="clamav", looked_for="malware")
    report = replace(FRESH, system="", packages=None)
    assert decided(report, before=before)[1] == "clean: no malware"
    found = replace(report, findings=(Finding("Evil", Severity.CRITICAL, place="bin/evil"),))
    assert decided(found, before=before)[1] == "1 piece of malware"


def test_a_verdict_comes_back_from_json():
    policy = Policy(allow=(Allowed("CVE-1", date(2027, 1, 1)),), allow_incomplete=True)
    report = replace(FRESH, findings=(HIGH, UNKNOWN), remarks=("a",))
    verdict, _ = decided(report, policy, replace(DEBIAN, left_out=LeftOut(1, 5, ("big",))))
    document = json.loads(json.dumps(verdict.to_json()))
    assert Verdict.from_json(document) == verdict
    assert document["counts"]["HIGH"] == 1
    for key in [*document, "nothing"]:
        for value in (None, -1, [], {}, "x", [1], [{}]):
            try:
                Verdict.from_json({**document, key: value})
            except BlockwrightError as error:
                assert isinstance(error, Corrupt)  # noqa: PT017 - most of them, and no other
    for damaged in (None, [], 1, {}, {"schema": "blockwright.verdict/2"}):
        with pytest.raises(Corrupt):
            Verdict.from_json(damaged)
