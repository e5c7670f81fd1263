"""What every request passes first: is it measured, may it come in, is there room, is it too large?"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pydantic_core import to_json

from seqrec.service.telemetry import Telemetry

log = logging.getLogger("seqrec")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/openapi.json")
"""Paths that need no token: a page asks for it, and gives nothing away."""
KNOWN = (
    *OPEN, "/metrics", "/v1/recommend", "/v1/similar-items", "/v1/events", "/v1/models", "/v1/items",
)  # fmt: skip
"""Paths that metrics tell apart; all others are one, or whoever asks could fill the memory with names."""

LINGER = 10
"""Of a body that is too large so many times the limit is read, and thrown away, before the line is cut."""


class TooLarge(Exception):
    """A body that is larger than allowed."""


def problem(status: int, error: str, where: str | None = None, **headers: str) -> list[Message]:
    """The messages of an answer that refuses."""
    text = error.encode("utf-8", "backslashreplace").decode()
    body = to_json({"error": text, "where": where})
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    return [
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(k.encode(), v.encode()) for k, v in named.items()],
        },
        {"type": "http.response.body", "body": body},
    ]


class Door:
    """Stands before an ASGI application.

    Args:
        app: what is behind it.
        telemetry: which counts.
        max_body: bytes of a body; more gives 413.
        max_waiting: requests to ``/v1`` that are worked on at once; one more gives 429.
        token: without it in ``Authorization: Bearer``, 401; None: everybody may come in.
    """

    def __init__(self, app: App, telemetry: Telemetry, max_body: int, max_waiting: int, token: str | None):
        self.app, self.telemetry = app, telemetry
        self.max_body, self.max_waiting = max_body, max_waiting
        self.token = None if token is None else token.encode()
        self.at_once = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one connection event, as ASGI has it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begin, status = time.perf_counter(), 500

        async def measured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"] if scope["path"] in KNOWN else "other"
        try:
            await self._pass(scope, receive, measured)
        finally:
            self.telemetry.request(scope["method"], path, status, time.perf_counter() - begin)

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        refusal, headers = None, dict(scope["headers"])
        counted = scope["path"].startswith("/v1/")
        if self.token is not None and scope["path"] not in OPEN and not self._may(headers):
            text = "expected the header 'Authorization: Bearer TOKEN' with this service's token."
            refusal = problem(401, text, **{"www-authenticate": "Bearer"})
        elif counted and self.at_once >= self.max_waiting:
            text = f"{self.max_waiting} requests are being worked on, which is all at once. Try again soon."
            refusal = problem(429, text, **{"retry-after": "1"})
        elif int(headers.get(b"content-length", b"0") or 0) > self.max_body:
            await self._discard(receive)
            refusal = self._too_large()
        if refusal is not None:
            for message in refusal:
                await send(message)
            return
        started, refused, received = False, False, 0

        async def limited() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                if not started:
                    if message.get("more_body"):
                        await self._discard(receive)
                    for part in self._too_large():
                        await send(part)
                refused = True
                raise TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            if not refused:  # else whatever the application makes of it comes too late
                await send(message)

        self.at_once += counted
        self.telemetry.at_once.set(self.at_once)
        try:
            await self.app(scope, limited, noted)
        except TooLarge:
            pass
        except Exception:
            log.exception(
                "%s %s: this is a fault of seqrec; please report it.", scope["method"], scope["path"]
            )
            if not started and not refused:
                for message in problem(500, "The service failed; its log has the reason."):
                    await send(message)
        finally:
            self.at_once -= counted
            self.telemetry.at_once.set(self.at_once)

    def _may(self, headers: dict[bytes, bytes]) -> bool:
        assert self.token is not None
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        # takes as long whatever the token
        return hmac.compare_digest(token.strip(), self.token) and kind.lower() == b"bearer"

    async def _discard(self, receive: Receive) -> None:
        """Reads on, within bounds: a client that is still sending does not read why it is refused."""
        left = LINGER * self.max_body
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return

    def _too_large(self) -> list[Message]:
        text = f"body: expected at most {self.max_body:,} bytes. Send fewer histories a request."
        return problem(413, text, connection="close")
