"""What a service is told when it starts."""

from __future__ import annotations

from pydantic import Field

from seqrec.settings.base import Settings


class ServiceSettings(Settings):
    """Limits and habits of a service."""

    max_body: int = Field(1 << 20, ge=1)
    """Bytes of a request's body."""
    max_k: int = Field(1000, ge=1)
    """Items a history."""
    max_queries: int = Field(1000, ge=1)
    """Histories a request."""
    max_length: int = Field(10_000, ge=1)
    """Items of a history, and of ``allow`` and ``deny``; events of a request."""
    max_waiting: int = Field(256, ge=1)
    """Requests that are worked on at once."""
    batch: int = Field(256, ge=1)
    """Histories that are scored together, at most. Nothing waits for a batch to fill."""
    remembered: int = Field(10_000, ge=1)
    """Histories whose state a recurrent model of torch remembers: one that grows costs a step an event."""
    approximate: bool = False
    """Search the index that ``seqrec index`` has built beside each model, in place of all items."""
    reload_seconds: float = Field(5.0, ge=0, le=86_400)
    """How often the folders of the models are looked at for a new state; 0: only on SIGHUP."""
    threads: int | None = Field(None, ge=1)
    """Threads of a model's arithmetic; None: one for each core but one, at least one."""
    device: str = "auto"
    """Where models of torch compute: cpu, cuda, mps, or the best there is."""
    drain_seconds: float = Field(0.0, ge=0, le=600)
    """How long it goes on after SIGTERM while /readyz says that it stops, for proxies to notice."""
    titles: str = "title"
    """The attribute of the items that is shown and searched."""
