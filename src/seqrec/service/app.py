"""The paths of the service. Each reads its message, asks the models, and writes its answer."""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException as StarletteHTTPException

from seqrec import __version__
from seqrec.data.catalogue import Catalogue
from seqrec.errors import SeqrecError, SettingsError, StorageError, UnknownIdError, shown
from seqrec.service.door import Door, Message, Receive, Send, problem
from seqrec.service.events import EventLog
from seqrec.service.messages import (
    EventsAnswer,
    EventsRequest,
    Health,
    Item,
    ItemsAnswer,
    ModelAnswer,
    ModelsAnswer,
    Problem,
    RecommendAnswer,
    RecommendRequest,
    SimilarAnswer,
    SimilarRequest,
)
from seqrec.service.registry import Registry, Served
from seqrec.service.telemetry import Telemetry
from seqrec.serving import moments, recommender, similar
from seqrec.serving.because import because
from seqrec.topk import Filter

PAGE = Path(__file__).with_name("page.html")


class Refused(Exception):
    """A request that is answered with a problem.

    Args:
        status: of HTTP.
        error, where: as of ``Problem``.
    """

    def __init__(self, status: int, error: str, where: str | None = None):
        super().__init__(error)
        self.status, self.error, self.where = status, error, where


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    404: {"model": Problem, "description": "No such path or model."},
    405: {"model": Problem, "description": "Another method."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "What is wrong in the body, and where."},
    429: {"model": Problem, "description": "Too many requests at once; try again soon."},
    503: {"model": Problem, "description": "It cannot be done now; send it again later."},
}


@dataclass(frozen=True)
class Asked:
    """One history of a request, as a model reads it.

    Attributes:
        served: the model that answers.
        items: (length,) its indices of the items.
        baskets: (length,) numbers of their baskets; None of a model that reads none.
        user: its index of the user, -1 for unknown.
        unknown: items that it does not know.
        times: (length,) seconds since 1970 at which the items were taken, and the moment that is asked about;
            None of a model that reads no times.
    """

    served: Served
    items: np.ndarray
    user: int
    unknown: list[Any]
    baskets: np.ndarray | None = None
    times: tuple[np.ndarray, float] | None = None


