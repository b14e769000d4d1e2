"""OpenTelemetry's own SDK, that spans can be looked at: of this process, and of any that is started from here."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.tools import missing

_FILE, _LATER = "TEST_SPANS_FILE", "TEST_SPANS_LATER"
_SITE = f"""
import json, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open(os.environ["{_FILE}"], "a") as file:
            for each in spans:
                file.write(json.dumps({{
                    "name": each.name,
                    "pid": os.getpid(),
                    "trace": format(each.context.trace_id, "032x"),
                    "span": format(each.context.span_id, "016x"),
                    "parent": each.parent and format(each.parent.span_id, "016x"),
                    "begun_ns": each.start_time,
                    "ended_ns": each.end_time,
                    "attributes": dict(each.attributes),
                }}) + "\\n")
        return SpanExportResult.SUCCESS

processor = BatchSpanProcessor if os.environ.get("{_LATER}") else SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(processor(ToFile()))
trace.set_tracer_provider(provider)
"""
"""What an interpreter does when it starts, as OpenTelemetry's own launcher has it."""


def need_sdk() -> None:
    """End the test where OpenTelemetry's SDK is missing."""
    try:
        found = find_spec("opentelemetry.sdk.trace")
    except ModuleNotFoundError:
        found = None
    if found is None:
        missing("opentelemetry.sdk is missing: pip install opentelemetry-sdk")


class Spans:
    """Spans of all processes that are started from now on. They are told at once, or with ``later`` in batches."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        need_sdk()
        self._path = folder / "spans"
        self._path.touch()
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(":"))
        monkeypatch.setenv(_FILE, str(self._path))
        self._patch = monkeypatch

    def later(self) -> None:
        """Have processes tell their spans in batches, as they do outside tests."""
        self._patch.setenv(_LATER, "1")

    def all(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(**json.loads(line)) for line in self._path.read_text().splitlines()]

    def of(self, name: str) -> list[SimpleNamespace]:
        return [each for each in self.all() if each.name == name]


class Provider:
    """A provider of this process; ``finished`` are its spans."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sampler: object | None = None) -> None:
        need_sdk()
        import opentelemetry.trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: self.provider)

    def finished(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                name=each.name,
                trace=f"{each.context.trace_id:032x}",
                span=f"{each.context.span_id:016x}",
                parent=each.parent and f"{each.parent.span_id:016x}",
                attributes=dict(each.attributes),
                failed=not each.status.is_ok,
            )
            for each in self._exporter.get_finished_spans()
        ]
