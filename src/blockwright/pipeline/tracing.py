"""Traces: a span for each step where OpenTelemetry is installed; the trace is kept with the run in any case.

A run's place in a trace is text as the W3C's Trace Context has it (traceparent, version 00): that of the first span
that the run had. So whoever goes on with the run, in another process or on another machine, goes on with the trace.

Knows: that text, and how spans begin. Refuses to know: who collects them.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

_PARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
VARIABLE: Final = "TRACEPARENT"
"""The environment variable that a caller's place in its trace is taken from."""
FLUSH_S: Final = 5.0
"""How long a process that ends waits at most for whoever collects its spans."""


def new_trace() -> str:
    """Return the caller's place in its trace, or that of a trace of our own."""
    return _given() or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _given() -> str:
    """Return the place that the environment has, empty where that is none."""
    given = os.environ.get(VARIABLE, "")
    return given if _PARENT.fullmatch(given) else ""


@contextmanager
def trace(run: str, known: str = "", name: str = "run") -> Iterator[str]:
    """Have spans within be of the trace that the run is ``known`` to have, and yield the place of the first of them.

    It is the caller's where the run has none, and a new one where nobody who calls us is in one.
    """
    with _span(name, run, known, {}) as place:
        yield place or known or new_trace()


@contextmanager
def span(name: str, run: str, attempt: int, place: str = "") -> Iterator[None]:
    """Have what is done within be a span, below the one that is open, or the one of another process at ``place``."""
    with _span(name, run, place, {"blockwright.attempt": attempt}):
        yield


def spanned(name: str, run: str, place: str, begun_ns: int, state: str) -> None:
    """Have a span at ``place`` of what began then, in another process, and is over now."""
    api = _api()
    if api is not None:
        tracer = api.trace.get_tracer("blockwright")
        attributes = {"blockwright.run": run, "blockwright.state": state}
        tracer.start_span(name, context=api.context(place), attributes=attributes, start_time=begun_ns).end()


def flush() -> None:
    """Have spans collected that were not yet, in a process whose end runs nothing of others."""
    api = _api()
    send = None if api is None else getattr(api.trace.get_tracer_provider(), "force_flush", None)
    if send is not None:
        # Who sends them tries again for longer than anybody waits.
        beside = threading.Thread(target=send, name="spans", daemon=True)
        beside.start()
        beside.join(FLUSH_S)


@contextmanager
def _span(name: str, run: str, place: str, attributes: dict[str, Any]) -> Iterator[str]:
    """Begin a span, and yield its place, empty where there is none."""
    api = _api()
    if api is None:
        yield ""
        return
    tracer = api.trace.get_tracer("blockwright")
    attributes = {"blockwright.run": run} | attributes
    with tracer.start_as_current_span(name, context=api.context(place), attributes=attributes) as begun:
        yield api.place(begun)


class _Api(NamedTuple):
    """What OpenTelemetry has for it."""

    trace: Any
    propagator: Any

    def context(self, place: str) -> Any:
        """Return the context below a place; without one the current span's, or that of the environment."""
        if not place and not self.trace.get_current_span().get_span_context().is_valid:
            place = _given()
        # The text is ours, whatever others are told by (OTEL_PROPAGATORS).
        return self.propagator.extract({"traceparent": place}) if _PARENT.fullmatch(place) else None

    def place(self, span: Any) -> str:
        """Return a span's own place, empty for one that nobody makes."""
        carrier: dict[str, str] = {}
        self.propagator.inject(carrier, self.trace.set_span_in_context(span))
        return carrier.get("traceparent", "")


def _api() -> _Api | None:
    """Return what OpenTelemetry has, None where it is not installed."""
    try:
        import opentelemetry.trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None
    return _Api(opentelemetry.trace, TraceContextTextMapPropagator())