class Service:
    """Models, events and what is measured of them.

    Args:
        registry: the models.
        events: what users did since; None: nobody tells.
        telemetry: which counts.
    """

    def __init__(self, registry: Registry, events: EventLog | None, telemetry: Telemetry):
        self.registry, self.events, self.telemetry = registry, events, telemetry
        self.settings, self.stopping = registry.settings, False

    async def recommend(self, body: RecommendRequest) -> dict[str, Any]:
        """The answer to ``/v1/recommend``, as JSON values.

        Raises:
            Refused: what is asked for is too much, or not known.
        """
        asked = self._asked(body)
        groups: dict[int, list[int]] = {}
        for row, one in enumerate(asked):
            groups.setdefault(id(one.served), []).append(row)
        waiting = []
        # all are handed in before anything is waited for: see Registry._replace
        for rows in groups.values():
            served = asked[rows[0]].served
            users = np.array([asked[row].user for row in rows], dtype=np.int32)
            lists = [asked[row].items for row in rows]
            filters = self._filter(served, body)
            told = [asked[row].baskets for row in rows]
            baskets = [one for one in told if one is not None] if served.model.reads_baskets else None
            when = [asked[row].times for row in rows]
            taken = [one for one in when if one is not None]
            times = ([one for one, _ in taken], np.array([one for _, one in taken])) if taken else None
            waiting.append((rows, served.batches.submit(lists, users, body.k, filters, baskets, times)))
        results: list[Any] = [None] * len(asked)
        for rows, future in waiting:
            top, known = await future
            for at, row in enumerate(rows):
                results[row] = self._result(row, body, asked[row], top.items[at], top.scores[at], known[at])
        return {"results": results}

    def _result(
        self,
        row: int,
        body: RecommendRequest,
        asked: Asked,
        items: np.ndarray,
        scores: np.ndarray,
        known: bool,
    ) -> dict[str, Any]:
        served, found = asked.served, items[items >= 0].tolist()
        source = "model" if known else "popularity"
        self.telemetry.sources.labels(served.source.name, source).inc()
        because = history = None
        if body.explain:
            because, history = self._because(served, found, asked.items), asked.items.tolist()
        return {
            "query": row,
            "user": None if body.users is None else body.users[row],
            "model": served.source.name,
            "source": source,
            "items": [served.ids[i] for i in found],
            "scores": scores[: len(found)].tolist(),
            "titles": served.titles_of(found),
            "unknown": asked.unknown,
            "because": because,
            "history": None if history is None else [served.ids[i] for i in history],
            "history_titles": None if history is None else served.titles_of(history),
        }

    @staticmethod
    def _because(served: Served, found: list[int], history: np.ndarray) -> list[list[Any]] | None:
        if served.vectors is None:
            return None
        near = because(served.vectors, np.array(found, dtype=np.int64), history)
        return [[served.ids[i] for i in of] for of in near]

    def _asked(self, body: RecommendRequest) -> list[Asked]:
        s, sequences, users = self.settings, body.sequences, body.users
        if sequences is None and users is None:
            raise Refused(422, "expected sequences or users, or both. Got neither.")
        if sequences is not None and users is not None and len(sequences) != len(users):
            raise Refused(
                422,
                f"expected as many sequences as users. Got {len(sequences)} and {len(users)}.",
                "sequences",
            )
        queries = len(users or ()) if sequences is None else len(sequences)
        self._at_most("sequences" if users is None else "users", queries, s.max_queries, "histories")
        self._at_most("k", body.k, s.max_k, "items")
        for name, ids in (("allow", body.allow or ()), ("deny", body.deny)):
            self._at_most(name, len(ids), s.max_length, "items")
        asked = []
        for row in range(queries):
            given = [] if sequences is None else sequences[row]
            sizes = [len(one) if isinstance(one, list) else 1 for one in given]
            baskets = sum(isinstance(one, list) for one in given)
            flat: list[Any] = given
            if baskets:
                flat = [item for one in given for item in (one if isinstance(one, list) else [one])]
            self._at_most(f"sequences.{row}", max(len(given), len(flat)), s.max_length, "items")
            if body.model is not None:
                served = self._named(body.model)
            elif users is not None:
                served = self.registry.of(users[row])
            else:
                served = self.registry.of(flat[0] if flat else "")
            try:
                recommender.refuse_depth(served.model, baskets, len(given), "sequences")
            except SettingsError as error:
                raise Refused(422, str(error), f"sequences.{row}") from error
            user = None if users is None else users[row]
            asked.append(self._ask(row, served, flat, sizes, user, body))
        return asked

    def _ask(
        self, row: int, served: Served, given: list[Any], sizes: list[int], user: Any, body: RecommendRequest
    ) -> Asked:
        """What is asked in a row, whose items come in baskets of these sizes."""
        index, known, until = -1, np.empty(0, np.int32), -np.inf
        taken = self._taken(row, served, given, body)
        if user is not None:
            index, known, until = served.history(user)
            if self.events is not None:
                since = self.events.live.since(user, until)
                live = [item for _, item in since]
                taken = None if taken is None else np.array([*(moment for moment, _ in since), *taken])
                given, sizes = [*live, *given], [*[1] * len(live), *sizes]  # an event is a basket of its own
            if index < 0 and not given and body.on_unknown == "raise":
                raise Refused(422, f"users: nothing is known of {shown(user)}.", f"users.{row}")
        newer = self._learned(served, self._indices(served, given, f"sequences.{row}", body.on_unknown))
        unknown = [] if newer.min(initial=0) >= 0 else [x for x, i in zip(given, newer) if i < 0]
        baskets = None
        if served.model.reads_baskets:
            of_known = served.baskets_of(index, len(known))
            of_newer = np.repeat(np.arange(len(sizes)), sizes)[newer >= 0]
            baskets = np.concatenate([of_known, of_known.max(initial=-1) + 1 + of_newer])
        times = None
        if taken is not None:
            times = self._moments(row, served, index, len(known), taken[newer >= 0], body)
        newer = newer[newer >= 0]
        items = np.concatenate([known, newer]) if len(known) else newer
        return Asked(served, items, index, unknown, baskets, times)

    @staticmethod
    def _taken(row: int, served: Served, given: list[Any], body: RecommendRequest) -> np.ndarray | None:
        """(length,) seconds since 1970 at which the items of a row were taken; None of a model that reads no
        times."""
        if not served.model.reads_times:
            return None
        if given and body.times is None:
            raise Refused(
                422,
                f"times: {served.source.name} reads when items were taken. Give times beside sequences.",
                "times",
            )
        if body.times is not None and len(body.times) != len(body.sequences or ()):
            raise Refused(422, "expected a list of times for each sequence.", "times")
        try:
            return moments.of_items([] if body.times is None else body.times[row], len(given), f"times.{row}")
        except SettingsError as error:
            raise Refused(422, str(error), f"times.{row}") from error

    @staticmethod
    def _moments(
        row: int, served: Served, user: int, known: int, newer: np.ndarray, body: RecommendRequest
    ) -> tuple[np.ndarray, float]:
        """(length,) when the items of a row were taken, those that are kept of the user and (n,) newer ones,
        and the moment that is asked about."""
        try:
            taken = np.concatenate([served.times_of(user, known), newer])
            asked = float(moments.seconds([moments.NOW if body.at is None else body.at], "at")[0])
        except SettingsError as error:
            raise Refused(422, str(error), "at") from error
        if len(taken) and ((np.diff(taken) < 0).any() or taken[-1] > asked):
            raise Refused(
                422,
                "expected times that rise from what is known of the user to the moment asked about.",
                "at",
            )
        return taken, asked

    @staticmethod
    def _learned(served: Served, indices: np.ndarray) -> np.ndarray:
        """(n,) the same, -1 where nothing was learned of an item: it is as good as unknown."""
        unlearned = served.model.unlearned
        return np.where(np.isin(indices, unlearned), -1, indices) if len(unlearned) else indices

    def _indices(self, served: Served, ids: list[Any], where: str, on_unknown: str) -> np.ndarray:
        get = served.catalogue.index.get
        indices = np.fromiter((get(raw, -1) for raw in ids), np.int32, len(ids))
        if on_unknown == "raise" and indices.min(initial=0) < 0:
            at = int(np.argmax(indices < 0))
            example = served.ids[0] if served.ids else None
            hint = "" if type(example) is type(ids[at]) else f" Ids here are as {shown(example)}."
            raise Refused(422, f"no item {shown(ids[at])}.{hint} on_unknown=ignore leaves it out.", where)
        return indices

    def _filter(self, served: Served, body: RecommendRequest) -> Filter:
        seen = served.source.filter_seen if body.filter_seen is None else body.filter_seen
        allow, deny = (
            None if given is None else self._indices(served, given, name, body.on_unknown)
            for name, given in (("allow", body.allow), ("deny", body.deny or None))
        )
        return Filter(
            seen, None if allow is None else allow[allow >= 0], None if deny is None else deny[deny >= 0]
        )

    async def similar(self, body: SimilarRequest) -> dict[str, Any]:
        """The answer to ``/v1/similar-items``, as JSON values.

        Raises:
            Refused: what is asked for is too much, or the model does not know what is alike.
        """
        self._at_most("items", len(body.items), self.settings.max_queries, "items")
        self._at_most("k", body.k, self.settings.max_k, "items")
        served = self.registry.first if body.model is None else self._named(body.model)
        ids = list(dict.fromkeys(body.items))
        indices = self._learned(served, self._indices(served, ids, "items", "ignore"))
        known = [item for item, index in zip(ids, indices, strict=True) if index >= 0]
        found: dict[Any, tuple[list[Any], list[float]]] = {}
        if known:
            try:
                frame = await asyncio.to_thread(similar.similar_items, served.model, known, body.k)
            except SeqrecError as error:
                raise Refused(422, str(error), "model") from error
            for row in frame.iter_rows(named=True):
                near, scores = found.setdefault(row["item_id"], ([], []))
                near.append(row["similar_id"])
                scores.append(row["score"])
        results = []
        for item in body.items:
            near, scores = found.get(item, ([], []))
            results.append(
                {
                    "item": item,
                    "known": item in known,
                    "items": near,
                    "scores": scores,
                    "titles": served.titles_of([served.catalogue.index[one] for one in near]),
                }
            )
        return {"model": served.source.name, "results": results}

    async def append(self, body: EventsRequest) -> int:
        """Writes events; how many.

        Raises:
            Refused: nobody keeps them, they are too many, or an id is of another type than the models'.
        """
        if self.events is None:
            raise Refused(503, "events: this service keeps none. Start it with --events FOLDER.")
        self._at_most("events", len(body.events), self.settings.max_length, "events")
        first = self.registry.first
        kinds = {"item_id": first.catalogue.ids.dtype.is_integer()}
        if first.model.sequences is not None:
            kinds["user_id"] = first.model.sequences.user_catalogue.ids.dtype.is_integer()
        for number, event in enumerate(body.events):
            for name, whole in kinds.items():
                value = getattr(event, name)
                if isinstance(value, int) != whole:
                    expected = "a whole number" if whole else "a text"
                    raise Refused(
                        422,
                        f"expected {expected}, as the ids of the models are. Got {shown(value)}.",
                        f"events.{number}.{name}",
                    )
        now = time.time()
        await self.events.append(
            [(e.user_id, e.item_id, now if e.timestamp is None else e.timestamp) for e in body.events]
        )
        self.telemetry.events.inc(len(body.events))
        return len(body.events)

    def models(self) -> ModelsAnswer:
        """The answer to ``/v1/models``."""
        return ModelsAnswer(
            models=[
                ModelAnswer(
                    name=one.source.name,
                    kind=one.model.name,
                    runs_on=one.runs_on,
                    share=one.source.share,
                    items=len(one.ids),
                    users=one.users,
                    item_ids=_kind(one.catalogue),
                    user_ids=_kind(
                        None if one.model.sequences is None else one.model.sequences.user_catalogue
                    ),
                    filter_seen=one.source.filter_seen,
                    similar_items=one.knows_alike,
                    state=one.state,
                    loaded_at=one.loaded_at,
                    trained_on={
                        k: v for k, v in getattr(one.model, "provenance", {}).items() if k != "split_hash"
                    },
                )
                for one in self.registry.served.values()
            ],
            events=self.events is not None,
        )

    def _named(self, name: str) -> Served:
        try:
            return self.registry.named(name)
        except SettingsError as error:
            raise Refused(404, str(error), "model") from error

    @staticmethod
    def _at_most(where: str, given: int, most: int, what: str) -> None:
        if given > most:
            raise Refused(422, f"expected at most {most:,} {what}. Got {given:,}.", where)


