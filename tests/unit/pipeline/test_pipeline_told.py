"""What runs tell of themselves: states, receipts, provenance, metrics, traces, verdicts."""

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blockwright.errors import Corrupt, InUse, PolicyViolated, ScanFailed, UsageError
from blockwright.pipeline import manage, metrics, states, tracing
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.provenance import statement
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import STEPS, Event, State, check_transition, drawn, transition
from blockwright.scan import registry
from blockwright.scan.scanner import Database, Report
from blockwright.scan.verdict import Finding, Severity
from tests.support.oci import Image
from tests.support.pipeline import (
    FILES,
    LAYERS,
    POOL,
    command,
    content,
    docker_archive,
    fetch,
    home,
    left,
    packed,
    request,
    volumes,
)

__all__ = ["home"]
pytestmark = pytest.mark.unprivileged
PAGE = Path(__file__).parents[3] / "docs/pipeline.md"


# -- states ----------------------------------------------------------------------------------------------------------


def test_every_step_leads_where_the_next_one_begins():
    state = State.NEW
    for step in (*STEPS, Event.ACTIVATE):
        state = check_transition(step, "x", state)
    assert state is State.ACTIVE
    assert {each.event for each in states.TRANSITIONS} == set(Event)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_no_other_transition_is_allowed(event, state):
    if state in transition(event).sources:
        assert check_transition(event, "x", state) is transition(event).target
    else:
        with pytest.raises((UsageError, InUse), match=f"found it {state.value}"):
            check_transition(event, "x", state)


def test_a_state_is_drawn_where_it_is():
    assert drawn(State.SCANNED, STEPS[:3])[0] == "new -> fetched -> verified -> [scanned] -> ready -> active"
    assert drawn(State.FAILED, STEPS[:1])[0] == "new -> [fetched] -> verified -> scanned -> ready -> active  (failed)"
    assert "retry -> new" in drawn(State.FAILED, ())[1]


