from datetime import date

import pytest

from blockwright.errors import FormatError, LimitExceeded, NotFound, UsageError
from blockwright.scan import Allowed, Budget, Finding, Policy, Severity
from blockwright.scan.policy_file import parse_age, parse_policy, parse_severities, read_policy

TODAY = date(2026, 11, 28)
HIGH = Finding("CVE-1", Severity.HIGH, package="openssl", fixed="2")
UNFIXED = Finding("CVE-2", Severity.CRITICAL, package="zlib")
LOW = Finding("CVE-3", Severity.LOW, package="bash")

WHOLE = b"""
severities = ["critical", "MEDIUM"]
fixed-only = true
max-database-age = "12h"
allow-incomplete = true
budget-size = "2G"
budget-files = 1000

[[allow]]
id = "CVE-2024-1"
package = "openssl"
until = 2027-01-31
reason = "not reachable"

[[allow]]
id = "CVE-2024-2"
until = 2027-02-01
"""


def judged(policy: Policy, *findings: Finding, today: date = TODAY):
    return {each.identity: (each.violates, each.excused) for each in policy.judge(findings, today)}


def test_severities_of_the_policy_violate_it():
    assert judged(Policy(), HIGH, UNFIXED, LOW) == {"CVE-1": (True, ""), "CVE-2": (True, ""), "CVE-3": (False, "")}


def test_fixed_only_excuses_what_nothing_mends():
    found = judged(Policy(fixed_only=True), HIGH, UNFIXED)
    assert found == {"CVE-1": (True, ""), "CVE-2": (False, "no fixed version")}


@pytest.mark.parametrize(("until", "violates"), [(TODAY, False), (date(2026, 11, 27), True), (date.max, False)])
def test_an_exception_holds_to_the_end_of_its_day(until, violates):
    policy = Policy(allow=(Allowed("CVE-1", until),))
    assert judged(policy, HIGH)["CVE-1"][0] is violates
    assert bool(policy.expired([HIGH], TODAY)) is violates


def test_an_exception_is_of_its_package_and_its_finding_only():
    assert judged(Policy(allow=(Allowed("CVE-1", date.max, "zlib"),)), HIGH)["CVE-1"][0]
    assert judged(Policy(allow=(Allowed("CVE-2", date.max),)), HIGH)["CVE-1"][0]
    text = judged(Policy(allow=(Allowed("CVE-1", TODAY, "openssl", "we know"),)), HIGH)["CVE-1"]
    assert text == (False, "allowed until 2026-11-28: we know")


def test_an_ended_exception_does_not_hide_one_that_holds():
    policy = Policy(allow=(Allowed("CVE-1", date(2020, 1, 1)), Allowed("CVE-1", TODAY)))
    assert not judged(policy, HIGH)["CVE-1"][0]


def test_findings_come_the_worst_first():
    assert [each.identity for each in Policy().judge([LOW, HIGH, UNFIXED], TODAY)] == ["CVE-2", "CVE-1", "CVE-3"]


def test_equal_policies_have_equal_digests_and_others_have_others():
    policies = [
        Policy(),
        Policy(severities=frozenset({Severity.HIGH})),
        Policy(fixed_only=True),
        Policy(allow=(Allowed("CVE-1", TODAY),)),
        Policy(max_database_age_s=None),
        Policy(allow_incomplete=True),
        Policy(budget=Budget(size=1)),
    ]
    assert len({each.digest for each in policies}) == len(policies)
    one, two = Allowed("CVE-1", TODAY), Allowed("CVE-2", TODAY)
    assert Policy(allow=(one, two)).digest == Policy(allow=(two, one)).digest


def test_a_policy_names_its_severities():
    assert Policy().severities_text == "HIGH or CRITICAL"
    assert Policy(severities=frozenset({Severity.LOW})).severities_text == "LOW"
    assert Policy(severities=frozenset(Severity)).severities_text == "UNKNOWN, LOW, MEDIUM, HIGH or CRITICAL"


def test_a_whole_file_is_read():
    assert parse_policy(WHOLE, "p.toml") == Policy(
        severities=frozenset({Severity.CRITICAL, Severity.MEDIUM}),
        fixed_only=True,
        allow=(
            Allowed("CVE-2024-1", date(2027, 1, 31), "openssl", "not reachable"),
            Allowed("CVE-2024-2", date(2027, 2, 1)),
        ),
        max_database_age_s=12 * 3600,
        allow_incomplete=True,
        budget=Budget(2 << 30, 1000),
    )
    assert parse_policy(b"", "p.toml") == Policy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\nseverity = 1", "p.toml:2: policy: severity: expected one of severities"),
        (b'severities = ["BAD"]', "p.toml:1: policy: severities: expected some of CRITICAL"),
        (b"severities = []", "p.toml:1: policy: severities: expected some of CRITICAL"),
        (b'severities = "HIGH"', "p.toml:1: policy: severities: expected some of CRITICAL"),
        (b"fixed-only = 1", "p.toml:1: policy: fixed-only: expected true or false, found 1"),
        (b'max-database-age = "7 days"', "p.toml:1: policy: max-database-age: expected an age"),
        (b'max-database-age = "0d"', "p.toml:1: policy: max-database-age: expected an age"),
        (b"max-database-age = 7", "p.toml:1: policy: max-database-age: expected a text, found 7"),
        (b"budget-size = -1", "p.toml:1: policy: budget-size: expected a size above 0"),
        (b"budget-files = 0", "p.toml:1: policy: budget-files: expected a number above 0"),
        (b"[allow]\nid = 'x'", "policy: allow: expected [[allow]] tables"),
        (b'[[allow]]\nid = "a"\nuntil = 2027-01-01\n[[allow]]\nuntil = 2027-01-01', "p.toml:4: policy: id: expected"),
        (b'[[allow]]\nid = "a"\n', "p.toml:1: policy: until: expected it in every exception"),
        (b'[[allow]]\nid = "a"\nuntil = "2027-01-01"', "p.toml:3: policy: until: expected a date"),
        (b'[[allow]]\nid = "a"\nuntil = 2027-01-01T00:00:00Z', "p.toml:3: policy: until: expected a date"),
        (b'[[allow]]\nid = ""\nuntil = 2027-01-01', "p.toml:2: policy: id: expected a name"),
        (b'[[allow]]\nid = "a"\nuntil = 2027-01-01\nwhy = 1', "p.toml:4: policy: why: expected one of id"),
        (b"a = ", "p.toml: policy: invalid value"),
        (b"\xff", "p.toml: policy: expected UTF-8 (byte 0)"),
        (b"a = " + b"[" * 5000, "p.toml: policy: "),
        (b"a = " + b"9" * 5000, "p.toml: policy: "),
    ],
)
def test_a_wrong_file_is_told_with_its_line_and_key(text, message):
    with pytest.raises(FormatError) as caught:
        parse_policy(text, "p.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_or_too_large(tmp_path):
    with pytest.raises(NotFound):
        read_policy(str(tmp_path / "none"))
    (tmp_path / "large").write_bytes(b"#" * (4 << 20) + b"#")
    with pytest.raises(LimitExceeded):
        read_policy(str(tmp_path / "large"))


def test_words_of_options():
    assert (parse_age("7d"), parse_age("12h"), parse_age("any")) == (7 * 86400, 12 * 3600, None)
    assert parse_severities(["high"]) == {Severity.HIGH}
    for text in ("", "d", "7", "-1d", "7D", "7d\n"):
        with pytest.raises(UsageError):
            parse_age(text)
