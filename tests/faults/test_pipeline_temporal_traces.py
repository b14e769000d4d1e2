"""One trace by OpenTelemetry's SDK from who asks, over workers that are killed, to the volume; with a real server."""

import subprocess

import pytest

from blockwright.pipeline.images import Images
from tests.faults.test_pipeline_temporal import server
from tests.support.command import COMMAND
from tests.support.faketrivy import FakeTrivy, report, vulnerability
from tests.support.pipeline import POOL, command, docker_archive, home, parsed
from tests.support.spans import Spans
from tests.support.temporal import worker, worker_killed_at

__all__ = ["home", "server"]
pytestmark = pytest.mark.ci


@pytest.fixture
def spans(home, tmp_path, monkeypatch) -> Spans:
    return Spans(tmp_path, monkeypatch)


def asking(path: str, server: str, *more: str) -> list[str]:
    return ["fetch-and-create", path, "--pool", POOL, "--temporal", server, "--on", "a", *more]


def test_who_asks_and_workers_of_which_one_is_killed_share_a_trace(home, tmp_path, server, spans):
    """As for people, spans are told in batches: those of a worker that is killed are lost, and no others."""
    spans.later()
    path = docker_archive(tmp_path)
    words = [*COMMAND, *asking(path, server, "--scan", "off")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
        with worker_killed_at(server, "a", "create: filled") as first:
            assert first.stdout.readline() == "met\n"
            first.wait(60)
        with worker(server, "a") as second:
            assert asked.communicate(timeout=150)[0]
    found = spans.all()
    assert len({each.trace for each in found}) == 1
    (run,), (workflow,), (create,) = (spans.of(each) for each in ("run", "workflow", "create"))
    assert (run.pid, run.parent) == (asked.pid, None)
    assert {each.parent for each in found} == {None, run.span}
    assert (create.pid, create.attributes["blockwright.attempt"]) == (second.pid, 2)
    assert workflow.attributes["blockwright.state"] == "ready"
    assert run.begun_ns <= workflow.begun_ns <= create.begun_ns <= workflow.ended_ns <= run.ended_ns
    assert spans.of("publish")
    with Images() as images:
        assert images.list()[0].trace[:-2] == f"00-{run.trace}-{run.span}-"

    with worker(server, "a"):
        command(*asking(path, server, "--scan", "off", "--activate"))
        command("image", "deactivate", run.attributes["blockwright.run"], "--temporal", server, "--on", "a")
    more = spans.all()[len(found) :]
    _, again = spans.of("run")
    assert (again.trace, again.parent) == (run.trace, run.span)
    assert {each.name for each in more if each.parent == again.span} == {"held", "activate", "publish", "workflow"}
    ours, theirs = sorted(spans.of("deactivate"), key=lambda each: each.begun_ns)
    assert (ours.parent, theirs.parent, theirs.trace) == (None, ours.span, ours.trace)
    assert ours.trace != run.trace


def test_a_run_that_failed_goes_on_in_its_trace(home, tmp_path, server, spans, monkeypatch):
    trivy = FakeTrivy(tmp_path / "program")
    trivy.says(report(vulnerability("CVE-2099-1")))
    trivial = ("--scan", "enforce", "--scanner", "trivy")
    options = [f"--scanner-option=program={trivy.program}", f"--scanner-option=database={tmp_path}"]
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", parent)
    with worker(server, "a"):
        command(*asking(docker_archive(tmp_path), server, *trivial, *options), code=3)
        monkeypatch.delenv("TRACEPARENT")
        trivy.says(report())
        (first,) = spans.of("run")
        name = first.attributes["blockwright.run"]
        assert parsed("image", "retry", name, "--temporal", server, "--on", "a")["did"] == ["scan", "create"]
    _, again = spans.of("run")
    assert (first.parent, again.parent) == (parent.split("-")[2], first.span)
    assert {each.trace for each in spans.all()} == {parent.split("-")[1]}
    assert [each.attributes["blockwright.state"] for each in spans.of("workflow")] == ["failed", "ready"]