def test_the_page_has_the_table():
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \| (\w+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    ours = [
        (
            each.event.value,
            ", ".join(one.value for one in State if one in each.sources),
            each.target.value,
            each.meaning,
        )
        for each in states.TRANSITIONS
    ]
    assert [row for row in rows if row[0] != "event"] == ours


# -- receipts --------------------------------------------------------------------------------------------------------


def test_inputs_go_to_another_process_and_back(home, tmp_path):
    outcome = fetch(request(docker_archive(tmp_path)))
    inputs = outcome.run.inputs(outcome.receipts)
    again = Inputs.parse(json.loads(json.dumps(inputs.document())))
    assert again == inputs
    assert [each.digest for each in again.receipts] == [each.digest for each in outcome.receipts]
    with pytest.raises(Corrupt, match="expected a receipt of activate"):
        again.outputs(Event.ACTIVATE)


def test_a_receipt_that_was_changed_breaks_the_chain(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    outcome = fetch(wanted)
    check_chain(outcome.receipts)
    with pytest.raises(Corrupt, match="verify: expected it behind"):
        check_chain(outcome.receipts[1:])
    with Images() as images, images.runs.journal.transaction() as db:
        db.execute("UPDATE receipt SET document = replace(document, '\"warn\"', '\"off\"') WHERE step = 'download'")
        db.execute("UPDATE receipt SET document = replace(document, '\"file\"', '\"FILE\"') WHERE step = 'download'")
        db.execute("UPDATE run SET state = 'scanned'")
    assert tuple(fetch(wanted).fresh) == STEPS


@pytest.mark.parametrize(
    "change",
    [{"schema": "x"}, {"outputs": 3}, {"step": "fly"}, {"attempt": None}, {"tools": []}, {"started_ns": "now"}],
)
def test_what_is_no_receipt(home, tmp_path, change):
    document = fetch(request(docker_archive(tmp_path))).receipts[0].document()
    assert Receipt.parse(document).document() == document
    with pytest.raises(Corrupt):
        Receipt.parse(document | change)
    del document["before"]
    with pytest.raises(Corrupt):
        Receipt.parse(document)


def test_what_decides_is_what_a_run_is_called_by():
    base = Request("a", "p")
    same = [Request("b", "p"), Request("a", "p", activate=True), Request("a", "p", scan="off", policy="x")]
    other = [Request("a", "q"), Request("a", "p", size=1), Request("a", "p", label="x"), Request("a", "p", seed="s")]
    assert {each.run_of({"x": 1}) for each in same} == {base.run_of({"x": 1})}
    assert len({each.run_of({"x": 1}) for each in (base, *other)} | {base.run_of({"x": 2})}) == 6


@pytest.mark.parametrize("word", ["docker://h/app:1.2@sha256:0", "/a/b c/д.tar", "s3://x/..", "/" + "n" * 300, "///"])
def test_volumes_have_names_that_devices_can_have(word):
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", Request(word, "p").volume_of("0123456789ab"))


# -- provenance ------------------------------------------------------------------------------------------------------


def test_provenance_says_what_the_volume_was_made_of(home, tmp_path):
    outcome = fetch(request(docker_archive(tmp_path), activate=True))
    told = json.loads(command("image", "show", outcome.run.id, "--provenance")[0])
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    (subject,) = told["subject"]
    (file,) = (tmp_path / "volumes").glob("*.raw")
    assert subject["digest"] == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    build = told["predicate"]["buildDefinition"]
    layers = [each for each in build["resolvedDependencies"] if each["name"].startswith("layer")]
    assert [each["annotations"]["diff_id"] for each in layers] == [
        f"sha256:{hashlib.sha256(each).hexdigest()}" for each in LAYERS
    ]
    source = build["resolvedDependencies"][0]
    assert source["annotations"]["size"] == os.stat(tmp_path / "image.tar").st_size
    device = next(each for each in told["predicate"]["runDetails"]["byproducts"] if each["name"] == "device")
    assert device["annotations"]["snapshot"]["path"] == outcome.receipts[-1].outputs["path"]
    assert told["predicate"]["runDetails"]["metadata"]["invocationId"] == outcome.run.id


def test_there_is_none_of_what_is_not_ready(home, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    command("fetch-and-create", str(tmp_path / "bad.tar"), "--pool", POOL, code=1)
    with Images() as images, pytest.raises(UsageError, match="found it failed"):
        statement(images.find(images.list()[0].id))


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_count_steps_and_rejects_by_reason(home, tmp_path):
    fetch(request(packed(tmp_path)))
    twisted = Image(LAYERS)
    twisted.config["rootfs"]["diff_ids"][1] = "sha256:" + "0" * 64
    twisted.seal().directory(tmp_path / "twisted")
    command("fetch-and-create", str(tmp_path / "twisted"), "--pool", POOL, code=1)
    text = command("image", "metrics")[0]
    for line in (
        'blockwright_images{state="ready"} 1',
        'blockwright_images{state="failed"} 1',
        'blockwright_image_rejected_total{reason="digest"} 1',
        'blockwright_image_step_errors_total{step="verify",kind="ArchiveRejected"} 1',
        'blockwright_image_step_duration_seconds_count{step="create"} 1',
    ):
        assert f"{line}\n" in text
    ratio = float(re.search(r"^blockwright_images_unpacked_ratio (\S+)$", text, re.MULTILINE)[1])
    assert ratio > 10
    command("image", "metrics", "--textfile", str(tmp_path / "images.prom"))
    assert (tmp_path / "images.prom").read_text() == text
    with Images() as images:
        assert metrics.render(images) == text


# -- traces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "junk", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-" + "1" * 70])
def test_a_trace_of_our_own_where_there_is_none(monkeypatch, given):
    monkeypatch.setenv("TRACEPARENT", given)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", tracing.new_trace())
    assert tracing.new_trace() != tracing.new_trace()


# -- verdicts --------------------------------------------------------------------------------------------------------


class Looker:
    """A scanner that has seen every file, and finds what it is told to."""

    name = "looker"
    looks_for = "malware"

    def __init__(self, *findings: Finding) -> None:
        self.findings, self.seen = findings, {}

    def examine(self, subject):
        root = subject.projected(numbered=False).path
        for at, _, names in os.walk(root):
            for name in names:
                path = Path(at, name)
                self.seen[os.fsencode(f"/{path.relative_to(root)}")] = path.read_bytes()
        return Report("1.0", Database("7", datetime.now(UTC)), self.findings)


@pytest.mark.parametrize("form", ["docker-archive", "compressed layers", "compressed archive"])
def test_a_scanner_sees_every_file_whatever_the_source(home, tmp_path, monkeypatch, form):
    looker = Looker()
    monkeypatch.setattr(registry, "find_scanner", lambda *_: looker)
    if form == "compressed layers":
        reference = str(Image(LAYERS).seal().directory(tmp_path / "layout"))
    else:
        reference = docker_archive(tmp_path) if form == "docker-archive" else packed(tmp_path)
    outcome = fetch(request(reference, scan="enforce"))
    assert looker.seen == content(f"volume:{POOL}/{outcome.run.volume}")
    assert looker.seen.items() >= {b"/bin/tool": FILES[b"/bin/tool"]}.items()
    verdict = outcome.receipt(Event.SCAN).outputs
    assert verdict["line"].startswith("scan: clean")
    assert verdict["verdict"]["scanner"] == "looker"
    assert left(home) == []
    assert not (home / "images/work").exists() or os.listdir(home / "images/work") == []


def test_what_breaks_the_policy_makes_no_volume(home, tmp_path, monkeypatch):
    looker = Looker(Finding("EICAR", Severity.CRITICAL, place="bin/tool"))
    monkeypatch.setattr(registry, "find_scanner", lambda *_: looker)
    path = docker_archive(tmp_path)
    with pytest.raises(PolicyViolated):
        fetch(request(path, scan="enforce"))
    assert volumes() == []
    with Images() as images:
        assert (images.list()[0].state, images.list()[0].failed) == ("failed", "scan")
    outcome = fetch(request(path, scan="warn"))
    assert outcome.receipt(Event.SCAN).outputs["verdict"]["violations"] == 1
    with Images() as images:
        assert images.find(outcome.run.id).verdict == "scan: 1 piece of malware"
    allowed = '[[allow]]\nid = "EICAR"\nuntil = 2999-01-01\n'
    assert fetch(request(path, scan="enforce", policy=allowed)).run.state is State.READY


def test_another_verdict_makes_no_other_volume(home, tmp_path, monkeypatch):
    looker = Looker(Finding("EICAR", Severity.CRITICAL, place="bin/tool"))
    monkeypatch.setattr(registry, "find_scanner", lambda *_: looker)
    path = docker_archive(tmp_path)
    first = fetch(request(path, scan="off"))
    met: list[str] = []
    warned = fetch(request(path, scan="warn"), met.append)
    assert list(warned.fresh) == [Event.SCAN, Event.CREATE]
    assert "create: filling" not in met
    assert volumes() == [first.run.volume]
    made = [each.receipt(Event.CREATE).outputs for each in (first, warned)]
    assert made[0] == made[1]
    for mode in ("off", "warn"):
        assert fetch(request(path, scan=mode)).fresh == ()
    with pytest.raises(PolicyViolated):
        fetch(request(path, scan="enforce"))
    with Images() as images:
        assert (images.list()[0].state, images.list()[0].failed) == ("failed", "scan")
    looker.findings = ()
    assert list(fetch(request(path, scan="warn", activation="vm", activate=True)).fresh)[-1] is Event.ACTIVATE
    enforced = fetch(request(path, scan="enforce"))
    assert enforced.run.state is State.ACTIVE  # as the snapshot is
    with Images() as images:
        manage.deactivate(images, images.find(first.run.id))
        manage.remove(images, images.find(first.run.id), snapshots=True)
    first = fetch(request(path, scan="off"))
    assert list(fetch(request(path, scan="enforce")).fresh) == [Event.SCAN, Event.CREATE]
    assert fetch(request(path, scan="warn")).fresh == ()
    assert volumes() == [first.run.volume]


def test_without_a_scanner_nothing_is_enforced_and_all_is_told(home, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "find_scanner", lambda *_: None)
    monkeypatch.setattr("blockwright.scan.find_scanner", lambda *_: None)
    path = docker_archive(tmp_path)
    with pytest.raises(ScanFailed):
        fetch(request(path, scan="enforce"))
    assert "no scanner is installed" in fetch(request(path, scan="warn")).receipt(Event.SCAN).outputs["line"]


def test_a_scanner_that_comes_too_late_has_seen_nothing(home, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "find_scanner", lambda *_: None)
    monkeypatch.setattr("blockwright.scan.find_scanner", lambda *_: Looker())
    with pytest.raises(ScanFailed, match="has seen nothing"):
        fetch(request(docker_archive(tmp_path), scan="warn"))


def test_an_image_too_large_to_be_kept_is_not_scanned_in_part(home, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "find_scanner", lambda *_: Looker())
    with Images() as images, pytest.raises(Exception, match="spool: expected at most 100 bytes"):
        images.fetch(request(packed(tmp_path), scan="warn", limits={"spool": 100}), Context(images.home))
    assert volumes() == []
