"""What is asked of a service and what it answers, as OpenAPI shows them.

Ids are JSON texts or whole numbers, as the log had them: ``"42"`` never stands for ``42``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

Id = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Annotated[StrictStr, Field(max_length=1000)]
Moment = StrictInt | StrictFloat | Annotated[StrictStr, Field(max_length=100)]
"""A number as a log has it (seconds since 1970, or a finer unit), or a date."""


class _Message(BaseModel):
    """A body: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class RecommendRequest(_Message):
    """Which items come next, after histories, for users, or for users and their newer events."""

    sequences: list[list[Id | list[Id]]] | None = None
    """Histories: item ids, oldest first; of a model that was trained on baskets lists of item ids, a basket
    each. Beside ``users``: what each of them took since."""
    users: list[Id] | None = None
    """Users, whose histories the service knows from the training data and from ``/v1/events``. A user of
    whom nothing is known gets the most popular items."""
    k: int = Field(10, ge=1, strict=True)
    """How many items a history."""
    filter_seen: bool | None = Field(None, strict=True)
    """Whether to leave out the items of the history; null: as the model was tested."""
    allow: list[Id] | None = None
    """Only these items."""
    deny: list[Id] = []
    """None of these items, even if they are allowed."""
    at: Moment | None = None
    """The moment that is asked about, of models that read times (others have no use for it): seconds since
    1970, or a date (UTC); null: now."""
    times: list[list[Moment]] | None = None
    """When the items of ``sequences`` were taken, oldest first: needed by models that read times."""
    model: str | None = None
    """The model that answers; null: the one that the user, or the first item of the history, falls to."""
    on_unknown: Literal["ignore", "raise"] = "ignore"
    """Unknown items are left out, and named in the answer; or they are an error."""
    explain: bool = Field(False, strict=True)
    """Also name the history that was read, and, for each item, the items of the history nearest to it."""


class Recommended(_Message):
    """The answer to one history, best item first."""

    query: int
    """Which of those asked, from 0."""
    user: Id | None = None
    """The user, where users were asked for."""
    model: str
    """The model that answered."""
    source: Literal["model", "popularity"]
    """``popularity`` where nothing is known: an empty history, or one of unknown items alone."""
    items: list[Id]
    """Item ids; fewer than k where no more may be recommended."""
    scores: list[float]
    """Their scores: of one model, more is better."""
    titles: list[str | None] | None = None
    """Their titles, where the catalogue has some."""
    unknown: list[Id] = []
    """Items of the history that the model does not know."""
    because: list[list[Id]] | None = None
    """Of each item the nearest items of the history, nearest first; null where the model has no item
    vectors."""
    history: list[Id] | None = None
    """What the model read, oldest first: what it had kept of the user, then what came since, without unknown
    items."""
    history_titles: list[str | None] | None = None
    """Their titles, where the catalogue has some."""


class RecommendAnswer(_Message):
    """One result for each history, in the order asked."""

    results: list[Recommended]


class SimilarRequest(_Message):
    """Which items are like these."""

    items: list[Id]
    """Item ids."""
    k: int = Field(10, ge=1, strict=True)
    """How many neighbours an item."""
    at: Moment | None = None
    """The moment that is asked about, of models that read times (others have no use for it): seconds since
    1970, or a date (UTC); null: now."""
    times: list[list[Moment]] | None = None
    """When the items of ``sequences`` were taken, oldest first: needed by models that read times."""
    model: str | None = None
    """The model that answers; null: the first."""


class Similar(_Message):
    """The neighbours of one item, nearest first."""

    item: Id
    """The item asked for."""
    known: bool
    """Whether the model knows it; else it has no neighbours."""
    items: list[Id]
    """Its neighbours."""
    scores: list[float]
    """Cosines of their vectors."""
    titles: list[str | None] | None = None
    """Their titles, where the catalogue has some."""


class SimilarAnswer(_Message):
    """One result for each item, in the order asked."""

    model: str
    """The model that answered."""
    results: list[Similar]


class Event(_Message):
    """A user took an item."""

    user_id: Id
    """The user, known or new."""
    item_id: Id
    """The item, known or new."""
    timestamp: float | None = Field(None, ge=0, le=253_402_300_799, allow_inf_nan=False, strict=True)
    """Seconds since 1970; null: now, by the service's clock."""


class EventsRequest(_Message):
    """What users did, oldest first."""

    events: list[Event] = Field(min_length=1)


class EventsAnswer(_Message):
    """Everything is on disk."""

    accepted: int
    """How many events."""


class ModelAnswer(_Message):
    """A model that is served."""

    name: str
    """What requests call it."""
    kind: str
    """The model: sasrec, gru4rec ..."""
    runs_on: Literal["torch", "onnx"]
    """What computes it."""
    share: float
    """The share of the users that it answers."""
    items: int
    """Items of its catalogue."""
    users: int
    """Users whose histories it has kept."""
    item_ids: Literal["integer", "string"]
    """What its item ids are in JSON."""
    user_ids: Literal["integer", "string"] | None
    """What its user ids are in JSON; null where it has kept no histories."""
    filter_seen: bool
    """Whether it leaves out the items of the history if a request says nothing."""
    similar_items: bool
    """Whether it can tell which items are alike."""
    state: str
    """The first characters of the checksum of its files: another after a reload."""
    loaded_at: float
    """Seconds since 1970."""
    trained_on: dict[str, Any]
    """Its split, and how many events it learned from."""


class ModelsAnswer(_Message):
    """All models, in the order they were given."""

    models: list[ModelAnswer]
    events: bool
    """Whether ``/v1/events`` is open."""


class Item(_Message):
    """An item of the catalogue."""

    item_id: Id
    """Its id."""
    title: str | None = None
    """Its title, where the catalogue has some."""


class ItemsAnswer(_Message):
    """The items found, the most popular first."""

    items: list[Item]


class Problem(_Message):
    """Why a request was refused, and what to do."""

    error: str
    """One line for people."""
    where: str | None = None
    """The place in the body, as ``sequences.0.2``."""


class Health(_Message):
    """How the service is."""

    status: Literal["ok", "starting", "stopping"]