def _kind(catalogue: Catalogue | None) -> Literal["integer", "string"] | None:
    if catalogue is None:
        return None
    return "integer" if catalogue.ids.dtype.is_integer() else "string"


def answer(content: Any) -> Response:
    """A JSON answer."""
    return Response(to_json(content), media_type="application/json")


def make_app(
    service: Service,
    token: str | None = None,
    running: Callable[[], Any] | None = None,
) -> Door:
    """The ASGI application.

    Args:
        service: what is behind it.
        token: which requests must bring; None: everybody may come in.
        running: an asynchronous context that lasts as long as the application does.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if running is None:
            yield
        else:
            async with running():
                yield

    app = FastAPI(
        title="seqrec",
        version=__version__,
        summary="What will each take next?",
        lifespan=lifespan,
        redoc_url=None,
        docs_url=None,
        strict_content_type=False,  # who sends JSON without saying so means JSON
    )
    _handle_errors(app)
    examples = _examples(service)

    @app.post(
        "/v1/recommend",
        response_model=RecommendAnswer,
        responses=REFUSALS,
        openapi_extra=examples["recommend"],
    )
    async def recommend(body: RecommendRequest) -> Response:
        """The next items after histories, for users, or for users and their newer events."""
        return answer(await service.recommend(body))

    @app.post(
        "/v1/similar-items",
        response_model=SimilarAnswer,
        responses=REFUSALS,
        openapi_extra=examples["similar"],
    )
    async def similar_items(body: SimilarRequest) -> Response:
        """The items nearest to each of some items."""
        return answer(await service.similar(body))

    @app.post("/v1/events", response_model=EventsAnswer, responses=REFUSALS, openapi_extra=examples["events"])
    async def events(body: EventsRequest) -> Response:
        """Keeps what users did. When it answers, all of it is on disk, and counts in the next
        recommendation."""
        return answer({"accepted": await service.append(body)})

    @app.get("/v1/models", response_model=ModelsAnswer, responses=_of(401, 429))
    async def models() -> Response:
        """The models that are served."""
        return answer(service.models())

    @app.get("/v1/items", response_model=ItemsAnswer, responses=_of(401, 404, 422, 429))
    async def items(
        q: Annotated[str, Query(max_length=200, description="Words of the title.")] = "",
        limit: Annotated[int, Query(ge=1, le=100, description="How many items.")] = 20,
        model: Annotated[str | None, Query(description="Whose catalogue; by default the first.")] = None,
    ) -> Response:
        """Searches the items by title (or by id, where there is none): first those whose id or title is
        just that, then the most popular."""
        served = service.registry.first if model is None else service._named(model)
        found = await asyncio.to_thread(served.search, q, limit)
        titles = served.titles
        return answer(
            ItemsAnswer(
                items=[
                    Item(item_id=served.ids[i], title=None if titles is None else titles[i]) for i in found
                ]
            )
        )

    @app.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """Whether the process answers."""
        return answer({"status": "stopping" if service.stopping else "ok"})

    @app.get("/readyz", response_model=Health, responses={503: {"model": Health}})
    async def readyz() -> Response:
        """Whether new requests should come here."""
        body = {"status": "stopping" if service.stopping else "ok"}
        return Response(to_json(body), 503 if service.stopping else 200, media_type="application/json")

    @app.get("/metrics", response_class=Response, responses=_of(401))
    async def metrics() -> Response:
        """Counts and durations, as Prometheus reads them."""
        return Response(service.telemetry.text(), media_type="text/plain; version=0.0.4")

    page = PAGE.read_text(encoding="utf-8")
    guarded = {
        "content-security-policy": _policy(page),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page, headers=guarded)

    s = service.settings
    return Door(Direct(app, service), service.telemetry, s.max_body, s.max_waiting, token)


def _policy(page: str) -> str:
    """What the page may do: run its own script and style, and talk to this service. Whatever else might come
    into it from a title does nothing."""

    def own(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in found)

    return (
        f"default-src 'none'; script-src {own('script')}; style-src {own('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: REFUSALS[status] for status in statuses}


def refusal_of(error: Exception) -> Refused | None:
    """How an error is answered; None for one that is a fault of ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StorageError):
        return Refused(503, str(error))
    if isinstance(error, UnknownIdError):
        return Refused(422, str(error))
    if isinstance(error, RequestValidationError | ValidationError):
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return Refused(422, f"expected JSON. Got something else ({first['ctx']['error']}).", "body")
        place = first["loc"][1:] if isinstance(error, RequestValidationError) else first["loc"]
        # without pydantic's names of the kinds of id
        kinds = ("int", "str", "list[", "union[")
        named = [str(x) for x in place]
        where = ".".join(x for x in named if "constrained" not in x and not x.startswith(kinds))
        return Refused(422, f"{first['msg']}. Got {shown(first.get('input'))}.", where or "body")
    return None


