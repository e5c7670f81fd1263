"""What a service says of itself: Prometheus metrics, and a line of JSON a request."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
"""Bounds of the histogram of durations."""
HISTORIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Bounds of the histogram of batch sizes."""

requests = logging.getLogger("seqrec.requests")


class Telemetry:
    """Counts and durations, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.answered = Counter("seqrec_requests", "Answered requests.", ["path", "status"], registry=r)
        self.seconds = Histogram(
            "seqrec_request_seconds", "Duration of requests.", ["path"], buckets=SECONDS, registry=r
        )
        self.at_once = Gauge("seqrec_requests_in_progress", "Requests that are worked on.", registry=r)
        self.histories = Histogram(
            "seqrec_batch_histories", "Histories scored together.", ["model"], buckets=HISTORIES, registry=r
        )
        self.sources = Counter(
            "seqrec_recommendations", "Answered histories.", ["model", "source"], registry=r
        )
        self.events = Counter("seqrec_events", "Events on disk.", registry=r)
        self.reloads = Counter("seqrec_reloads", "New states of models.", ["model", "loaded"], registry=r)

    def batch(self, model: str, size: int) -> None:
        """A batch was scored."""
        self.histories.labels(model).observe(size)

    def reload(self, model: str, loaded: bool) -> None:
        """A new state was loaded, or could not be."""
        self.reloads.labels(model, str(loaded).lower()).inc()

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.answered.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        requests.info("request", extra={"of": (method, path, status, seconds)})

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """A log line as one JSON object: time, level, logger, message, and what a request adds."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        of = getattr(record, "of", None)
        if of is not None:
            method, path, status, seconds = of
            line |= {"method": method, "path": path, "status": status, "ms": round(seconds * 1000, 3)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_json(level: int = logging.INFO) -> None:
    """All log lines go to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, least in (("seqrec", level), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
