"""Tracing hooks for the tests: a process's spans are kept in its memory, and shown in a file of its own."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

DIRECTORY = "UMBEL_TEST_SPANS"  # the environment variable that names where


class Exporter(InMemorySpanExporter):
    """What ended is there before the result of a task is."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if DIRECTORY in os.environ:
            with open(os.path.join(os.environ[DIRECTORY], str(os.getpid())), "a") as file:
                for span in self.get_finished_spans():
                    file.write(json.dumps(_told(span)) + "\n")
        self.clear()
        return result


def _told(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent is not None else None,
        "attributes": dict(span.attributes or {}),
        "is_error": span.status.status_code.name == "ERROR",
        "events": [event.name for event in span.events],
        "took_ns": (span.end_time or 0) - (span.start_time or 0),
        "pid": os.getpid(),
    }


def set_up() -> None:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # it can be set once
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Exporter()))
        trace.set_tracer_provider(provider)


def set_up_late() -> None:
    """Spans are exported when that is asked for, and not before."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)


def fail_in_workers() -> None:
    from umbel._client import current

    if current.running_engine() is not None:
        raise RuntimeError("not here")
    set_up()


def fail() -> None:
    raise RuntimeError("not anywhere")


def taken() -> list[dict[str, Any]]:
    """The spans that have ended in any process since they were asked for last."""
    found = []
    for path in pathlib.Path(os.environ[DIRECTORY]).iterdir():
        found += [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
    return found
