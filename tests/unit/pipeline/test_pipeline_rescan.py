"""Images judged anew from the lists that were kept of them; and what becomes of a verdict."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from blockwright.errors import PolicyViolated, ScanFailed
from blockwright.pipeline import manage, sboms, verdicts
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.records import Run
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event, State
from blockwright.scan import registry
from blockwright.scan.policy import Budget, Policy
from tests.support.faketrivy import FakeTrivy, report, version, vulnerability
from tests.support.pipeline import POOL, command, docker_archive, fetch, home, left, parsed, request, volumes

__all__ = ["home"]
pytestmark = pytest.mark.unprivileged
LIST = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [
        {"type": "operating-system", "name": "debian", "version": "12"},
        {"type": "library", "name": "openssl", "purl": "pkg:deb/debian/openssl@3.0.1?distro=debian-12"},
    ],
}


class Maker:
    """Makes a list without a program, having seen every file it is given."""

    def write_sbom(self, subject, form):
        subject.projected(numbered=False)
        return json.dumps(LIST).encode()


@pytest.fixture
def maker(monkeypatch):
    """A maker of lists, wherever one is looked for."""
    for place in (registry, __import__("blockwright.scan", fromlist=["scan"])):
        monkeypatch.setattr(place, "find_maker", lambda _options: Maker())


@pytest.fixture
def trivy(tmp_path, monkeypatch):
    fake = FakeTrivy(tmp_path / "program")
    monkeypatch.setenv("PATH", fake.path)
    return fake


@pytest.fixture
def made(home, tmp_path, maker) -> Run:
    """An image that is ready, with a list; its source is gone."""
    path = docker_archive(tmp_path)
    run = fetch(request(path, sbom=True)).run
    os.unlink(path)
    return run


def lists(home: Path) -> list[str]:
    return sorted(os.listdir(home / "images/sboms"))


# -- the list is kept ------------------------------------------------------------------------------------------------


def test_a_list_is_kept_beside_the_verdict(home, tmp_path, made):
    (name,) = lists(home)
    with Images() as images:
        receipts = images.runs.receipts(made.id)
    told = next(each.outputs["sbom"] for each in receipts if each.step is Event.SCAN)
    assert name == f"{made.id}.{told['digest'][7:39]}.cdx.json"
    assert told["left_out"] == {"files": 0, "size": 0, "names": []}
    assert json.loads(command("image", "show", made.id, "--sbom")[0]) == LIST
    provenance = json.loads(command("image", "show", made.id, "--provenance")[0])
    first = provenance["predicate"]["runDetails"]["byproducts"][0]
    assert first == {"name": "sbom", "digest": {"sha256": told["digest"].removeprefix("sha256:")}}
    command("image", "rm", made.id)
    assert lists(home) == []
    assert left(home) == []


def test_who_asks_for_a_list_later_gets_one_and_the_same_volume(home, tmp_path, maker):
    path = docker_archive(tmp_path)
    first = fetch(request(path))
    assert lists(home) == []
    listed = fetch(request(path, sbom=True))
    assert listed.run.id == first.run.id
    assert list(listed.fresh) == [Event.SCAN, Event.CREATE]
    assert listed.receipt(Event.CREATE).outputs == first.receipt(Event.CREATE).outputs
    for wanted in (request(path, sbom=True), request(path)):
        assert fetch(wanted).fresh == ()
    (name,) = lists(home)
    os.unlink(home / "images/sboms" / name)
    assert fetch(request(path)).fresh == ()
    assert list(fetch(request(path, sbom=True)).fresh) == [Event.SCAN, Event.CREATE]
    assert lists(home) == [name]


def test_a_list_that_cannot_be_made_is_told_and_refused_where_it_is_enforced(home, tmp_path, monkeypatch, trivy):
    def none(_options):
        raise ScanFailed("SBOM: no program that makes one is installed (syft or trivy)")

    monkeypatch.setattr(registry, "find_maker", none)
    path, told = docker_archive(tmp_path), []
    with Images() as images:
        context = Context(images.home, tell=told.append)
        outcome = images.fetch(request(path, sbom=True), context)
    assert [each for each in told if "no program that makes one" in each] == told
    assert outcome.receipt(Event.SCAN).outputs["sbom"] == {"problem": told[0].removeprefix("SBOM: not made: ")}
    with pytest.raises(ScanFailed, match="SBOM: not made"):
        fetch(request(path, sbom=True, scan="enforce"))
    assert fetch(request(path, scan="enforce")).run.state is State.READY


def test_requests_on_record_from_before_there_were_lists():
    document = Request("a", "p").document()
    del document["sbom"]
    assert Request.parse(document) == Request("a", "p")


def test_what_no_receipt_tells_of_is_swept(home, made):
    (name,) = lists(home)
    other = home / "images/sboms" / f"{made.id}.{'0' * 32}.cdx.json"
    other.write_bytes(b"{}")
    (home / "images/sboms" / "half.1.part").write_bytes(b"{")
    assert len(parsed("image", "gc", "--dry-run")["removed"]) == 2
    assert len(lists(home)) == 3
    command("image", "gc")
    assert lists(home) == [name]


# -- and judged ------------------------------------------------------------------------------------------------------


def test_a_new_verdict_is_kept_with_scanner_and_database(home, made, trivy):
    trivy.says(report())
    out, lines = command("image", "scan")
    assert lines == []
    assert out.splitlines()[1].split()[:4] == [made.id, "ready", "scan:", "clean:"]
    assert trivy.calls[-1]["argv"][0] == "sbom"
    trivy.says(report(vulnerability("CVE-2099-1", "CRITICAL")))
    (entry,) = parsed("image", "scan", made.id, code=3)["images"]
    assert (entry["passes"], entry["active"]) == (True, [])  # nobody asked to enforce it
    shown = parsed("image", "show", made.id)
    assert shown["verdict"] == "scan: 1 vulnerability: 1 CRITICAL"
    first, second = shown["verdicts"]
    assert [each["decision"] for each in (first, second)] == ["clean", "violated"]
    assert second["verdict"] == entry["verdict"]
    assert second["verdict"]["scanner_version"] == "0.74.0"
    assert second["verdict"]["database_version"].startswith("2, 20")
    assert (
        second["verdict"]["database_date"]
        == version()["VulnerabilityDB"]["UpdatedAt"][:16] + second["verdict"]["database_date"][16:]
    )
    assert "1 vulnerability: 1 CRITICAL" in command("image", "show", made.id)[0]


def test_another_policy_judges_otherwise(home, tmp_path, made, trivy):
    trivy.says(report(vulnerability("CVE-2099-1", "CRITICAL")))
    command("image", "scan", "--allow", "CVE-2099-1=2999-01-01")
    (tmp_path / "policy.toml").write_text('severities = ["LOW"]\n')
    command("image", "scan", "--policy", str(tmp_path / "policy.toml"))
    command("image", "scan", code=3)


def test_what_does_not_pass_is_told_where_it_is_active_and_not_activated(home, made, trivy):
    command("image", "activate", made.id, "--as", "vm1")
    trivy.says(report(vulnerability("CVE-2099-1", "CRITICAL")))
    assert command("image", "scan", code=3)[1] == []
    _, lines = command("image", "scan", "--enforce", code=3)
    assert lines == [f"{made.id}: is active as vm1, and does not pass any more"]
    (entry,) = parsed("image", "scan", "--enforce", code=3)["images"]
    assert (entry["passes"], entry["active"], entry["state"]) == (False, ["vm1"], "active")
    command("image", "deactivate", made.id)
    _, lines = command("image", "activate", made.id, code=3)
    assert "its last verdict lets nobody activate it: scan: 1 vulnerability" in lines[-1]
    with Images() as images:
        assert images.find(made.id).state == "ready"
        with pytest.raises(PolicyViolated) as raised:
            manage.activate(images, images.find(made.id), Context(images.home))
        assert raised.value.verdict["violations"] == 1
    command("image", "scan", code=3)  # not to be enforced any more
    command("image", "activate", made.id)


def test_only_a_clean_receipt_lifts_a_verdict_that_is_enforced(home, tmp_path, made, trivy):
    trivy.says(report(vulnerability("CVE-2099-1", "CRITICAL")))
    command("image", "scan", "--enforce", code=3)
    with Images() as images:
        receipts = images.receipts(images.find(made.id))
        judged = verdicts.later(images.runs.journal, made.id, receipts)
        assert judged is not None
        scanned = next(each for each in receipts if each.step is Event.SCAN)
        for decision, when_ns, passes in (
            ("clean", judged.when_ns + 1, True),
            ("clean", judged.when_ns - 1, False),
            ("violated", judged.when_ns + 1, False),
            (None, judged.when_ns + 1, False),
        ):
            verdict = None if decision is None else {"decision": decision}
            newer = replace(scanned, outputs={"verdict": verdict}, finished_ns=when_ns)
            if passes:
                verdicts.check(images.home, made.id, [newer])
            else:
                with pytest.raises(PolicyViolated):
                    verdicts.check(images.home, made.id, [newer])


def test_another_scan_on_the_way_lifts_nothing(home, tmp_path, maker, trivy):
    path = docker_archive(tmp_path)
    name = fetch(request(path, sbom=True)).run.id
    trivy.says(report(vulnerability("CVE-2099-1", "CRITICAL")))
    command("image", "scan", "--enforce", code=3)
    for mode in ("off", "warn"):
        with pytest.raises(PolicyViolated, match="lets nobody activate it"):
            fetch(request(path, sbom=True, scan=mode, activate=True))
    assert volumes() == [fetch(request(path)).run.volume]
    trivy.says(report())
    assert fetch(request(path, scan="enforce", activate=True)).run.state is State.ACTIVE
    assert fetch(request(path)).run.id == name


@pytest.mark.parametrize("how", ["gone", "changed", "none", "scanner"])
def test_in_doubt_there_is_no_verdict_and_no_way(home, tmp_path, maker, trivy, how):
    trivy.says(report())
    run = fetch(request(docker_archive(tmp_path), sbom=how != "none")).run
    path = home / "images/sboms" / lists(home)[0] if how != "none" else None
    command("image", "scan", "--enforce", code=1 if how == "none" else 0)
    if how == "gone":
        path.unlink()
    elif how == "changed":
        path.write_bytes(json.dumps(LIST | {"components": []}).encode())
    elif how == "scanner":
        trivy.says("half a rep")
    out, lines = command("image", "scan", "--enforce", code=1)
    assert "no verdict: " in out
    assert lines == [f"blockwright: scan: expected a verdict on every image, found none on {run.id}"]
    assert "no verdict" in command("image", "activate", run.id, code=1)[1][-1]
    with Images() as images:
        assert verdicts.all_of(images.runs.journal, run.id)[-1].decision == "failed"


def test_files_that_the_maker_did_not_see_leave_no_verdict(home, tmp_path, maker, trivy, monkeypatch):
    monkeypatch.setattr("blockwright.scan.DEFAULT_POLICY", Policy(budget=Budget(size=1000)), raising=True)
    run = fetch(request(docker_archive(tmp_path), sbom=True)).run
    trivy.says(report())
    assert "left out: bin/tool" in command("image", "scan", run.id, code=1)[0]
    assert "clean" in command("image", "scan", run.id, "--allow-incomplete")[0]


def test_who_looks_into_files_gives_no_verdict(home, made, tmp_path):
    program = tmp_path / "clamscan"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    out, _ = command("image", "scan", "--scanner", "clamav", "--program", str(program), code=1)
    assert "no verdict: clamav: expected files to look into, found a list of packages" in out


def test_only_what_is_ready_is_judged(home, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    command("fetch-and-create", str(tmp_path / "bad.tar"), "--pool", POOL, code=1)
    assert command("image", "scan") == ("", [])
    with Images() as images:
        name = images.list()[0].id
    assert "expected an image that is ready" in command("image", "scan", name, code=2)[1][0]


def test_few_verdicts_are_kept(home, made):
    with Images() as images:
        for when in range(20):
            verdicts.add(images.runs.journal, verdicts.Judged(made.id, when, "warn", "clean", "l", {}))
        found = verdicts.all_of(images.runs.journal, made.id)
        assert [each.when_ns for each in found] == list(range(12, 20))
        manage.remove(images, images.find(made.id))
        assert verdicts.all_of(images.runs.journal, made.id) == []


def test_a_list_is_read_as_it_was_written(home):
    with Images() as images:
        kept = sboms.keep(images.home, "abc", b"x" * 5)
        assert sboms.read(images.home, "abc", kept) == b"x" * 5
        assert sboms.is_kept(images.home, "abc", kept)
        Path(sboms.path_of(images.home, "abc", kept)).write_bytes(b"x" * 6)
        assert not sboms.is_kept(images.home, "abc", kept)


def test_who_activates_an_image_makes_no_list_anew(home, made):
    (name,) = lists(home)
    os.unlink(home / "images/sboms" / name)
    command("image", "activate", made.id)  # its source is gone, too
    assert lists(home) == []
