"""Traces: a span for each step where OpenTelemetry is installed; the trace is kept with the run in any case.

A run's place in a trace is text as the W3C's Trace Context has it (traceparent, version 00), so whoever goes on with
the run goes on with the trace.

Knows: that text, and how spans begin. Refuses to know: who collects them.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # neither is needed to know the text
    from blockwright.pipeline.inputs import Inputs
    from blockwright.pipeline.records import Run

_PARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
VARIABLE: Final = "TRACEPARENT"
"""The environment variable that a caller's place in its trace is taken from."""


def new_trace() -> str:
    """Return the caller's place in its trace, or that of a trace of our own."""
    given = os.environ.get(VARIABLE, "")
    if _PARENT.fullmatch(given):
        return given
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@contextmanager
def trace(run: Run) -> Iterator[str]:
    """Have steps within the context be spans of the run's trace, and give its traceparent."""
    parent = run.trace or new_trace()
    api = _api()
    if api is None:
        yield parent
        return
    otel, context, propagate = api
    token = context.attach(propagate.extract({"traceparent": parent}))
    try:
        with otel.get_tracer("blockwright").start_as_current_span("run", attributes={"blockwright.run": run.id}):
            yield parent
    finally:
        context.detach(token)


@contextmanager
def span(name: str, inputs: Inputs, attempt: int) -> Iterator[None]:
    """Have what is done within be a span."""
    api = _api()
    if api is None:
        yield
        return
    attributes = {"blockwright.run": inputs.run, "blockwright.attempt": attempt}
    with api[0].get_tracer("blockwright").start_as_current_span(name, attributes=attributes):
        yield


def _api() -> tuple[Any, Any, Any] | None:
    """Return what OpenTelemetry has for it, None where it is not installed."""
    try:
        import opentelemetry.context
        import opentelemetry.propagate
        import opentelemetry.trace
    except ImportError:
        return None
    return opentelemetry.trace, opentelemetry.context, opentelemetry.propagate
