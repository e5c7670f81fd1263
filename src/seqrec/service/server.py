"""The process: listens, reloads, and stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from seqrec.service.app import Service, make_app
from seqrec.service.events import EventLog
from seqrec.service.registry import Registry, Source
from seqrec.service.telemetry import Telemetry
from seqrec.serving.settings import ServiceSettings

log = logging.getLogger("seqrec")


class _Server(uvicorn.Server):
    """Tells that it is stopping, and goes on for a while, before it closes its door."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]):
        super().__init__(config)
        self.service, self.begun = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens, and says so."""
        await super().startup(sockets)
        self.begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, a second one hastens it. It ends with 0, as it was told to."""
        seconds = 0.0 if self.service.stopping else self.service.settings.drain_seconds
        if self.should_exit:
            self.force_exit = True
        elif seconds:
            log.info("Stopping in %g seconds; /readyz says so.", seconds)
            timer = threading.Timer(seconds, self._close)
            timer.daemon = True
            timer.start()
        else:
            self._close()
        self.service.stopping = True

    def _close(self) -> None:
        self.should_exit = True


def serve(
    sources: Sequence[Source],
    settings: ServiceSettings,
    host: str,
    port: int,
    events: str | Path | None = None,
    token: str | None = None,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves models until it is told to stop (SIGTERM, SIGINT). SIGHUP looks for new states of the models.

    Args:
        sources: the models.
        settings: limits and habits.
        host, port: where it listens; port 0 for a free one.
        events: the folder that keeps what users did; None for none.
        token: which requests must bring; None: everybody may come in.
        started: called with the address once it answers.

    Raises:
        DataError: a folder holds no model.
        SettingsError: names, shares, the host or the port do not fit.
        StorageError: another process keeps its events in that folder.
    """
    measured = Telemetry()
    registry = Registry(sources, settings, measured=measured.batch, reloaded=measured.reload)
    kept = None if events is None else EventLog(events)
    service = Service(registry, kept, measured)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        look = asyncio.Event()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGHUP, look.set)
        task = asyncio.create_task(_reload(registry, look, settings.reload_seconds))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            registry.close()
            if kept is not None:
                await asyncio.to_thread(kept.close)

    config = uvicorn.Config(
        make_app(service, token, running),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # nothing here asks where a client is
        timeout_graceful_shutdown=30,
        backlog=2048,
    )
    with config.bind_socket() as bound:
        address = f"http://{host}:{bound.getsockname()[1]}"

        def listening() -> None:
            log.info("Serving %s at %s.", ", ".join(registry.served), address)
            started(address)

        _Server(config, service, listening).run([bound])


async def _reload(registry: Registry, look: asyncio.Event, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    def swap(replace: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            replace()
            done.set()

        loop.call_soon_threadsafe(run)
        done.wait()

    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(look.wait(), seconds or None)
        look.clear()
        try:
            await asyncio.to_thread(registry.reload, swap)
        except Exception:
            log.exception("Looking for new states of the models failed; the loaded ones go on.")