def _told(refused: Refused, **headers: str) -> list[Message]:
    if refused.status == 503:
        headers["retry-after"] = "1"
    return problem(refused.status, refused.error, refused.where, **headers)


def _handle_errors(app: FastAPI) -> None:
    def answered(refused: Refused, **headers: str) -> Response:
        start, body = _told(refused, **headers)
        named = {k.decode(): v.decode() for k, v in start["headers"] if k != b"content-length"}
        return Response(body["body"], refused.status, named)

    async def refuse(_: Request, error: Exception) -> Response:
        # one that is none of these is raised again, for the door to log
        return answered(refusal_of(error) or Refused(500, "The service failed; its log has the reason."))

    for kind in (Refused, RequestValidationError, UnknownIdError, StorageError, Exception):
        app.add_exception_handler(kind, refuse)

    @app.exception_handler(StarletteHTTPException)
    async def _(_: Request, error: HTTPException) -> Response:
        text = {404: "no such path. /openapi.json lists them.", 405: "this path has another method."}
        headers = {k.lower(): v for k, v in (error.headers or {}).items()}
        return answered(
            Refused(error.status_code, text.get(error.status_code, f"{error.detail}.")), **headers
        )


class Direct:
    """Answers what is asked most past FastAPI, whose way to an endpoint takes as long as the answer. Its own
    route is the same, and describes it.

    Args:
        app: FastAPI's, for all other paths.
        service: what is behind it.
    """

    def __init__(self, app: FastAPI, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one connection event, as ASGI has it."""
        if scope["type"] != "http" or scope["path"] != "/v1/recommend" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            found = await self.service.recommend(RecommendRequest.model_validate_json(body))
        except Exception as error:
            refused = refusal_of(error)
            if refused is None:
                raise
            for message in _told(refused):
                await send(message)
            return
        content = to_json(found)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _examples(service: Service) -> dict[str, dict[str, Any]]:
    """Bodies that work on this very service, for its OpenAPI."""
    served = service.registry.first
    some = served.ids[:3]
    users = [] if served.model.sequences is None else served.model.sequences.user_catalogue.ids[:1].to_list()
    user = users[0] if users else "someone"

    def of(**examples: Any) -> dict[str, Any]:
        named = {name: {"value": value} for name, value in examples.items()}
        return {"requestBody": {"content": {"application/json": {"examples": named}}}}

    by_user = {"users": {"users": [user], "k": 5}} if users else {}
    return {
        "recommend": of(sequences={"sequences": [some], "k": 5, "filter_seen": True}, **by_user),
        "similar": of(items={"items": some[:1], "k": 5}),
        "events": of(one={"events": [{"user_id": user, "item_id": some[0], "timestamp": 1_700_000_000}]}),
    }
