"""Recommendations for ids given as text: what `seqrec recommend` prints."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from seqrec import models, storage
from seqrec.data.catalogue import Catalogue
from seqrec.errors import SettingsError
from seqrec.experiment import keys
from seqrec.experiment import protocol as protocols
from seqrec.experiment.data import OF_FILES, read_sequences, refuse_settings
from seqrec.experiment.recipe import Recipe
from seqrec.experiment.settings import DataSettings, read_run
from seqrec.serving import asking, batch, index, onnx_model, recommender
from seqrec.serving.histories import Reading
from seqrec.tables import Table

if TYPE_CHECKING:  # it imports torch
    from seqrec.models.model import Model
    from seqrec.serving.index import Approximate
    from seqrec.serving.onnx_model import OnnxModel

log = logging.getLogger("seqrec")

KNOW_ALL = ("everything", "refit")
"""Splits without a test: who was fitted on one knows all events of its users."""


def open_or_train(
    source: str,
    model_name: str | None,
    data: dict[str, Any],
    save: str | None = None,
    progress: bool = True,
    approximate: bool = False,
) -> Model | OnnxModel | Approximate:
    """The model in a folder; or one trained on a log just now (sasrec if none is named), and kept in ``save``
    if that is given.

    Args:
        approximate: with the index that stands in the folder.

    Raises:
        SettingsError: something that only a log has use for, beside a model.
    """
    folder = models.folder_of(source)
    if folder is not None:
        for option, given in (("model", model_name), ("save", save)):
            if given:
                raise SettingsError(
                    f"{option}: cannot be given, since {source} is a trained model. Got {given!r}. "
                    "Leave it out, or name a log."
                )
        refuse_settings(DataSettings.of(data, "data"), OF_FILES, f"{source} is a trained model")
        found = models.load(folder)
        return index.load(found, folder) if approximate else found
    keys.check({"name": model_name or "sasrec"})
    if save is not None:
        storage.check_folder(save)
    sequences, _ = read_sequences(DataSettings.of(data, "data"))
    model = Recipe({"name": model_name or "sasrec"}).make().fit(sequences, progress=progress)
    if save is not None:
        model.save(save)
    return model


def open_trained(source: str) -> Model | OnnxModel:
    """The model in a folder: a saved one, that of a run, or an exported one.

    Raises:
        DataError: there is none.
    """
    return models.load(source)


def similar(model: Model | OnnxModel, items: list[str], k: int, by: str, on_unknown: str) -> pl.DataFrame:
    """The items most like each of some, given as text by id or title; with titles where the catalogue has
    them."""
    catalogue = recommender.checked(model, k, on_unknown)
    found = model.similar_items(asking.items(items, catalogue, on_unknown), k, by=by, on_unknown=on_unknown)
    return _with_titles(
        _with_titles(found, catalogue, "item_id", "title"), catalogue, "similar_id", "similar_title"
    )


def _with_titles(frame: pl.DataFrame, catalogue: Catalogue, of: str, name: str) -> pl.DataFrame:
    """The frame with a column of titles beside that of the ids, where the catalogue has some."""
    attributes = catalogue.attributes
    if attributes is None or asking.TITLE not in attributes.columns:
        return frame
    titles = pl.DataFrame({of: catalogue.ids, name: attributes[asking.TITLE]})
    frame = frame.join(titles, on=of, how="left", maintain_order="left")
    if "because" in frame.columns:  # who asks for reasons wants to read them
        shown = titles[name].fill_null(titles[of].cast(pl.String))
        named = [shown[catalogue.encode(ids).tolist()].to_list() for ids in frame["because"].to_list()]
        frame = frame.with_columns(pl.Series("because", named, dtype=pl.List(pl.String)))
    return frame


def filters_seen(source: str) -> bool:
    """Whether a run's test leaves out what a user has seen, told from the run.json in its folder, or beside
    its model, from the choice.json of `seqrec choose` there, or from an exported model; True where there is
    none."""
    if onnx_model.is_folder(source):
        return onnx_model.filters_seen(source)
    beside = [storage.parent(source)] if Path(source).name in ("model", "serving") else []
    for folder in (source, *beside):
        if storage.exists(storage.join(folder, "run.json")) and models.folder_of(source) is not None:
            content = read_run(folder)
            own = (content.get("evaluate") or {}).get("filter_seen")
            if own is None and content.get("protocol") is not None:
                own = protocols.read_protocol(content["protocol"]).filter_seen
            return True if own is None else bool(own)
        if storage.exists(chosen := storage.join(folder, "choice.json")):
            return bool(storage.read_json(chosen).get("filter_seen", True))
    return True


@dataclass(frozen=True)
class Choice:
    """What may be recommended, as the command line says it.

    Attributes:
        k: how many items at most.
        filter_seen: leave out what is in the history.
        allow, deny: files of item ids: only these; none of these.
        where: conditions on the items' attributes, as ``genres = Comedy``.
    """

    k: int = 10
    filter_seen: bool = True
    allow: str | None = None
    deny: str | None = None
    where: str | None = None

    def allowed(self, catalogue: Catalogue) -> list[Any] | None:
        """The ids that both the file and the conditions let through; None: all."""
        ids = None if self.allow is None else asking.ids_in(self.allow, catalogue)
        if self.where is None:
            return ids
        meeting, listed = asking.where(self.where, catalogue).to_list(), set(ids or ())
        return meeting if ids is None else [one for one in meeting if one in listed]

    def arguments(self, catalogue: Catalogue) -> dict[str, Any]:
        """Keyword arguments of ``Model.recommend``."""
        denied = None if self.deny is None else asking.ids_in(self.deny, catalogue)
        return {
            "k": self.k,
            "filter_seen": self.filter_seen,
            "allow": self.allowed(catalogue),
            "deny": denied,
        }


def recommend(
    model: Model | OnnxModel | Approximate,
    sequences: list[str] | None,
    users: list[str] | None,
    choice: Choice,
    on_unknown: str,
    at: str | None = None,
    times: list[str] | None = None,
    explain: bool = False,
) -> pl.DataFrame:
    """Recommendations for ids given as text, with the items' titles where the catalogue has them; for all
    users if none is named.

    Args:
        sequences: a history each, or what each of ``users`` did since.
        at: the moment that is asked about, of models that read times.
        times: of each of ``sequences`` when its items were taken, with commas between.
        explain: also say which items of the history are nearest to each; by title, where they have one.

    Raises:
        SettingsError: users of a model that was saved without their histories.
    """
    assert model.item_catalogue is not None
    histories = None if sequences is None else [_history(model, text, on_unknown) for text in sequences]
    arguments = choice.arguments(model.item_catalogue) | {"on_unknown": on_unknown, "at": at}
    arguments["explain"] = explain
    if times is not None:
        arguments["times"] = [_parts(text) for text in times]
    if histories is None or users is not None:
        if model.sequences is None:
            raise SettingsError(
                f"--user: {model.name} was saved without its users' histories. Give --sequence, or save "
                "it with histories=True."
            )
        if model.provenance.get("split", {}).get("name") not in KNOW_ALL:
            log.info(
                "The users' histories end before the held-out test events, which may be recommended "
                "again. Train with --refit (output.refit: true) "
                "for a model that knows all events; seqrec recommend then uses it."
            )
        catalogue = model.sequences.user_catalogue
        chosen = catalogue.ids.to_list() if users is None else asking.typed(users, catalogue)
        frame = model.recommend(histories, users=chosen, **arguments)
    else:
        frame = model.recommend(histories, **arguments)
    return _with_titles(frame, model.item_catalogue, "item_id", "title")


def recommend_file(
    model: Model | OnnxModel | Approximate,
    source: str,
    target: str,
    choice: Choice,
    on_unknown: str,
    since: bool,
    rows: str | None,
    reading: Reading,
    progress: bool,
    at: str | None = None,
) -> None:
    """Recommendations for a file of histories, as a file (``seqrec.serving.batch``)."""
    assert model.item_catalogue is not None
    arguments = choice.arguments(model.item_catalogue) | {"on_unknown": on_unknown, "progress": progress}
    arguments["at"] = at
    batch.recommend(model, source, target, since=since, rows=rows, reading=reading, **arguments)


def _history(model: Model | OnnxModel | Approximate, text: str, on_unknown: str) -> list[Any]:
    """The items of a history; of a model that was trained on baskets its baskets, with ``;`` between them."""
    assert model.item_catalogue is not None
    catalogue = model.item_catalogue
    if not model.needs_baskets:
        return asking.items(_parts(text), catalogue, on_unknown)
    baskets = [_parts(basket) for basket in text.split(";")]
    return [asking.items(basket, catalogue, on_unknown) for basket in baskets if basket]


def _parts(text: str) -> list[str]:
    """The ids of a history as a row of CSV: one that has a comma stands in quotes, and a quote within those
    is doubled, as ``5,"a,b","say ""hi\"\"\""``."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise SettingsError(
            f"--sequence: expected ids with commas between them, as a,b,c; one with a comma or a quote in it "
            f'stands in quotes, as \'"a,b","say ""hi"""\'. Got {text!r} ({error}).'
        ) from error
    return [part for row in rows for part in row if part.strip()]


def table_of(frame: pl.DataFrame) -> Table:
    """Recommendations as a table, ids as they are."""
    rows = frame.to_dicts()
    for row in rows:
        if "because" in row:
            row["because"] = "; ".join(map(str, row["because"]))
    return Table("", frame.columns, rows, formats={"item_id": str, "user_id": str})


def write_frame(frame: pl.DataFrame, path: str) -> None:
    """Writes recommendations as .csv, .json, .md or .parquet."""
    if path.endswith(".parquet"):
        storage.write_parquet(frame, path)
    else:
        table_of(frame).write(path)
