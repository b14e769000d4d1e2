"""Traces by OpenTelemetry's SDK: one for a run, whoever goes on with it; and nothing of it where it is not there."""

import os
import signal
import subprocess
import sys

import pytest

from blockwright.errors import BlockwrightError
from blockwright.pipeline import tracing
from blockwright.pipeline.identity import identify
from blockwright.pipeline.images import Images
from tests.support.pipeline import POOL, command, docker_archive, fetch, home, parsed, request
from tests.support.spans import Provider, Spans, need_sdk

__all__ = ["home"]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEPS = ["download", "verify", "scan", "create"]


class Killed(BaseException):
    pass


def die(name: str) -> None:
    if name == "scan: done":
        raise Killed


def recorded() -> str:
    with Images() as images:
        return images.list()[0].trace


def test_the_first_span_is_recorded_and_the_run_goes_on_below_it(home, tmp_path, monkeypatch):
    seen = Provider(monkeypatch)
    wanted = request(docker_archive(tmp_path))
    with pytest.raises(Killed):
        fetch(wanted, die)
    *steps, first = seen.finished()
    assert [each.name for each in steps] == STEPS[:3]
    assert {each.parent for each in steps} == {first.span}
    assert (first.name, first.parent) == ("run", None)
    assert steps[0].attributes == {"blockwright.run": wanted.run_of(identify(wanted)), "blockwright.attempt": 1}
    fetch(wanted)
    *steps, again = seen.finished()[4:]
    assert [each.name for each in steps] == STEPS[2:]
    assert {each.parent for each in steps} == {again.span}
    assert (again.name, again.parent, again.trace) == ("run", first.span, first.trace)
    assert recorded()[:-2] == f"00-{first.trace}-{first.span}-"


def test_the_caller_s_trace_is_the_run_s(home, tmp_path, monkeypatch):
    seen = Provider(monkeypatch)
    monkeypatch.setenv("TRACEPARENT", PARENT)
    fetch(request(docker_archive(tmp_path)))
    assert (seen.finished()[-1].trace, seen.finished()[-1].parent) == tuple(PARENT.split("-")[1:3])
    with seen.provider.get_tracer("caller").start_as_current_span("caller"):  # who calls from within comes first
        fetch(request(docker_archive(tmp_path, "2.tar")))
    *_, run, caller = seen.finished()
    assert (run.name, run.parent, run.trace) == ("run", caller.span, caller.trace)
    assert caller.trace != PARENT.split("-")[1]


def test_whoever_samples_decides_on_a_new_trace_and_on_the_rest_of_it(home, tmp_path, monkeypatch):
    need_sdk()
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    none = Provider(monkeypatch, ALWAYS_OFF)
    wanted = request(docker_archive(tmp_path))
    with pytest.raises(Killed):
        fetch(wanted, die)
    assert not int(recorded()[-2:], 16) & 1
    usual = Provider(monkeypatch)
    fetch(wanted)
    assert none.finished() == usual.finished() == []


def test_a_run_goes_on_whatever_others_are_told_traces_by(home, tmp_path, monkeypatch):
    seen = Provider(monkeypatch)
    from opentelemetry import propagate
    from opentelemetry.propagators.composite import CompositePropagator

    monkeypatch.setattr(propagate, "get_global_textmap", lambda: CompositePropagator([]))
    monkeypatch.setenv("TRACEPARENT", PARENT)
    fetch(request(docker_archive(tmp_path)))
    assert {each.trace for each in seen.finished()} == {PARENT.split("-")[1]}
    assert recorded().split("-")[1] == PARENT.split("-")[1]


def test_what_failed_is_seen_to_have(home, tmp_path, monkeypatch):
    seen = Provider(monkeypatch)
    path = tmp_path / "broken.tar"
    path.write_bytes(b"\xff" * 4096)
    with pytest.raises(BlockwrightError):
        fetch(request(str(path)))
    assert [(each.name, each.failed) for each in seen.finished()] == [
        ("download", False),
        ("verify", True),
        ("run", True),
    ]


def test_without_a_provider_the_trace_is_recorded_all_the_same(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", PARENT)
    fetch(request(docker_archive(tmp_path)))
    assert recorded() == PARENT


_KILLED = """
import os, signal, sys
from tests.support.pipeline import fetch, request
def die(name):
    if name == "scan: done":
        os.kill(os.getpid(), signal.SIGKILL)
fetch(request(sys.argv[1]), die)
"""


def test_another_process_goes_on_with_the_trace_of_one_that_was_killed(home, tmp_path, monkeypatch):
    spans = Spans(tmp_path, monkeypatch)
    wanted = request(docker_archive(tmp_path))
    killed = subprocess.run([sys.executable, "-c", _KILLED, wanted.reference], check=False)
    assert killed.returncode == -signal.SIGKILL
    (parent,) = {each.parent for each in spans.all()}  # that of the run, which was never told
    spans.later()
    name = wanted.run_of(identify(wanted))
    words = [sys.executable, "-m", "blockwright", "image", "retry", name]  # without warnings, so it ends in a hurry
    subprocess.run(words, check=True, capture_output=True)
    assert [each.name for each in spans.all()] == [*STEPS, "run"]
    assert len({each.trace for each in spans.all()}) == 1
    assert len({each.pid for each in spans.all()}) == 2
    (run,) = spans.of("run")
    assert run.parent == parent
    assert {each.parent for each in spans.all() if each.pid == run.pid} == {parent, run.span}
    assert recorded()[:-2] == f"00-{run.trace}-{parent}-"


def test_who_collects_spans_and_does_not_answer_is_not_waited_for_long(monkeypatch):
    import threading
    import time

    seen, over = Provider(monkeypatch), threading.Event()
    monkeypatch.setattr(seen.provider, "force_flush", over.wait)
    monkeypatch.setattr(tracing, "FLUSH_S", 0.05)
    begun = time.monotonic()
    tracing.flush()
    assert time.monotonic() - begun < 60
    over.set()


def test_nothing_is_imported_where_it_is_not_installed(home, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    found = parsed("fetch-and-create", docker_archive(tmp_path), "--pool", POOL, "--scan", "off")
    assert found["did"] == STEPS
    assert tracing._PARENT.fullmatch(recorded())
    with monkeypatch.context() as patch:
        patch.setenv("TRACEPARENT", PARENT)
        command("fetch-and-create", docker_archive(tmp_path, "2.tar"), "--pool", POOL, "--scan", "off")
    with Images() as images:
        assert PARENT in {each.trace for each in images.list()}
